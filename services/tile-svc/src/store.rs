//! Where tiles are kept: one file, one transaction a commit, one writer.
//!
//! What is read was verified: each value starts with the SHA-256 of its key and itself, and a value that
//! does not match is reported as damaged and never handed out. A frame that is on the map is remembered
//! with its pose and its tiles, so that its ground can be painted again.

mod error;
mod format;
mod map;
mod tables;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};
use sovereign_disk::{Database, Found as FoundFile, Layout as FileLayout, OpenDatabaseError};
use sovereign_model::geo::{Bounds, TileCoord};
use sovereign_model::{sealed, unsealed};

use crate::domain::layer::{Layer, Place};
use format::{key_of, number_of, place_of};
use tables::{CHANGES, DIGESTS, DIRTY, FRAMES, GROUND, Key, LAYERS, ORDER, PLACES, TILES};

pub(crate) use error::StoreError;
pub(crate) use format::{FrameRecord, Fresh, LayerSummary, Stored};
pub(crate) use map::{Found, Map};

/// Changes that are kept; the oldest go first. A reader that is further behind is told so.
const MAX_CHANGES: u64 = 100_000;

/// Frames that are remembered; the oldest go first. What they painted stays until its ground is painted
/// again, and one that comes again is painted again.
const MAX_FRAMES: u64 = 100_000;

const LAYOUT: FileLayout = FileLayout {
    format: 1,
    page_cache_bytes: 24 << 20,
};

/// Tiles painted again at once lie within a square of this many a side: frames over one of them are mostly
/// over the others too.
const GROUP_SIDE: u32 = 8;

#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) layer: Layer,
    pub(crate) tiles: Vec<Fresh>,
    pub(crate) removed: Vec<TileCoord>,
    pub(crate) frames: Vec<(String, FrameRecord)>,
    /// Frames that left some of their tiles because their picture is gone.
    pub(crate) left: Vec<(String, Vec<TileCoord>)>,
    /// Tiles that were painted again, with the number that they had in [`Dirty`].
    pub(crate) clean: Vec<(TileCoord, u64)>,
    /// The change, encoded, with [`Store::next_sequence`]; nothing when nothing shows.
    pub(crate) change: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) tiles: Vec<(TileCoord, u64)>,
    pub(crate) causes: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Store {
    map: Map,
    next_sequence: AtomicU64,
    next_frame: AtomicU64,
    next_reason: AtomicU64,
}

impl Store {
    /// Opens the file, or makes it. `cache_bytes` bounds the decoded tiles in memory.
    pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let database = Database::open(path, LAYOUT, prepare).map_err(|error| match error {
            OpenDatabaseError::Use { path, cause }
                if matches!(*cause, redb::Error::TableTypeMismatch { .. }) =>
            {
                StoreError::Outdated(path)
            }
            error @ (OpenDatabaseError::Use { .. } | OpenDatabaseError::Later { .. }) => {
                StoreError::Open(error)
            }
        })?;
        let next = Next::read(&database).map_err(StoreError::read)?;
        Ok(Self {
            map: Map::new(database, cache_bytes)?,
            next_sequence: next.sequence.into(),
            next_frame: next.frame.into(),
            next_reason: next.reason.into(),
        })
    }

    /// What was there of the file.
    pub(crate) fn found(&self) -> &FoundFile {
        self.map.database.found()
    }

    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence.load(Ordering::Relaxed)
    }

    pub(crate) fn load(&self, place: Place) -> Result<Found, StoreError> {
        if let Some(stored) = self.map.decoded.get(&place) {
            return Ok(Found::Tile(stored));
        }
        let found = self.map.fetch(place)?;
        if let Found::Tile(stored) = &found {
            self.map.decoded.insert(place, Arc::clone(stored));
        }
        Ok(found)
    }

    /// What is known of a frame. A damaged record is as none: the frame is painted again.
    pub(crate) fn frame(&self, frame_id: &str) -> Result<Option<FrameRecord>, StoreError> {
        let read = || -> Result<Option<FrameRecord>, redb::Error> {
            let frames = self.map.database.begin_read()?.open_table(FRAMES)?;
            let sealed = frames.get(frame_id)?;
            Ok(sealed.and_then(|sealed| record_from(frame_id, sealed.value())))
        };
        read().map_err(StoreError::read)
    }

    pub(crate) fn frames_on(
        &self,
        layer: Layer,
        tiles: &[TileCoord],
    ) -> Result<Vec<(String, FrameRecord)>, StoreError> {
        let read = || -> Result<Vec<(String, FrameRecord)>, redb::Error> {
            let reading = self.map.database.begin_read()?;
            let (ground, frames) = (reading.open_table(GROUND)?, reading.open_table(FRAMES)?);
            let mut ids = std::collections::BTreeSet::new();
            for &coord in tiles {
                let (layer, number) = key_of(Place { layer, coord });
                for entry in ground.range((layer, number, "")..(layer, number + 1, ""))? {
                    ids.insert(entry?.0.value().2.to_owned());
                }
            }
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                let sealed = frames.get(id.as_str())?;
                let record = sealed.and_then(|sealed| record_from(&id, sealed.value()));
                found.extend(record.map(|record| (id, record)));
            }
            Ok(found)
        };
        read().map_err(StoreError::read)
    }

    /// Remembers the newest verdict on a frame; the tiles that it leaves or enters are to be painted again.
    pub(crate) fn revise(
        &self,
        layer: Layer,
        frame_id: &str,
        record: &FrameRecord,
    ) -> Result<(), StoreError> {
        let number = self.next_frame.load(Ordering::Relaxed);
        let reason = self.next_reason.fetch_add(1, Ordering::Relaxed);
        let write = || -> Result<bool, redb::Error> {
            let transaction = self.map.database.begin_write()?;
            let is_new = write_frame(&transaction, layer, number, frame_id, record, Some(reason))?;
            forget_frames(&transaction, layer)?;
            transaction.commit()?;
            Ok(is_new)
        };
        if write().map_err(StoreError::write)? {
            self.next_frame.store(number + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Tiles that wait to be painted again, once for each frame that is a reason.
    pub(crate) fn dirty_tiles(&self) -> Result<u64, StoreError> {
        let read = || -> Result<u64, redb::Error> {
            Ok(self.map.database.begin_read()?.open_table(DIRTY)?.len()?)
        };
        read().map_err(StoreError::read)
    }

    /// Some neighbouring tiles of one zoom that wait to be painted again; nothing when none do.
    pub(crate) fn dirty_group(&self, layer: Layer) -> Result<Dirty, StoreError> {
        let read = || -> Result<Dirty, redb::Error> {
            let dirty = self.map.database.begin_read()?.open_table(DIRTY)?;
            let number = layer.number();
            let mut group = Dirty::default();
            let Some(first) = dirty.range((number, 0, "")..(number + 1, 0, ""))?.next() else {
                return Ok(group);
            };
            let (layer, place, _) = first?.0.value();
            let Some(Place { coord: first, .. }) = place_of((layer, place)) else {
                return Ok(group);
            };
            let (left, top) = (first.x() & !(GROUP_SIDE - 1), first.y() & !(GROUP_SIDE - 1));
            for x in left..left + GROUP_SIDE {
                let Some(start) = TileCoord::new(first.z(), x, top) else {
                    break;
                };
                let start = number_of(start);
                let column = (number, start, "")..(number, start + u64::from(GROUP_SIDE), "");
                for entry in dirty.range(column)? {
                    let (key, reason) = entry?;
                    let (layer, place, frame_id) = key.value();
                    group.causes.push(frame_id.to_owned());
                    let Some(Place { coord, .. }) = place_of((layer, place)) else {
                        continue;
                    };
                    match group.tiles.last_mut() {
                        Some((same, newest)) if *same == coord => {
                            *newest = reason.value().max(*newest);
                        }
                        _ => group.tiles.push((coord, reason.value())),
                    }
                }
            }
            group.causes.sort_unstable();
            group.causes.dedup();
            Ok(group)
        };
        read().map_err(StoreError::read)
    }

    /// Writes a commit; it is on disk when this returns, and if it fails nothing of it is.
    pub(crate) fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        let (sequence, number) = (
            self.next_sequence(),
            self.next_frame.load(Ordering::Relaxed),
        );
        let write = || -> Result<(LayerSummary, u64), redb::Error> {
            let transaction = self.map.database.begin_write()?;
            let mut summary = self.map.summary(commit.layer);
            write_tiles(&transaction, commit, &mut summary)?;
            let mut next = number;
            for (frame_id, record) in &commit.frames {
                let is_new = write_frame(&transaction, commit.layer, next, frame_id, record, None)?;
                next += u64::from(is_new);
                summary.simulated |= record.simulated;
                summary.bounds = union(summary.bounds, record.bounds);
            }
            forget_frames(&transaction, commit.layer)?;
            clean(&transaction, commit, &mut summary)?;
            if let Some(change) = &commit.change {
                let mut changes = transaction.open_table(CHANGES)?;
                let sealed = sealed(&sequence.to_le_bytes(), change);
                changes.insert(sequence, sealed.as_slice())?;
                summary.last_change = sequence;
                changes.retain_in(..=sequence.saturating_sub(MAX_CHANGES), |_, _| false)?;
            }
            let name = commit.layer.name();
            let sealed = sealed(name.as_bytes(), &summary.to_bytes());
            transaction
                .open_table(LAYERS)?
                .insert(name, sealed.as_slice())?;
            transaction.commit()?;
            Ok((summary, next))
        };
        let (summary, next) = write().map_err(StoreError::write)?;
        for fresh in &commit.tiles {
            let stored = Arc::clone(&fresh.stored);
            self.map.decoded.insert(fresh.place, stored);
        }
        for &coord in &commit.removed {
            let layer = commit.layer;
            self.map.decoded.invalidate(&Place { layer, coord });
        }
        self.next_frame.store(next, Ordering::Relaxed);
        let written = sequence + u64::from(commit.change.is_some());
        self.next_sequence.store(written, Ordering::Relaxed);
        let mut summaries = self
            .map
            .summaries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        summaries.insert(commit.layer, summary);
        Ok(())
    }
}

struct Next {
    sequence: u64,
    frame: u64,
    reason: u64,
}

impl Next {
    fn read(database: &Database) -> Result<Self, redb::Error> {
        let read = database.begin_read()?;
        let changes = read.open_table(CHANGES)?;
        let order = read.open_table(ORDER)?;
        let sequence = changes.last()?.map(|(sequence, _)| sequence.value());
        let frame = order.last()?.map(|(number, _)| number.value());
        let mut reason = 0;
        for entry in read.open_table(DIRTY)?.iter()? {
            reason = reason.max(entry?.1.value());
        }
        Ok(Self {
            sequence: sequence.unwrap_or(0) + 1,
            frame: frame.unwrap_or(0) + 1,
            reason: reason + 1,
        })
    }
}

fn prepare(write: &WriteTransaction) -> Result<(), redb::Error> {
    write.open_table(TILES)?;
    write.open_table(DIGESTS)?;
    write.open_multimap_table(PLACES)?;
    write.open_table(FRAMES)?;
    write.open_table(GROUND)?;
    write.open_table(LAYERS)?;
    write.open_table(CHANGES)?;
    write.open_table(ORDER)?;
    write.open_table(DIRTY)?;
    Ok(())
}

fn record_from(frame_id: &str, sealed: &[u8]) -> Option<FrameRecord> {
    unsealed(frame_id.as_bytes(), sealed).and_then(FrameRecord::from_bytes)
}

fn union(a: Option<Bounds>, b: Option<Bounds>) -> Option<Bounds> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.union(&b)),
        (a, b) => a.or(b),
    }
}

fn write_tiles(
    transaction: &WriteTransaction,
    commit: &Commit,
    summary: &mut LayerSummary,
) -> Result<(), redb::Error> {
    let mut tiles = transaction.open_table(TILES)?;
    let mut digests = transaction.open_table(DIGESTS)?;
    let mut places = transaction.open_multimap_table(PLACES)?;
    for fresh in &commit.tiles {
        let (key, zoom) = (key_of(fresh.place), fresh.place.coord.z());
        tiles.insert(key, fresh.sealed.as_slice())?;
        let digest = fresh.stored.digest.as_bytes();
        let before = digests.insert(key, digest)?.map(|before| *before.value());
        if before.as_ref() != Some(digest) {
            if let Some(before) = &before {
                places.remove(before, key)?;
            }
            places.insert(digest, key)?;
        }
        summary.tiles += u64::from(before.is_none());
        summary.min_zoom = summary.min_zoom.min(zoom);
        summary.max_zoom = summary.max_zoom.max(zoom);
    }
    for &coord in &commit.removed {
        let key = key_of(Place {
            layer: commit.layer,
            coord,
        });
        tiles.remove(key)?;
        let before = digests.remove(key)?.map(|before| *before.value());
        if let Some(before) = &before {
            places.remove(before, key)?;
            summary.tiles -= 1;
        }
    }
    Ok(())
}

/// Puts a frame in the place of what was known of it; says whether nothing was. With a reason to `repaint`,
/// the tiles that it leaves or enters become dirty.
fn write_frame(
    transaction: &WriteTransaction,
    layer: Layer,
    number: u64,
    frame_id: &str,
    record: &FrameRecord,
    repaint: Option<u64>,
) -> Result<bool, redb::Error> {
    let mut frames = transaction.open_table(FRAMES)?;
    let mut ground = transaction.open_table(GROUND)?;
    let mut dirty = transaction.open_table(DIRTY)?;
    let sealed = sealed(frame_id.as_bytes(), &record.to_bytes());
    let before = frames.insert(frame_id, sealed.as_slice())?;
    let is_new = before.is_none();
    let before = before.and_then(|sealed| record_from(frame_id, sealed.value()));
    let left = before.map(|before| before.tiles).unwrap_or_default();
    for &coord in &left {
        let (layer, place) = key_of(Place { layer, coord });
        ground.remove((layer, place, frame_id))?;
        if let Some(reason) = repaint {
            dirty.insert((layer, place, frame_id), reason)?;
        }
    }
    for &coord in &record.tiles {
        let (layer, place) = key_of(Place { layer, coord });
        ground.insert((layer, place, frame_id), ())?;
        if let Some(reason) = repaint {
            dirty.insert((layer, place, frame_id), reason)?;
        }
    }
    if is_new {
        transaction.open_table(ORDER)?.insert(number, frame_id)?;
    }
    Ok(is_new)
}

fn forget_frames(transaction: &WriteTransaction, layer: Layer) -> Result<(), redb::Error> {
    let mut order = transaction.open_table(ORDER)?;
    while order.len()? > MAX_FRAMES {
        let Some((_, frame_id)) = order.pop_first()? else {
            return Ok(());
        };
        let frame_id = frame_id.value().to_owned();
        let mut ground = transaction.open_table(GROUND)?;
        let sealed = transaction
            .open_table(FRAMES)?
            .remove(frame_id.as_str())?
            .map(|sealed| sealed.value().to_vec());
        let record = sealed.and_then(|sealed| record_from(&frame_id, &sealed));
        for coord in record.map(|record| record.tiles).unwrap_or_default() {
            let (layer, place) = key_of(Place { layer, coord });
            ground.remove((layer, place, frame_id.as_str()))?;
        }
    }
    Ok(())
}

/// Notes what was painted again. When nothing waits any more, the summary is worked out anew: content may
/// have gone.
fn clean(
    transaction: &WriteTransaction,
    commit: &Commit,
    summary: &mut LayerSummary,
) -> Result<(), redb::Error> {
    if commit.clean.is_empty() {
        return Ok(());
    }
    let layer = commit.layer;
    let mut ground = transaction.open_table(GROUND)?;
    for (frame_id, tiles) in &commit.left {
        for &coord in tiles {
            let (layer, place) = key_of(Place { layer, coord });
            ground.remove((layer, place, frame_id.as_str()))?;
        }
    }
    let mut dirty = transaction.open_table(DIRTY)?;
    for &(coord, newest) in &commit.clean {
        let (layer, place) = key_of(Place { layer, coord });
        let reasons = (layer, place, "")..(layer, place + 1, "");
        dirty.retain_in(reasons, |_, reason| reason > newest)?;
    }
    if !dirty.is_empty()? {
        return Ok(());
    }
    let order = transaction.open_table(ORDER)?;
    let forgotten = match order.first()? {
        Some((number, _)) => number.value() > 1,
        None => false,
    };
    // Frames that were forgotten may have painted anywhere.
    if !forgotten {
        (summary.bounds, summary.simulated) = (None, false);
        for entry in transaction.open_table(FRAMES)?.iter()? {
            let (frame_id, sealed) = entry?;
            if let Some(record) = record_from(frame_id.value(), sealed.value())
                && record.bounds.is_some()
            {
                summary.bounds = union(summary.bounds, record.bounds);
                summary.simulated |= record.simulated;
            }
        }
    }
    let tiles = transaction.open_table(DIGESTS)?;
    let number = layer.number();
    (summary.min_zoom, summary.max_zoom) = (u8::MAX, 0);
    for zoom in 0..=TileCoord::MAX_ZOOM {
        let first = u64::from(zoom) << 48;
        let zooms: std::ops::Range<Key> = (number, first)..(number, first + (1 << 48));
        if tiles.range(zooms)?.next().is_some() {
            summary.min_zoom = summary.min_zoom.min(zoom);
            summary.max_zoom = zoom;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
