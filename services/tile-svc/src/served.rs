//! Encoded tiles kept in memory for readers.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use sovereign_model::Digest;
use sovereign_model::geo::TileCoord;

use crate::picture::Format;

/// Most tiles kept, whatever their size.
const MAX_TILES: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

/// A tile as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct ServedTile {
    pub(crate) data: Bytes,
    pub(crate) digest: Digest,
}

/// Encoded tiles, the longest unused going first beyond a number of bytes.
///
/// A reader works without a lock, so that what it has encoded may be older than what was committed
/// meanwhile; it says what [`Served::epoch`] was before it read, and such a tile is not kept.
pub(crate) struct Served {
    inner: Mutex<Inner>,
    limit: usize,
}

struct Inner {
    tiles: LruCache<(TileCoord, Format), ServedTile>,
    bytes: usize,
    epoch: u64,
}

impl Served {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                tiles: LruCache::new(MAX_TILES),
                bytes: 0,
                epoch: 0,
            }),
            limit,
        }
    }

    /// Grows with every commit.
    pub(crate) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    pub(crate) fn find(&self, coord: TileCoord, format: Format) -> Option<ServedTile> {
        self.lock().tiles.get(&(coord, format)).cloned()
    }

    /// Keeps a tile that was read when the epoch was `epoch`.
    pub(crate) fn keep(&self, epoch: u64, coord: TileCoord, format: Format, tile: &ServedTile) {
        let mut inner = self.lock();
        if inner.epoch != epoch {
            return;
        }
        inner.bytes += tile.data.len();
        if let Some((_, before)) = inner.tiles.push((coord, format), tile.clone()) {
            inner.bytes -= before.data.len();
        }
        while inner.bytes > self.limit {
            let Some((_, oldest)) = inner.tiles.pop_lru() else {
                break;
            };
            inner.bytes -= oldest.data.len();
        }
    }

    /// Forgets tiles that a commit has changed.
    pub(crate) fn forget(&self, changed: &[TileCoord]) {
        let mut inner = self.lock();
        inner.epoch += 1;
        for &coord in changed {
            for format in [Format::Png, Format::Jpeg, Format::Webp] {
                if let Some(before) = inner.tiles.pop(&(coord, format)) {
                    inner.bytes -= before.data.len();
                }
            }
        }
    }

    /// A panic while it was locked leaves it usable: each step keeps it whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(bytes: usize) -> ServedTile {
        ServedTile {
            data: vec![0; bytes].into(),
            digest: Digest::of(b""),
        }
    }

    fn coord(x: u32) -> TileCoord {
        TileCoord::new(5, x, 0).unwrap()
    }

    #[test]
    fn the_longest_unused_goes_first_and_bytes_are_bounded() {
        let served = Served::new(250);
        served.keep(0, coord(1), Format::Png, &tile(100));
        served.keep(0, coord(2), Format::Png, &tile(100));
        served.keep(0, coord(2), Format::Png, &tile(120));
        assert!(served.find(coord(1), Format::Png).is_some());
        served.keep(0, coord(3), Format::Png, &tile(100));
        assert!(served.find(coord(2), Format::Png).is_none());
        assert!(served.find(coord(1), Format::Png).is_some());
        assert_eq!(served.lock().bytes, 200);
    }

    #[test]
    fn what_was_read_before_a_commit_is_not_kept_after_it() {
        let served = Served::new(250);
        let before = served.epoch();
        served.keep(before, coord(1), Format::Png, &tile(10));
        served.forget(&[coord(1)]);
        assert!(served.find(coord(1), Format::Png).is_none());
        served.keep(before, coord(1), Format::Png, &tile(10));
        assert!(served.find(coord(1), Format::Png).is_none());
        assert_eq!(served.lock().bytes, 0);
    }
}
