//! The newest frames on disk with their verdicts, the previews that edited pictures are compared with, and
//! the calibrations that somebody set, with the frames that wait to be judged again for them.
//!
//! What is read was verified: each record is sealed under its key. One that is damaged counts as absent,
//! so that its frame is judged again, and as damaged.

use std::path::Path;

use prometheus_client::metrics::counter::Counter;
use prost::Message;
use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};
use sovereign_disk::{Database, Found as FoundFile, Layout};
use sovereign_model::{sealed, unsealed};
use sovereign_proto::geo::v1::Capture;
use sovereign_proto::slam::v1 as slam;
use sovereign_proto::slam::v1::Keyframe;

use crate::calibration::Calibration;
use crate::error::StoreError;
use crate::wire;

/// Keyframes kept; the oldest is dropped for each new one beyond. About 50 MB, and an hour of 28
/// drones at one picture a second.
pub(crate) const MAX_KEYFRAMES: u64 = 100_000;
/// Previews kept of each sensor, some 8 kB each; the oldest is dropped for each new one beyond.
const MAX_PREVIEWS_PER_SENSOR: usize = 64;

/// Verdicts on a frame that are kept; the oldest go first.
const MAX_VERDICTS: usize = 16;
const LAYOUT: Layout = Layout {
    format: 1,
    page_cache_bytes: 8 << 20,
};

/// What is known of a frame: the capture, and the verdicts on it, the newest first.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Record {
    #[prost(message, optional, tag = "1")]
    pub(crate) capture: Option<Capture>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) verdicts: Vec<Keyframe>,
}

impl Record {
    pub(crate) fn new(capture: &Capture, verdict: Keyframe) -> Self {
        Self {
            capture: Some(capture.clone()),
            verdicts: vec![verdict],
        }
    }

    pub(crate) fn current(&self) -> Option<&Keyframe> {
        self.verdicts.first()
    }
}

/// Sealed records in the order of their arrival.
const KEYFRAMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("keyframes");
/// Place of a frame.
const BY_FRAME: TableDefinition<'_, &str, u64> = TableDefinition::new("by_frame");
/// Places of a sensor's frames.
const BY_SENSOR: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("by_sensor");
/// Sealed previews of pictures whose pose fits their pixels.
const PREVIEWS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("previews");

/// Places of the frames of a camera model and a sensor.
const BY_CAMERA: TableDefinition<'_, (&str, &str, u64), ()> = TableDefinition::new("by_camera");
/// Sealed calibrations by model and sensor.
const CALIBRATIONS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("calibrations");
/// Places of frames that are to be judged again.
const REJUDGE: TableDefinition<'_, u64, ()> = TableDefinition::new("rejudge");

/// Places of the frames in the order of their newest verdicts, numbered from 1,
const VERDICTS: TableDefinition<'_, u64, u64> = TableDefinition::new("verdicts");
/// and the number of each place's newest verdict.
const NEWEST_VERDICT: TableDefinition<'_, u64, u64> = TableDefinition::new("newest_verdict");

/// Keyframes, and how far in the order of verdicts they go.
#[derive(Debug, PartialEq)]
pub(crate) struct Page {
    pub(crate) keyframes: Vec<Keyframe>,
    pub(crate) position: u64,
}

#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    capacity: u64,
    damaged: Counter,
}

enum Found {
    Record(Box<Record>),
    Nothing,
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
        let database = Database::open(path, LAYOUT, |write| {
            write.open_table(KEYFRAMES)?;
            write.open_table(BY_FRAME)?;
            write.open_table(BY_SENSOR)?;
            write.open_table(PREVIEWS)?;
            write.open_table(BY_CAMERA)?;
            write.open_table(CALIBRATIONS)?;
            write.open_table(REJUDGE)?;
            write.open_table(VERDICTS)?;
            write.open_table(NEWEST_VERDICT)?;
            Ok(())
        })
        .map_err(StoreError::Open)?;
        Ok(Store {
            database,
            capacity,
            damaged,
        })
    }

    /// What was there of the file.
    pub(crate) fn found(&self) -> &FoundFile {
        self.database.found()
    }

    /// Keeps a frame with its first verdict, and with the preview of its picture where it may serve as a
    /// reference; on disk when this returns. A frame that is known stays as it is.
    pub(crate) fn put(&self, record: &Record, preview: Option<&[u8]>) -> Result<(), StoreError> {
        let Some(keyframe) = record.current() else {
            return Ok(());
        };
        let (frame_id, sensor_id) = (keyframe.frame_id.as_str(), keyframe.sensor_id.as_str());
        let model = record.capture.as_ref().map_or("", wire::model_of);
        let write = self.database.begin_write().map_err(failed("begin"))?;
        {
            let open = failed::<redb::TableError>;
            let mut keyframes = write.open_table(KEYFRAMES).map_err(open("open a table"))?;
            let mut by_frame = write.open_table(BY_FRAME).map_err(open("open a table"))?;
            let mut by_sensor = write.open_table(BY_SENSOR).map_err(open("open a table"))?;
            let mut by_camera = write.open_table(BY_CAMERA).map_err(open("open a table"))?;
            let mut previews = write.open_table(PREVIEWS).map_err(open("open a table"))?;
            let mut verdicts = Verdicts::open(&write)?;
            let known = by_frame.get(frame_id).map_err(failed("read"))?;
            if let Some(known) = known.map(|place| place.value()) {
                match found(&keyframes, known)? {
                    Found::Record(kept) if is_of(&kept, frame_id) => return Ok(()),
                    // The record is another frame's.
                    Found::Record(_) | Found::Nothing => {}
                    Found::Damaged => {
                        keyframes.remove(known).map_err(failed("remove"))?;
                        verdicts.forget(known)?;
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
            let bytes = sealed(&sequence.to_le_bytes(), &record.encode_to_vec());
            keyframes
                .insert(sequence, bytes.as_slice())
                .map_err(failed("insert"))?;
            verdicts.append(sequence)?;
            by_frame
                .insert(frame_id, sequence)
                .map_err(failed("insert"))?;
            by_sensor
                .insert((sensor_id, sequence), ())
                .map_err(failed("insert"))?;
            if !model.is_empty() {
                by_camera
                    .insert((model, sensor_id, sequence), ())
                    .map_err(failed("insert"))?;
            }
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
                verdicts.forget(oldest)?;
                let record = record_of(oldest, bytes.value());
                match record
                    .as_ref()
                    .and_then(|record| Some((record, record.current()?)))
                {
                    Some((record, expired)) => {
                        let place = (expired.sensor_id.as_str(), oldest);
                        let model = record.capture.as_ref().map_or("", wire::model_of);
                        by_camera
                            .remove((model, place.0, oldest))
                            .map_err(failed("remove"))?;
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
                        by_camera
                            .retain(|(_, _, sequence), ()| sequence != oldest)
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

    pub(crate) fn record(&self, frame_id: &str) -> Result<Option<Record>, StoreError> {
        let read = self.database.begin_read().map_err(failed("begin"))?;
        let by_frame = read.open_table(BY_FRAME).map_err(failed("open a table"))?;
        let keyframes = read.open_table(KEYFRAMES).map_err(failed("open a table"))?;
        let Some(sequence) = by_frame.get(frame_id).map_err(failed("read"))? else {
            return Ok(None);
        };
        match found(&keyframes, sequence.value())? {
            Found::Record(record) if is_of(&record, frame_id) => Ok(Some(*record)),
            Found::Record(_) | Found::Nothing => Ok(None),
            Found::Damaged => {
                self.found_damaged(1);
                Ok(None)
            }
        }
    }

    pub(crate) fn newest(&self, sensor_id: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let read = self.database.begin_read().map_err(failed("begin"))?;
        let keyframes = read.open_table(KEYFRAMES).map_err(failed("open a table"))?;
        let verdicts = read.open_table(VERDICTS).map_err(failed("open a table"))?;
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
                    Found::Record(record) => newest.extend(record.current().cloned()),
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
                match record_of(sequence.value(), bytes.value()) {
                    Some(record) => newest.extend(record.current().cloned()),
                    None => damaged += 1,
                }
            }
        }
        self.found_damaged(damaged);
        newest.reverse();
        Ok(Page {
            keyframes: newest,
            position: last_verdict(&verdicts)?,
        })
    }

    /// The frames with a verdict after the one numbered `after`, from the next `limit` verdicts, in their order. The
    /// position is that of the last of these, or of the newest when there are none.
    pub(crate) fn since(
        &self,
        sensor_id: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let read = self.database.begin_read().map_err(failed("begin"))?;
        let keyframes = read.open_table(KEYFRAMES).map_err(failed("open a table"))?;
        let verdicts = read.open_table(VERDICTS).map_err(failed("open a table"))?;
        let mut page = Page {
            keyframes: Vec::new(),
            position: last_verdict(&verdicts)?,
        };
        let mut damaged = 0;
        let next = after.saturating_add(1);
        for verdict in verdicts.range(next..).map_err(failed("read"))?.take(limit) {
            let (number, place) = verdict.map_err(failed("read"))?;
            page.position = number.value();
            match found(&keyframes, place.value())? {
                Found::Record(record) => {
                    let current = record.current();
                    let wanted = current.filter(|current| {
                        sensor_id.is_none_or(|sensor_id| current.sensor_id == sensor_id)
                    });
                    page.keyframes.extend(wanted.cloned());
                }
                Found::Nothing => {}
                Found::Damaged => damaged += 1,
            }
        }
        self.found_damaged(damaged);
        Ok(page)
    }

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
                (Found::Record(record), Some(preview)) => {
                    let current = record.current().cloned();
                    kept.extend(current.map(|current| (current, preview.to_vec())));
                }
                (Found::Nothing, Some(_)) => {}
                (Found::Damaged, _) | (_, None) => damaged += 1,
            }
        }
        self.found_damaged(damaged);
        Ok(kept)
    }

    pub(crate) fn calibrations(&self) -> Result<Vec<Calibration>, StoreError> {
        let read = self.database.begin_read().map_err(failed("begin"))?;
        let table = read
            .open_table(CALIBRATIONS)
            .map_err(failed("open a table"))?;
        let mut kept = Vec::new();
        for entry in table.iter().map_err(failed("read"))? {
            let (key, bytes) = entry.map_err(failed("read"))?;
            let (model, sensor_id) = key.value();
            let message = unsealed(&calibration_key(model, sensor_id), bytes.value());
            let message = message.and_then(|bytes| slam::Calibration::decode(bytes).ok());
            match message.and_then(|message| wire::kept_calibration(&message)) {
                Some(calibration) => kept.push(calibration),
                None => self.found_damaged(1),
            }
        }
        Ok(kept)
    }

    /// Keeps a calibration in the place of the one of the same model and sensor; the frames that are judged
    /// again.
    pub(crate) fn set_calibration(&self, calibration: &Calibration) -> Result<u64, StoreError> {
        let (model, sensor_id) = (&*calibration.camera.model, &*calibration.sensor_id);
        let message = wire::calibration_from(calibration).encode_to_vec();
        let bytes = sealed(&calibration_key(model, sensor_id), &message);
        let write = self.database.begin_write().map_err(failed("begin"))?;
        write
            .open_table(CALIBRATIONS)
            .map_err(failed("open a table"))?
            .insert((model, sensor_id), bytes.as_slice())
            .map_err(failed("insert"))?;
        let frames = rejudge(&write, model, sensor_id)?;
        write.commit().map_err(failed("commit"))?;
        Ok(frames)
    }

    pub(crate) fn remove_calibration(
        &self,
        model: &str,
        sensor_id: &str,
    ) -> Result<u64, StoreError> {
        let write = self.database.begin_write().map_err(failed("begin"))?;
        write
            .open_table(CALIBRATIONS)
            .map_err(failed("open a table"))?
            .remove((model, sensor_id))
            .map_err(failed("remove"))?;
        let frames = rejudge(&write, model, sensor_id)?;
        write.commit().map_err(failed("commit"))?;
        Ok(frames)
    }

    pub(crate) fn waiting(&self) -> Result<u64, StoreError> {
        let read = self.database.begin_read().map_err(failed("begin"))?;
        let waiting = read.open_table(REJUDGE).map_err(failed("open a table"))?;
        waiting.len().map_err(failed("count"))
    }

    /// The next frame to be judged again: its place, and what is known of it unless it is gone.
    pub(crate) fn next_waiting(&self) -> Result<Option<(u64, Option<Record>)>, StoreError> {
        let read = self.database.begin_read().map_err(failed("begin"))?;
        let waiting = read.open_table(REJUDGE).map_err(failed("open a table"))?;
        let keyframes = read.open_table(KEYFRAMES).map_err(failed("open a table"))?;
        let Some((place, _)) = waiting.first().map_err(failed("read"))? else {
            return Ok(None);
        };
        let sequence = place.value();
        match found(&keyframes, sequence)? {
            Found::Record(record) => Ok(Some((sequence, Some(*record)))),
            Found::Nothing => Ok(Some((sequence, None))),
            Found::Damaged => {
                self.found_damaged(1);
                Ok(Some((sequence, None)))
            }
        }
    }

    /// A frame was judged again, and has a new verdict or keeps the one it has.
    pub(crate) fn judged_again(
        &self,
        sequence: u64,
        revised: Option<(Record, Keyframe)>,
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed("begin"))?;
        if let Some((record, verdict)) = revised {
            revise(&write, sequence, record, verdict)?;
        }
        write
            .open_table(REJUDGE)
            .map_err(failed("open a table"))?
            .remove(sequence)
            .map_err(failed("remove"))?;
        write.commit().map_err(failed("commit"))
    }

    /// A frame has another verdict, unless it is gone.
    pub(crate) fn overrule(&self, record: Record, verdict: Keyframe) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed("begin"))?;
        let place = write
            .open_table(BY_FRAME)
            .map_err(failed("open a table"))?
            .get(verdict.frame_id.as_str())
            .map_err(failed("read"))?
            .map(|place| place.value());
        if let Some(place) = place {
            revise(&write, place, record, verdict)?;
        }
        write.commit().map_err(failed("commit"))
    }

    fn found_damaged(&self, records: u64) {
        if records > 0 {
            self.damaged.inc_by(records);
            tracing::error!(records, "damaged records were found in the keyframe store");
        }
    }
}

fn revise(
    write: &WriteTransaction,
    place: u64,
    mut record: Record,
    verdict: Keyframe,
) -> Result<(), StoreError> {
    record.verdicts.insert(0, verdict);
    record.verdicts.truncate(MAX_VERDICTS);
    let bytes = sealed(&place.to_le_bytes(), &record.encode_to_vec());
    write
        .open_table(KEYFRAMES)
        .map_err(failed("open a table"))?
        .insert(place, bytes.as_slice())
        .map_err(failed("insert"))?;
    Verdicts::open(write)?.append(place)
}

/// The order of verdicts, while it is written.
struct Verdicts<'w> {
    places: Table<'w, u64, u64>,
    newest: Table<'w, u64, u64>,
    last: u64,
}

impl<'w> Verdicts<'w> {
    fn open(write: &'w WriteTransaction) -> Result<Self, StoreError> {
        let places = write.open_table(VERDICTS).map_err(failed("open a table"))?;
        let newest = write
            .open_table(NEWEST_VERDICT)
            .map_err(failed("open a table"))?;
        let last = last_verdict(&places)?;
        Ok(Self {
            places,
            newest,
            last,
        })
    }

    /// The frame at `place` has a verdict, which takes the place of an earlier one.
    fn append(&mut self, place: u64) -> Result<(), StoreError> {
        self.forget(place)?;
        self.last += 1;
        self.places
            .insert(self.last, place)
            .map_err(failed("insert"))?;
        self.newest
            .insert(place, self.last)
            .map_err(failed("insert"))?;
        Ok(())
    }

    fn forget(&mut self, place: u64) -> Result<(), StoreError> {
        let number = self.newest.remove(place).map_err(failed("remove"))?;
        if let Some(number) = number.map(|number| number.value()) {
            self.places.remove(number).map_err(failed("remove"))?;
        }
        Ok(())
    }
}

/// Number of the newest verdict; 0 before the first.
fn last_verdict(verdicts: &impl ReadableTable<u64, u64>) -> Result<u64, StoreError> {
    let last = verdicts.last().map_err(failed("read"))?;
    Ok(last.map_or(0, |(number, _)| number.value()))
}

fn found(
    keyframes: &impl ReadableTable<u64, &'static [u8]>,
    sequence: u64,
) -> Result<Found, StoreError> {
    let record = keyframes.get(sequence).map_err(failed("read"))?;
    Ok(match record {
        None => Found::Nothing,
        Some(bytes) => match record_of(sequence, bytes.value()) {
            Some(record) => Found::Record(Box::new(record)),
            None => Found::Damaged,
        },
    })
}

/// A record as it was written; `None` when it is damaged.
fn record_of(sequence: u64, bytes: &[u8]) -> Option<Record> {
    Record::decode(unsealed(&sequence.to_le_bytes(), bytes)?).ok()
}

fn is_of(record: &Record, frame_id: &str) -> bool {
    let current = record.current();
    current.is_some_and(|current| current.frame_id == frame_id)
}

fn calibration_key(model: &str, sensor_id: &str) -> Vec<u8> {
    preview_key(model, sensor_id.len() as u64)
        .into_iter()
        .chain(sensor_id.bytes())
        .collect()
}

/// Puts the frames of a camera among those to be judged again; how many they are.
fn rejudge(write: &WriteTransaction, model: &str, sensor_id: &str) -> Result<u64, StoreError> {
    let by_camera = write
        .open_table(BY_CAMERA)
        .map_err(failed("open a table"))?;
    let mut waiting = write.open_table(REJUDGE).map_err(failed("open a table"))?;
    // No sensor is named beyond its alphabet.
    let (first, last) = if sensor_id.is_empty() {
        ("", "\u{7f}")
    } else {
        (sensor_id, sensor_id)
    };
    let mut frames = 0;
    for place in by_camera
        .range((model, first, 0)..=(model, last, u64::MAX))
        .map_err(failed("read"))?
    {
        let sequence = place.map_err(failed("read"))?.0.value().2;
        waiting.insert(sequence, ()).map_err(failed("insert"))?;
        frames += 1;
    }
    Ok(frames)
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
mod tests;
