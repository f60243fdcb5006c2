//! The map as readers and exporters see it: tiles by place or digest, layers, the log of changes. Needs no
//! painter.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use redb::ReadableTable;
use sovereign_disk::Database;
use sovereign_model::geo::TileCoord;
use sovereign_model::{Digest, unsealed};

use super::error::StoreError;
use super::format::{LayerSummary, Stored, key_of, place_of, stored_from_bytes};
use super::tables::{CHANGES, DIGESTS, LAYERS, PLACES, TILES};
use crate::domain::layer::{Layer, Place};
use crate::domain::raster::TILE_BYTES;

#[derive(Debug)]
pub(crate) enum Found {
    Tile(Arc<Stored>),
    Nothing,
    Damaged,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Page {
    pub(crate) messages: Vec<Vec<u8>>,
    /// The smallest sequence still kept, 0 when there is none.
    pub(crate) oldest_kept: u64,
    pub(crate) damaged: u64,
}

#[derive(Clone)]
pub(crate) struct Map {
    pub(super) database: Database,
    /// Decoded tiles. Only the writer puts some in: what a reader has read may be older than what was
    /// committed meanwhile.
    pub(super) decoded: Cache<Place, Arc<Stored>>,
    pub(super) summaries: Arc<Mutex<BTreeMap<Layer, LayerSummary>>>,
}

impl Map {
    pub(super) fn new(database: Database, cache_bytes: usize) -> Result<Self, StoreError> {
        let mut summaries = BTreeMap::new();
        for layer in Layer::ALL {
            summaries.insert(layer, summary_in(&database, layer)?);
        }
        let weight = |stored: &Arc<Stored>| (stored.planes.rasters() * TILE_BYTES) as u32;
        Ok(Self {
            database,
            decoded: Cache::builder()
                .max_capacity(cache_bytes as u64)
                .weigher(move |_, stored| weight(stored))
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            summaries: Arc::new(Mutex::new(summaries)),
        })
    }

    pub(crate) fn summary(&self, layer: Layer) -> LayerSummary {
        let summaries = self
            .summaries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        summaries
            .get(&layer)
            .copied()
            .unwrap_or(LayerSummary::EMPTY)
    }

    pub(crate) fn read(&self, place: Place) -> Result<Option<Arc<Stored>>, StoreError> {
        if let Some(stored) = self.decoded.get(&place) {
            return Ok(Some(stored));
        }
        match self.fetch(place)? {
            Found::Tile(stored) => Ok(Some(stored)),
            Found::Nothing => Ok(None),
            Found::Damaged => Err(StoreError::Damaged {
                what: format!("tile {} of {}", place.coord, place.layer.name()),
            }),
        }
    }

    /// A tile of the largest zoom of a layer, near the middle of its bounds in the order of columns and rows.
    pub(crate) fn centre(&self, layer: Layer) -> Result<Option<TileCoord>, StoreError> {
        let summary = self.summary(layer);
        let Some(bounds) = summary.bounds else {
            return Ok(None);
        };
        let zoom = summary.max_zoom;
        let longitude = f64::midpoint(bounds.west_deg, bounds.east_deg);
        let latitude = f64::midpoint(bounds.south_deg, bounds.north_deg);
        let middle = TileCoord::containing(latitude, longitude, zoom);
        let (number, key) = key_of(Place {
            layer,
            coord: middle,
        });
        let read = || -> Result<Option<TileCoord>, redb::Error> {
            let digests = self.database.begin_read()?.open_table(DIGESTS)?;
            let of_zoom = |key| place_of(key).filter(|place| place.coord.z() == zoom);
            for entry in digests.range((number, key)..=(number, u64::MAX))?.take(1) {
                if let Some(place) = of_zoom(entry?.0.value()) {
                    return Ok(Some(place.coord));
                }
            }
            let before = digests.range((number, 0)..(number, key))?.next_back();
            let before = before.transpose()?;
            Ok(before
                .and_then(|(key, _)| of_zoom(key.value()))
                .map(|place| place.coord))
        };
        read().map_err(StoreError::read)
    }

    pub(crate) fn place_of(&self, digest: Digest) -> Result<Option<Place>, StoreError> {
        let read = || -> Result<Option<Place>, redb::Error> {
            let places = self.database.begin_read()?.open_multimap_table(PLACES)?;
            let mut found = places.get(digest.as_bytes())?;
            let first = found.next().transpose()?;
            Ok(first.and_then(|key| place_of(key.value())))
        };
        read().map_err(StoreError::read)
    }

    /// At most `limit` tiles of a layer after a place, in the order of zoom, column, row.
    pub(crate) fn list(
        &self,
        layer: Layer,
        after: Option<TileCoord>,
        limit: usize,
    ) -> Result<Vec<(TileCoord, Digest)>, StoreError> {
        let first = after.map_or(0, |coord| key_of(Place { layer, coord }).1 + 1);
        let read = || -> Result<Vec<(TileCoord, Digest)>, redb::Error> {
            let digests = self.database.begin_read()?.open_table(DIGESTS)?;
            let number = layer.number();
            let mut tiles = Vec::new();
            for entry in digests
                .range((number, first)..=(number, u64::MAX))?
                .take(limit)
            {
                let (key, digest) = entry?;
                let digest = Digest::from_slice(digest.value()).ok();
                tiles.extend(place_of(key.value()).map(|place| place.coord).zip(digest));
            }
            Ok(tiles)
        };
        read().map_err(StoreError::read)
    }

    /// Changes with a larger sequence than `after`, oldest first: at most `limit` of them, and, but for the
    /// first, no more than `max_bytes`. Damaged ones are passed over, so that they end no page.
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
                let Some(message) = unsealed(&sequence.value().to_le_bytes(), sealed.value())
                else {
                    page.damaged += 1;
                    continue;
                };
                bytes += message.len();
                if bytes > max_bytes && !page.messages.is_empty() {
                    break;
                }
                page.messages.push(message.to_vec());
            }
            Ok(page)
        };
        read().map_err(StoreError::read)
    }

    pub(super) fn fetch(&self, place: Place) -> Result<Found, StoreError> {
        let read = || -> Result<Option<redb::AccessGuard<'static, &'static [u8]>>, redb::Error> {
            let tiles = self.database.begin_read()?.open_table(TILES)?;
            Ok(tiles.get(key_of(place))?)
        };
        let Some(sealed) = read().map_err(StoreError::read)? else {
            return Ok(Found::Nothing);
        };
        let stored = stored_from_bytes(place, sealed.value());
        Ok(stored.map_or(Found::Damaged, |stored| Found::Tile(Arc::new(stored))))
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let summaries = self
            .summaries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        f.debug_tuple("Map").field(&*summaries).finish()
    }
}

fn summary_in(database: &Database, layer: Layer) -> Result<LayerSummary, StoreError> {
    let read = || -> Result<Option<Vec<u8>>, redb::Error> {
        let layers = database.begin_read()?.open_table(LAYERS)?;
        Ok(layers
            .get(layer.name())?
            .map(|sealed| sealed.value().to_vec()))
    };
    match read().map_err(StoreError::read)? {
        None => Ok(LayerSummary::EMPTY),
        Some(sealed) => unsealed(layer.name().as_bytes(), &sealed)
            .and_then(LayerSummary::from_bytes)
            .ok_or_else(|| StoreError::Damaged {
                what: format!("the summary of layer {}", layer.name()),
            }),
    }
}
