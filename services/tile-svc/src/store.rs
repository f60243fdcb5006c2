//! Where tiles are kept: one file, one transaction a commit.
//!
//! What is read was verified: each value starts with the SHA-256 of its key and itself, and a value
//! that does not match is reported as damaged and never handed out.
//!
//! There is one writer. It keeps tiles decoded in a cache, so that consecutive frames over the same
//! ground decode nothing; readers look into that cache but do not fill it, since what they read may be
//! older than what the writer has just committed.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use sovereign_model::geo::{Bounds, TileCoord};
use sovereign_model::{Digest, sealed, unsealed};

use crate::domain::planes::Planes;
use crate::domain::raster::TILE_BYTES;

mod format;

pub(crate) use format::Fresh;
use format::{frame_id_of, key_of, message_of, stored_from_bytes};

/// Sealed tile by place.
const TILES: TableDefinition<u64, &[u8]> = TableDefinition::new("tiles");
/// Sealed change by sequence.
const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("changes");
/// Sequence by frame id: what was painted.
const FRAMES: TableDefinition<&str, u64> = TableDefinition::new("frames");
/// Sealed summary by layer.
const LAYERS: TableDefinition<&str, &[u8]> = TableDefinition::new("layers");

/// Name of the one layer.
pub(crate) const LAYER: &str = "imagery";

/// Changes that are kept, and frames remembered as painted; the oldest go first. A reader that is
/// further behind is told so; a frame older than this many that comes again is painted again, which
/// changes nothing but the log.
pub(crate) const MAX_CHANGES: u64 = 100_000;

/// Memory for the file's own pages.
const PAGE_CACHE_BYTES: usize = 64 << 20;

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The file cannot be opened.
    #[error("open the tile store")]
    Open(#[source] redb::Error),
    /// A read failed.
    #[error("read the tile store")]
    Read(#[source] redb::Error),
    /// A write failed; nothing of it was kept.
    #[error("write the tile store")]
    Write(#[source] redb::Error),
    /// What was read is not what was written.
    #[error("{what} is damaged in the tile store")]
    Damaged {
        /// Which value.
        what: String,
    },
}

/// A tile as the store has it.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its pixels.
    pub(crate) planes: Planes,
    /// Digest of what it shows.
    pub(crate) digest: Digest,
}

/// What a tile's place in the store holds.
#[derive(Debug)]
pub(crate) enum Found {
    /// A tile.
    Tile(Arc<Stored>),
    /// Nothing.
    Nothing,
    /// Something that is not what was written.
    Damaged,
}

/// What a commit writes.
#[derive(Debug)]
pub(crate) struct Commit {
    /// Tiles, each place once.
    pub(crate) tiles: Vec<Fresh>,
    /// Painted frames, the first with [`Store::next_sequence`], each with the next.
    pub(crate) frames: Vec<Entry>,
    /// Ground that the frames cover; `None` when none of it is new.
    pub(crate) bounds: Option<Bounds>,
    /// Whether any of the frames is simulated.
    pub(crate) simulated: bool,
}

/// A frame in the log of changes.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The frame.
    pub(crate) frame_id: String,
    /// Its change, encoded.
    pub(crate) message: Vec<u8>,
}

/// A part of the log of changes.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Page {
    /// Changes, encoded.
    pub(crate) messages: Vec<Vec<u8>>,
    /// The smallest sequence still kept, 0 when there is none.
    pub(crate) oldest_kept: u64,
    /// Damaged changes that were passed over.
    pub(crate) damaged: u64,
}

/// What a layer holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LayerSummary {
    /// Tiles with content, all zooms.
    pub(crate) tiles: u64,
    /// Coarsest zoom with content; [`u8::MAX`] for an empty layer.
    pub(crate) min_zoom: u8,
    /// Finest zoom with content; 0 for an empty layer.
    pub(crate) max_zoom: u8,
    /// Where there is content.
    pub(crate) bounds: Option<Bounds>,
    /// Sequence of the newest change, 0 for an empty layer.
    pub(crate) last_change: u64,
    /// Whether any of it was painted from simulated frames.
    pub(crate) simulated: bool,
}

/// Tiles, painted frames, and the log of changes.
pub(crate) struct Store {
    database: Database,
    decoded: Mutex<Decoded>,
    summary: Mutex<LayerSummary>,
}

impl Store {
    /// Opens the file, or makes it. `cache_bytes` bounds the decoded tiles in memory.
    ///
    /// # Errors
    /// Another process has it, or it is damaged.
    pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(PAGE_CACHE_BYTES)
            .create(path)
            .map_err(|e| StoreError::Open(e.into()))?;
        let summary = prepare(&database).map_err(StoreError::Open)?;
        let summary = match summary {
            None => LayerSummary::EMPTY,
            Some(sealed) => unsealed(LAYER.as_bytes(), &sealed)
                .and_then(LayerSummary::from_bytes)
                .ok_or_else(|| StoreError::Damaged {
                    what: format!("the summary of layer {LAYER}"),
                })?,
        };
        Ok(Self {
            database,
            decoded: Mutex::new(Decoded::new(cache_bytes)),
            summary: Mutex::new(summary),
        })
    }

    /// What the layer holds.
    #[must_use]
    pub(crate) fn summary(&self) -> LayerSummary {
        *lock(&self.summary)
    }

    /// Sequence that the next commit starts with.
    #[must_use]
    pub(crate) fn next_sequence(&self) -> u64 {
        self.summary().last_change + 1
    }

    /// A tile, for the writer: what is read is kept in memory.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn load(&self, coord: TileCoord) -> Result<Found, StoreError> {
        if let Some(stored) = lock(&self.decoded).find(coord) {
            return Ok(Found::Tile(stored));
        }
        let found = self.fetch(coord)?;
        if let Found::Tile(stored) = &found {
            lock(&self.decoded).keep(coord, stored);
        }
        Ok(found)
    }

    /// A tile, for a reader; `None` when there is nothing.
    ///
    /// # Errors
    /// The file cannot be read, or the tile is damaged.
    pub(crate) fn read(&self, coord: TileCoord) -> Result<Option<Arc<Stored>>, StoreError> {
        if let Some(stored) = lock(&self.decoded).find(coord) {
            return Ok(Some(stored));
        }
        match self.fetch(coord)? {
            Found::Tile(stored) => Ok(Some(stored)),
            Found::Nothing => Ok(None),
            Found::Damaged => Err(StoreError::Damaged {
                what: format!("tile {coord}"),
            }),
        }
    }

    /// Whether a frame was painted.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn is_painted(&self, frame_id: &str) -> Result<bool, StoreError> {
        let read = || -> Result<bool, redb::Error> {
            let frames = self.database.begin_read()?.open_table(FRAMES)?;
            Ok(frames.get(frame_id)?.is_some())
        };
        read().map_err(StoreError::Read)
    }

    /// Writes a commit; it is on disk when this returns, and if it fails nothing of it is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        let mut summary = self.summary();
        let first = summary.last_change + 1;
        summary.simulated |= commit.simulated;
        summary.bounds = match (summary.bounds, commit.bounds) {
            (Some(a), Some(b)) => Some(a.union(&b)),
            (a, b) => a.or(b),
        };
        let mut write = || -> Result<(), redb::Error> {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut tiles = transaction.open_table(TILES)?;
                for fresh in &commit.tiles {
                    let before = tiles.insert(key_of(fresh.coord), fresh.sealed.as_slice())?;
                    summary.tiles += u64::from(before.is_none());
                    summary.min_zoom = summary.min_zoom.min(fresh.coord.z());
                    summary.max_zoom = summary.max_zoom.max(fresh.coord.z());
                }
            }
            write_entries(&transaction, first, &commit.frames)?;
            {
                let mut frames = transaction.open_table(FRAMES)?;
                for (sequence, entry) in (first..).zip(&commit.frames) {
                    frames.insert(entry.frame_id.as_str(), sequence)?;
                    summary.last_change = sequence;
                }
            }
            forget_old(&transaction, summary.last_change)?;
            {
                let sealed = sealed(LAYER.as_bytes(), &summary.to_bytes());
                transaction
                    .open_table(LAYERS)?
                    .insert(LAYER, sealed.as_slice())?;
            }
            transaction.commit()?;
            Ok(())
        };
        write().map_err(StoreError::Write)?;
        let mut decoded = lock(&self.decoded);
        for fresh in &commit.tiles {
            decoded.keep(fresh.coord, &fresh.stored);
        }
        drop(decoded);
        *lock(&self.summary) = summary;
        Ok(())
    }

    /// Changes with a larger sequence than `after`, oldest first: at most `limit` of them, and, but for the
    /// first, no more than `max_bytes`. Damaged ones are passed over, so that they end no page.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn changes(
        &self,
        after: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        let read = || -> Result<Page, redb::Error> {
            let changes = self.database.begin_read()?.open_table(CHANGES)?;
            let mut page = Page {
                oldest_kept: changes.first()?.map_or(0, |(sequence, _)| sequence.value()),
                ..Page::default()
            };
            let mut bytes = 0;
            for entry in changes.range(after.saturating_add(1)..)? {
                if page.messages.len() == limit {
                    break;
                }
                let (sequence, sealed) = entry?;
                let sequence = sequence.value();
                let opened = unsealed(&sequence.to_le_bytes(), sealed.value());
                let Some(message) = opened.and_then(message_of) else {
                    page.damaged += 1;
                    continue;
                };
                // A change is sealed with some hundred bytes, so this is no more than is sent.
                bytes += sealed.value().len();
                if bytes > max_bytes && !page.messages.is_empty() {
                    break;
                }
                page.messages.push(message.to_vec());
            }
            Ok(page)
        };
        read().map_err(StoreError::Read)
    }

    fn fetch(&self, coord: TileCoord) -> Result<Found, StoreError> {
        let read = || -> Result<Option<redb::AccessGuard<'static, &'static [u8]>>, redb::Error> {
            let tiles = self.database.begin_read()?.open_table(TILES)?;
            Ok(tiles.get(key_of(coord))?)
        };
        let Some(sealed) = read().map_err(StoreError::Read)? else {
            return Ok(Found::Nothing);
        };
        let stored =
            unsealed(&key_of(coord).to_le_bytes(), sealed.value()).and_then(stored_from_bytes);
        Ok(stored.map_or(Found::Damaged, |stored| Found::Tile(Arc::new(stored))))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("summary", &self.summary())
            .finish_non_exhaustive()
    }
}

/// Makes the tables, so that readers find them, and gives the summary of the layer.
fn prepare(database: &Database) -> Result<Option<Vec<u8>>, redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(TILES)?;
    transaction.open_table(CHANGES)?;
    transaction.open_table(FRAMES)?;
    let summary = transaction
        .open_table(LAYERS)?
        .get(LAYER)?
        .map(|sealed| sealed.value().to_vec());
    transaction.commit()?;
    Ok(summary)
}

fn write_entries(
    transaction: &WriteTransaction,
    first: u64,
    entries: &[Entry],
) -> Result<(), redb::Error> {
    let mut changes = transaction.open_table(CHANGES)?;
    for (sequence, entry) in (first..).zip(entries) {
        // Frame ids are a few dozen bytes.
        let mut bytes = (entry.frame_id.len() as u16).to_le_bytes().to_vec();
        bytes.extend(entry.frame_id.as_bytes());
        bytes.extend(&entry.message);
        changes.insert(sequence, sealed(&sequence.to_le_bytes(), &bytes).as_slice())?;
    }
    Ok(())
}

/// Removes changes beyond [`MAX_CHANGES`], and forgets their frames.
fn forget_old(transaction: &WriteTransaction, newest: u64) -> Result<(), redb::Error> {
    let Some(last_forgotten) = newest.checked_sub(MAX_CHANGES) else {
        return Ok(());
    };
    let mut changes = transaction.open_table(CHANGES)?;
    let mut frames = transaction.open_table(FRAMES)?;
    loop {
        let oldest = match changes.first()? {
            Some((sequence, sealed)) if sequence.value() <= last_forgotten => (
                sequence.value(),
                unsealed(&sequence.value().to_le_bytes(), sealed.value())
                    .and_then(frame_id_of)
                    .map(str::to_owned),
            ),
            Some(_) | None => return Ok(()),
        };
        changes.remove(oldest.0)?;
        if let Some(frame_id) = oldest.1 {
            frames.remove(frame_id.as_str())?;
        }
    }
}

/// Decoded tiles, the longest unused going first beyond a number of bytes.
struct Decoded {
    tiles: LruCache<TileCoord, Arc<Stored>>,
    bytes: usize,
    limit: usize,
}

impl Decoded {
    fn new(limit: usize) -> Self {
        Self {
            tiles: LruCache::unbounded(),
            bytes: 0,
            limit,
        }
    }

    fn find(&mut self, coord: TileCoord) -> Option<Arc<Stored>> {
        self.tiles.get(&coord).cloned()
    }

    fn keep(&mut self, coord: TileCoord, stored: &Arc<Stored>) {
        let size = |stored: &Stored| stored.planes.rasters() * TILE_BYTES;
        self.bytes += size(stored);
        if let Some((_, before)) = self.tiles.push(coord, Arc::clone(stored)) {
            self.bytes -= size(&before);
        }
        while self.bytes > self.limit {
            let Some((_, oldest)) = self.tiles.pop_lru() else {
                break;
            };
            self.bytes -= size(&oldest);
        }
    }
}

/// A panic while a cache was locked leaves it usable: each step keeps it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
