//! Encoded tiles kept in memory for readers.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sovereign_model::Digest;
use sovereign_model::geo::TileCoord;

use crate::domain::layer::{Layer, Place};
use crate::picture::Format;

/// How a reader wants a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Look {
    pub(crate) format: Format,
    /// Twice as many pixels along each side.
    pub(crate) double: bool,
}

impl Look {
    const ALL: [Self; 8] = {
        const fn look(format: Format, double: bool) -> Look {
            Look { format, double }
        }
        [
            look(Format::Png, false),
            look(Format::Jpeg, false),
            look(Format::Webp, false),
            look(Format::Png, true),
            look(Format::Jpeg, true),
            look(Format::Webp, true),
            look(Format::WebpLossy, false),
            look(Format::WebpLossy, true),
        ]
    };
}

#[derive(Clone, Debug)]
pub(crate) struct ServedTile {
    pub(crate) data: Bytes,
    pub(crate) digest: Digest,
}

/// Encoded tiles, the longest unused going first beyond a number of bytes.
///
/// A reader works without a lock, so that what it has encoded may be older than what was committed
/// meanwhile; it says what [`Served::epoch`] was before it read, and such a tile is not kept.
#[derive(Debug)]
pub(crate) struct Served {
    tiles: Cache<(Place, Look), ServedTile>,
    epoch: Mutex<u64>,
}

impl Served {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let weight = |tile: &ServedTile| u32::try_from(tile.data.len()).unwrap_or(u32::MAX);
        Self {
            tiles: Cache::builder()
                .max_capacity(limit_bytes as u64)
                .weigher(move |_, tile| weight(tile))
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            epoch: Mutex::default(),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, place: Place, look: Look) -> Option<ServedTile> {
        self.tiles.get(&(place, look))
    }

    pub(crate) fn keep(&self, epoch: u64, place: Place, look: Look, tile: &ServedTile) {
        let now = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == epoch {
            self.tiles.insert((place, look), tile.clone());
        }
    }

    pub(crate) fn forget(&self, layer: Layer, changed: &[TileCoord]) {
        let mut now = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        *now += 1;
        for &coord in changed {
            // A change reaches the tile above it too, which is among those that changed.
            for look in Look::ALL {
                self.tiles.invalidate(&(Place { layer, coord }, look));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: Look = Look {
        format: Format::Png,
        double: false,
    };

    fn tile(bytes: usize) -> ServedTile {
        ServedTile {
            data: vec![0; bytes].into(),
            digest: Digest::of(b""),
        }
    }

    fn place(x: u32) -> Place {
        Place {
            layer: Layer::Imagery,
            coord: TileCoord::new(5, x, 0).unwrap(),
        }
    }

    #[test]
    fn bytes_are_bounded() {
        let served = Served::new(250);
        for x in 0..20 {
            served.keep(0, place(x), PNG, &tile(100));
        }
        served.tiles.run_pending_tasks();
        assert!(served.tiles.weighted_size() <= 250);
        assert!(served.tiles.entry_count() > 0);
    }

    #[test]
    fn what_was_read_before_a_commit_is_not_kept_after_it() {
        let served = Served::new(250);
        let before = served.epoch();
        served.keep(before, place(1), PNG, &tile(10));
        assert!(served.find(place(1), PNG).is_some());
        served.forget(Layer::Imagery, &[place(1).coord]);
        assert!(served.find(place(1), PNG).is_none());
        served.keep(before, place(1), PNG, &tile(10));
        assert!(served.find(place(1), PNG).is_none());
    }
}
