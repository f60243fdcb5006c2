//! The newest keyframes on disk, and the previews that edited pictures are compared with.
//!
//! What is read was verified: each record is sealed under its key. One that is damaged counts as absent,
//! so that its frame is judged again, and as damaged.

use std::path::Path;

use prometheus_client::metrics::counter::Counter;
use prost::Message;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
};
use sovereign_model::{sealed, unsealed};
use sovereign_proto::slam::v1::Keyframe;

use crate::error::StoreError;

/// Keyframes kept; the oldest is dropped for each new one beyond. About 50 MB, and an hour of 28
/// drones at one picture a second.
pub(crate) const MAX_KEYFRAMES: u64 = 100_000;
/// Previews kept of each sensor, some 8 kB each; the oldest is dropped for each new one beyond.
const MAX_PREVIEWS_PER_SENSOR: usize = 64;

/// Sealed keyframes in the order of their arrival.
const KEYFRAMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("keyframes");
/// Place of a frame.
const BY_FRAME: TableDefinition<'_, &str, u64> = TableDefinition::new("by_frame");
/// Places of a sensor's frames.
const BY_SENSOR: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("by_sensor");
/// Sealed previews of pictures whose pose fits their pixels.
const PREVIEWS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("previews");

/// The store. Every call blocks.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    capacity: u64,
    /// Damaged records found, each time.
    damaged: Counter,
}

/// What a place of the store holds.
enum Found {
    Keyframe(Box<Keyframe>),
    Nothing,
    /// Something that is not what was written.
    Damaged,
}

fn failed<E: Into<redb::Error>>(operation: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError::Database {
        operation,
        cause: Box::new(error.into()),
    }
}

impl Store {
    /// Opens the store at `path`, or makes it. It keeps `capacity` keyframes, and counts the damaged
    /// records that it finds.
    pub(crate) fn open(path: &Path, capacity: u64, damaged: Counter) -> Result<Store, StoreError> {
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
        Ok(Store {
            database,
            capacity,
            damaged,
        })
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
            let known = by_frame.get(frame_id).map_err(failed("read"))?;
            if let Some(known) = known.map(|place| place.value()) {
                match found(&keyframes, known)? {
                    Found::Keyframe(kept) if kept.frame_id == frame_id => return Ok(()),
                    // The record is another frame's.
                    Found::Keyframe(_) | Found::Nothing => {}
                    Found::Damaged => {
                        keyframes.remove(known).map_err(failed("remove"))?;
                        let place = (sensor_id, known);
                        by_sensor.remove(place).map_err(failed("remove"))?;
                        previews.remove(place).map_err(failed("remove"))?;
                    }
                }
            }
            let sequence = match keyframes.last().map_err(failed("read"))? {
                Some((last, _)) => last.value() + 1,
                None => 0,
            };
            let bytes = sealed(&sequence.to_le_bytes(), &keyframe.encode_to_vec());
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
                let bytes = sealed(&preview_key(sensor_id, sequence), preview);
                previews
                    .insert((sensor_id, sequence), bytes.as_slice())
                    .map_err(failed("insert"))?;
                drop_oldest_previews(&mut previews, sensor_id)?;
            }
            while keyframes.len().map_err(failed("count"))? > self.capacity {
                let Some((oldest, bytes)) = keyframes.pop_first().map_err(failed("remove"))? else {
                    break;
                };
                let oldest = oldest.value();
                match keyframe_of(oldest, bytes.value()) {
                    Some(expired) => {
                        let place = (expired.sensor_id.as_str(), oldest);
                        by_frame
                            .remove(expired.frame_id.as_str())
                            .map_err(failed("remove"))?;
                        by_sensor.remove(place).map_err(failed("remove"))?;
                        previews.remove(place).map_err(failed("remove"))?;
                    }
                    // It cannot say whose it is, so what points to it is looked for everywhere. That takes
                    // a moment, and is as rare as damage.
                    None => {
                        self.found_damaged(1);
                        by_frame
                            .retain(|_, sequence| sequence != oldest)
                            .map_err(failed("remove"))?;
                        by_sensor
                            .retain(|(_, sequence), ()| sequence != oldest)
                            .map_err(failed("remove"))?;
                        previews
                            .retain(|(_, sequence), _| sequence != oldest)
                            .map_err(failed("remove"))?;
                    }
                }
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
        match found(&keyframes, sequence.value())? {
            Found::Keyframe(keyframe) if keyframe.frame_id == frame_id => Ok(Some(*keyframe)),
            Found::Keyframe(_) | Found::Nothing => Ok(None),
            Found::Damaged => {
                self.found_damaged(1);
                Ok(None)
            }
        }
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
        let mut damaged = 0;
        if let Some(sensor_id) = sensor_id {
            let by_sensor = read.open_table(BY_SENSOR).map_err(failed("open a table"))?;
            let places = by_sensor
                .range((sensor_id, 0)..=(sensor_id, u64::MAX))
                .map_err(failed("read"))?;
            for place in places.rev() {
                if newest.len() == limit {
                    break;
                }
                let (key, _) = place.map_err(failed("read"))?;
                match found(&keyframes, key.value().1)? {
                    Found::Keyframe(keyframe) => newest.push(*keyframe),
                    Found::Nothing => {}
                    Found::Damaged => damaged += 1,
                }
            }
        } else {
            for record in keyframes.iter().map_err(failed("read"))?.rev() {
                if newest.len() == limit {
                    break;
                }
                let (sequence, bytes) = record.map_err(failed("read"))?;
                match keyframe_of(sequence.value(), bytes.value()) {
                    Some(keyframe) => newest.push(keyframe),
                    None => damaged += 1,
                }
            }
        }
        self.found_damaged(damaged);
        newest.reverse();
        Ok(newest)
    }

    /// Keyframes of a sensor whose preview is kept, with it.
    pub(crate) fn previews(&self, sensor_id: &str) -> Result<Vec<(Keyframe, Vec<u8>)>, StoreError> {
        let read = self.database.begin_read().map_err(failed("begin"))?;
        let keyframes = read.open_table(KEYFRAMES).map_err(failed("open a table"))?;
        let previews = read.open_table(PREVIEWS).map_err(failed("open a table"))?;
        let mut kept = Vec::new();
        let mut damaged = 0;
        for record in previews
            .range((sensor_id, 0)..=(sensor_id, u64::MAX))
            .map_err(failed("read"))?
        {
            let (key, bytes) = record.map_err(failed("read"))?;
            let sequence = key.value().1;
            let preview = unsealed(&preview_key(sensor_id, sequence), bytes.value());
            match (found(&keyframes, sequence)?, preview) {
                (Found::Keyframe(keyframe), Some(preview)) => {
                    kept.push((*keyframe, preview.to_vec()));
                }
                (Found::Nothing, Some(_)) => {}
                (Found::Damaged, _) | (_, None) => damaged += 1,
            }
        }
        self.found_damaged(damaged);
        Ok(kept)
    }

    fn found_damaged(&self, records: u64) {
        if records > 0 {
            self.damaged.inc_by(records);
            tracing::error!(records, "damaged records were found in the keyframe store");
        }
    }
}

fn found(
    keyframes: &impl ReadableTable<u64, &'static [u8]>,
    sequence: u64,
) -> Result<Found, StoreError> {
    let record = keyframes.get(sequence).map_err(failed("read"))?;
    Ok(match record {
        None => Found::Nothing,
        Some(bytes) => match keyframe_of(sequence, bytes.value()) {
            Some(keyframe) => Found::Keyframe(Box::new(keyframe)),
            None => Found::Damaged,
        },
    })
}

/// A record as it was written; `None` when it is damaged.
fn keyframe_of(sequence: u64, bytes: &[u8]) -> Option<Keyframe> {
    Keyframe::decode(unsealed(&sequence.to_le_bytes(), bytes)?).ok()
}

/// What a preview is sealed under. The number has a fixed length, and the sensor is all of the rest but
/// for its own length.
fn preview_key(sensor_id: &str, sequence: u64) -> Vec<u8> {
    let mut key = sequence.to_le_bytes().to_vec();
    key.extend((sensor_id.len() as u64).to_le_bytes());
    key.extend(sensor_id.as_bytes());
    key
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
        let store = Store::open(&dir.path().join("k.redb"), 100, Counter::default()).unwrap();
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
        let store = Store::open(&path, 100, Counter::default()).unwrap();
        store.put(&keyframe("a", 1), None).unwrap();
        let changed = Keyframe {
            reason: "changed".to_owned(),
            ..keyframe("a", 1)
        };
        store.put(&changed, None).unwrap();
        drop(store);
        let store = Store::open(&path, 100, Counter::default()).unwrap();
        assert_eq!(store.newest(None, 9).unwrap(), [keyframe("a", 1)]);
    }

    #[test]
    fn beyond_the_capacity_the_oldest_goes_with_all_that_points_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("k.redb"), 3, Counter::default()).unwrap();
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
        let store = Store::open(&dir.path().join("k.redb"), 1000, Counter::default()).unwrap();
        for number in 0..70 {
            store.put(&keyframe("a", number), Some(&[1])).unwrap();
        }
        store.put(&keyframe("b", 0), Some(&[2])).unwrap();
        let kept = store.previews("a").unwrap();
        assert_eq!(kept.len(), MAX_PREVIEWS_PER_SENSOR);
        assert_eq!(kept[0].0.frame_id, "a-6");
        assert_eq!(store.newest(Some("a"), 1000).unwrap().len(), 70);
    }

    /// A bit falls over in a record, behind the store's back.
    fn damage<K: redb::Key + 'static>(
        path: &Path,
        table: TableDefinition<'_, K, &[u8]>,
        key: K::SelfType<'_>,
    ) {
        let database = Database::create(path).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(table).unwrap();
            let mut bytes = table.get(&key).unwrap().unwrap().value().to_vec();
            *bytes.last_mut().unwrap() ^= 4;
            table.insert(key, bytes.as_slice()).unwrap();
        }
        write.commit().unwrap();
    }

    #[test]
    fn a_damaged_keyframe_counts_as_absent_and_its_frame_is_kept_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.redb");
        {
            let store = Store::open(&path, 100, Counter::default()).unwrap();
            for number in 0..3 {
                store.put(&keyframe("a", number), Some(b"preview")).unwrap();
            }
        }
        damage(&path, KEYFRAMES, 1);
        let counted = Counter::default();
        let store = Store::open(&path, 100, counted.clone()).unwrap();
        assert_eq!(store.keyframe("a-1").unwrap(), None);
        assert_eq!(counted.get(), 1);
        for sensor in [None, Some("a")] {
            // What is damaged takes no room in the answer.
            assert_eq!(ids(&store.newest(sensor, 2).unwrap()), ["a-0", "a-2"]);
        }
        let previews = store.previews("a").unwrap();
        assert_eq!(previews.len(), 2);
        assert_eq!(previews[0].1, b"preview");
        assert_eq!(counted.get(), 4);

        store.put(&keyframe("a", 1), Some(b"anew")).unwrap();
        assert_eq!(store.keyframe("a-1").unwrap(), Some(keyframe("a", 1)));
        for sensor in [None, Some("a")] {
            assert_eq!(
                ids(&store.newest(sensor, 9).unwrap()),
                ["a-0", "a-2", "a-1"]
            );
        }
        assert_eq!(store.previews("a").unwrap().len(), 3);
        assert_eq!(counted.get(), 4);
    }

    #[test]
    fn a_damaged_preview_is_no_reference() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.redb");
        {
            let store = Store::open(&path, 100, Counter::default()).unwrap();
            for number in 0..3 {
                store.put(&keyframe("a", number), Some(b"preview")).unwrap();
            }
        }
        damage(&path, PREVIEWS, ("a", 1));
        let counted = Counter::default();
        let store = Store::open(&path, 100, counted.clone()).unwrap();
        let kept = store.previews("a").unwrap();
        let kept: Vec<_> = kept.iter().map(|(k, _)| k.frame_id.as_str()).collect();
        assert_eq!((kept, counted.get()), (vec!["a-0", "a-2"], 1));
    }

    #[test]
    fn the_oldest_makes_room_even_when_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.redb");
        {
            let store = Store::open(&path, 3, Counter::default()).unwrap();
            for number in 0..3 {
                store.put(&keyframe("a", number), Some(b"preview")).unwrap();
            }
        }
        damage(&path, KEYFRAMES, 0);
        let counted = Counter::default();
        let store = Store::open(&path, 3, counted.clone()).unwrap();
        store.put(&keyframe("b", 0), None).unwrap();
        assert_eq!(counted.get(), 1);
        assert_eq!(ids(&store.newest(None, 9).unwrap()), ["a-1", "a-2", "b-0"]);
        let read = store.database.begin_read().unwrap();
        assert_eq!(read.open_table(BY_FRAME).unwrap().len().unwrap(), 3);
        assert_eq!(read.open_table(BY_SENSOR).unwrap().len().unwrap(), 3);
        assert_eq!(read.open_table(PREVIEWS).unwrap().len().unwrap(), 2);
    }
}
