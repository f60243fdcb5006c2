//! The newest keyframes on disk, and the previews that edited pictures are compared with.

use std::path::Path;

use prost::Message;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
};
use sovereign_proto::slam::v1::Keyframe;

use crate::error::StoreError;

/// Keyframes kept; the oldest is dropped for each new one beyond. About 50 MB, and an hour of 28
/// drones at one picture a second.
pub(crate) const MAX_KEYFRAMES: u64 = 100_000;
/// Previews kept of each sensor, some 8 kB each; the oldest is dropped for each new one beyond.
const MAX_PREVIEWS_PER_SENSOR: usize = 64;

/// Encoded keyframes in the order of their arrival.
const KEYFRAMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("keyframes");
/// Place of a frame.
const BY_FRAME: TableDefinition<'_, &str, u64> = TableDefinition::new("by_frame");
/// Places of a sensor's frames.
const BY_SENSOR: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("by_sensor");
/// Previews of pictures whose pose fits their pixels.
const PREVIEWS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("previews");

/// The store. Every call blocks.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    capacity: u64,
}

fn failed<E: Into<redb::Error>>(operation: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError::Database {
        operation,
        cause: Box::new(error.into()),
    }
}

impl Store {
    /// Opens the store at `path`, or makes it. It keeps `capacity` keyframes.
    pub(crate) fn open(path: &Path, capacity: u64) -> Result<Store, StoreError> {
        let database = Database::create(path).map_err(failed("open the database"))?;
        // Reading needs the tables to be there.
        let write = database.begin_write().map_err(failed("begin"))?;
        write
            .open_table(KEYFRAMES)
            .map_err(failed("make a table"))?;
        write.open_table(BY_FRAME).map_err(failed("make a table"))?;
        write
            .open_table(BY_SENSOR)
            .map_err(failed("make a table"))?;
        write.open_table(PREVIEWS).map_err(failed("make a table"))?;
        write.commit().map_err(failed("commit"))?;
        Ok(Store { database, capacity })
    }

    /// Keeps a keyframe, with the preview of its picture where it may serve as a reference; on disk when
    /// this returns. A frame that is known stays as it is.
    pub(crate) fn put(
        &self,
        keyframe: &Keyframe,
        preview: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let (frame_id, sensor_id) = (keyframe.frame_id.as_str(), keyframe.sensor_id.as_str());
        let write = self.database.begin_write().map_err(failed("begin"))?;
        {
            let open = failed::<redb::TableError>;
            let mut keyframes = write.open_table(KEYFRAMES).map_err(open("open a table"))?;
            let mut by_frame = write.open_table(BY_FRAME).map_err(open("open a table"))?;
            let mut by_sensor = write.open_table(BY_SENSOR).map_err(open("open a table"))?;
            let mut previews = write.open_table(PREVIEWS).map_err(open("open a table"))?;
            if by_frame.get(frame_id).map_err(failed("read"))?.is_some() {
                return Ok(());
            }
            let sequence = match keyframes.last().map_err(failed("read"))? {
                Some((last, _)) => last.value() + 1,
                None => 0,
            };
            let bytes = keyframe.encode_to_vec();
            keyframes
                .insert(sequence, bytes.as_slice())
                .map_err(failed("insert"))?;
            by_frame
                .insert(frame_id, sequence)
                .map_err(failed("insert"))?;
            by_sensor
                .insert((sensor_id, sequence), ())
                .map_err(failed("insert"))?;
            if let Some(preview) = preview {
                previews
                    .insert((sensor_id, sequence), preview)
                    .map_err(failed("insert"))?;
                drop_oldest_previews(&mut previews, sensor_id)?;
            }
            while keyframes.len().map_err(failed("count"))? > self.capacity {
                let Some((oldest, bytes)) = keyframes.pop_first().map_err(failed("remove"))? else {
                    break;
                };
                let expired = Keyframe::decode(bytes.value()).map_err(StoreError::Damaged)?;
                let place = (expired.sensor_id.as_str(), oldest.value());
                by_frame
                    .remove(expired.frame_id.as_str())
                    .map_err(failed("remove"))?;
                by_sensor.remove(place).map_err(failed("remove"))?;
                previews.remove(place).map_err(failed("remove"))?;
            }
        }
        write.commit().map_err(failed("commit"))
    }

    /// The keyframe of a frame.
    pub(crate) fn keyframe(&self, frame_id: &str) -> Result<Option<Keyframe>, StoreError> {
        let read = self.database.begin_read().map_err(failed("begin"))?;
        let by_frame = read.open_table(BY_FRAME).map_err(failed("open a table"))?;
        let keyframes = read.open_table(KEYFRAMES).map_err(failed("open a table"))?;
        let Some(sequence) = by_frame.get(frame_id).map_err(failed("read"))? else {
            return Ok(None);
        };
        decoded(&keyframes, sequence.value())
    }

    /// The newest `limit` keyframes of one sensor or of all, oldest first.
    pub(crate) fn newest(
        &self,
        sensor_id: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Keyframe>, StoreError> {
        let read = self.database.begin_read().map_err(failed("begin"))?;
        let keyframes = read.open_table(KEYFRAMES).map_err(failed("open a table"))?;
        let mut newest = Vec::with_capacity(limit.min(128));
        if let Some(sensor_id) = sensor_id {
            let by_sensor = read.open_table(BY_SENSOR).map_err(failed("open a table"))?;
            let places = by_sensor
                .range((sensor_id, 0)..=(sensor_id, u64::MAX))
                .map_err(failed("read"))?;
            for place in places.rev().take(limit) {
                let (key, _) = place.map_err(failed("read"))?;
                newest.extend(decoded(&keyframes, key.value().1)?);
            }
        } else {
            for record in keyframes.iter().map_err(failed("read"))?.rev().take(limit) {
                let (_, bytes) = record.map_err(failed("read"))?;
                newest.push(Keyframe::decode(bytes.value()).map_err(StoreError::Damaged)?);
            }
        }
        newest.reverse();
        Ok(newest)
    }

    /// Keyframes of a sensor whose preview is kept, with it.
    pub(crate) fn previews(&self, sensor_id: &str) -> Result<Vec<(Keyframe, Vec<u8>)>, StoreError> {
        let read = self.database.begin_read().map_err(failed("begin"))?;
        let keyframes = read.open_table(KEYFRAMES).map_err(failed("open a table"))?;
        let previews = read.open_table(PREVIEWS).map_err(failed("open a table"))?;
        let mut kept = Vec::new();
        for record in previews
            .range((sensor_id, 0)..=(sensor_id, u64::MAX))
            .map_err(failed("read"))?
        {
            let (key, preview) = record.map_err(failed("read"))?;
            if let Some(keyframe) = decoded(&keyframes, key.value().1)? {
                kept.push((keyframe, preview.value().to_vec()));
            }
        }
        Ok(kept)
    }
}

fn decoded(
    keyframes: &impl ReadableTable<u64, &'static [u8]>,
    sequence: u64,
) -> Result<Option<Keyframe>, StoreError> {
    match keyframes.get(sequence).map_err(failed("read"))? {
        Some(bytes) => Keyframe::decode(bytes.value())
            .map(Some)
            .map_err(StoreError::Damaged),
        None => Ok(None),
    }
}

fn drop_oldest_previews(
    previews: &mut Table<'_, (&'static str, u64), &'static [u8]>,
    sensor_id: &str,
) -> Result<(), StoreError> {
    let mut places = Vec::with_capacity(MAX_PREVIEWS_PER_SENSOR + 1);
    for record in previews
        .range((sensor_id, 0)..=(sensor_id, u64::MAX))
        .map_err(failed("read"))?
    {
        places.push(record.map_err(failed("read"))?.0.value().1);
    }
    let surplus = places.len().saturating_sub(MAX_PREVIEWS_PER_SENSOR);
    for sequence in &places[..surplus] {
        previews
            .remove((sensor_id, *sequence))
            .map_err(failed("remove"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyframe(sensor: &str, number: u32) -> Keyframe {
        Keyframe {
            frame_id: format!("{sensor}-{number}"),
            sensor_id: sensor.to_owned(),
            captured_unix_nanos: i64::from(number),
            ..Keyframe::default()
        }
    }

    fn ids(keyframes: &[Keyframe]) -> Vec<&str> {
        keyframes.iter().map(|k| k.frame_id.as_str()).collect()
    }

    #[test]
    fn the_newest_of_one_sensor_or_of_all_come_back_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("k.redb"), 100).unwrap();
        for number in 0..3 {
            store.put(&keyframe("a", number), None).unwrap();
            store.put(&keyframe("b", number), None).unwrap();
        }
        assert_eq!(ids(&store.newest(None, 3).unwrap()), ["b-1", "a-2", "b-2"]);
        assert_eq!(ids(&store.newest(Some("a"), 2).unwrap()), ["a-1", "a-2"]);
        assert_eq!(
            ids(&store.newest(Some("c"), 2).unwrap()),
            Vec::<&str>::new()
        );
        assert_eq!(store.keyframe("b-1").unwrap(), Some(keyframe("b", 1)));
        assert_eq!(store.keyframe("b-9").unwrap(), None);
    }

    #[test]
    fn a_known_frame_stays_as_it_is_and_survives_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.redb");
        let store = Store::open(&path, 100).unwrap();
        store.put(&keyframe("a", 1), None).unwrap();
        let changed = Keyframe {
            reason: "changed".to_owned(),
            ..keyframe("a", 1)
        };
        store.put(&changed, None).unwrap();
        drop(store);
        let store = Store::open(&path, 100).unwrap();
        assert_eq!(store.newest(None, 9).unwrap(), [keyframe("a", 1)]);
    }

    #[test]
    fn beyond_the_capacity_the_oldest_goes_with_all_that_points_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("k.redb"), 3).unwrap();
        for number in 0..5 {
            store.put(&keyframe("a", number), Some(b"preview")).unwrap();
        }
        assert_eq!(
            ids(&store.newest(Some("a"), 9).unwrap()),
            ["a-2", "a-3", "a-4"]
        );
        assert_eq!(store.keyframe("a-1").unwrap(), None);
        assert_eq!(store.previews("a").unwrap().len(), 3);
    }

    #[test]
    fn previews_of_a_sensor_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("k.redb"), 1000).unwrap();
        for number in 0..70 {
            store.put(&keyframe("a", number), Some(&[1])).unwrap();
        }
        store.put(&keyframe("b", 0), Some(&[2])).unwrap();
        let kept = store.previews("a").unwrap();
        assert_eq!(kept.len(), MAX_PREVIEWS_PER_SENSOR);
        assert_eq!(kept[0].0.frame_id, "a-6");
        assert_eq!(store.newest(Some("a"), 1000).unwrap().len(), 70);
    }
}
