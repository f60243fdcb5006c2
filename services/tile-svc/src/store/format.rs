//! Values as bytes: tiles, changes and the summary, each to be sealed under its key.

use std::sync::Arc;

use sovereign_model::geo::{Bounds, TileCoord};
use sovereign_model::{Digest, sealed};

use super::{LayerSummary, Stored};
use crate::domain::planes::{Own, Planes};
use crate::domain::raster::digest_of_rgbw;
use crate::picture::{png_from_rgbw, raster_from_png};

/// A tile ready to be committed.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// Its place.
    pub(crate) coord: TileCoord,
    /// Its pixels and digest.
    pub(crate) stored: Arc<Stored>,
    /// What is written.
    pub(super) sealed: Vec<u8>,
}

impl Fresh {
    /// Encodes a tile.
    #[must_use]
    pub(crate) fn encode(coord: TileCoord, planes: Planes) -> Self {
        let rgbw = planes.shown().to_rgbw();
        let digest = digest_of_rgbw(&rgbw);
        let shown = png_from_rgbw(&rgbw);
        let (kind, beneath) = match planes.own() {
            Own::Nothing => (KIND_DERIVED, Vec::new()),
            Own::Shown => (KIND_PAINTED, Vec::new()),
            Own::Beneath(own) => (KIND_BOTH, png_from_rgbw(&own.to_rgbw())),
        };
        let mut bytes = vec![kind];
        bytes.extend(digest.as_bytes());
        // A tile is at most a few hundred kibibytes.
        bytes.extend((shown.len() as u32).to_le_bytes());
        bytes.extend(shown);
        bytes.extend(beneath);
        Self {
            coord,
            stored: Arc::new(Stored { planes, digest }),
            sealed: sealed(&key_of(coord).to_le_bytes(), &bytes),
        }
    }
}

/// Children only.
const KIND_DERIVED: u8 = 0;
/// Own plane only.
const KIND_PAINTED: u8 = 1;
/// Own plane and children: a second picture follows.
const KIND_BOTH: u8 = 2;

pub(super) fn frame_id_of(entry: &[u8]) -> Option<&str> {
    let (length, rest) = entry.split_first_chunk()?;
    std::str::from_utf8(rest.get(..usize::from(u16::from_le_bytes(*length)))?).ok()
}

pub(super) fn message_of(entry: &[u8]) -> Option<&[u8]> {
    let (length, rest) = entry.split_first_chunk()?;
    rest.get(usize::from(u16::from_le_bytes(*length))..)
}

pub(super) fn stored_from_bytes(body: &[u8]) -> Option<Stored> {
    let (&kind, rest) = body.split_first()?;
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (shown, beneath) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let own = match kind {
        KIND_DERIVED => Own::Nothing,
        KIND_PAINTED => Own::Shown,
        KIND_BOTH => Own::Beneath(raster_from_png(beneath)?),
        _ => return None,
    };
    Some(Stored {
        planes: Planes::from_parts(raster_from_png(shown)?, own),
        digest: Digest::from_slice(digest).ok()?,
    })
}

/// Places in the order of zoom, column, row.
pub(super) fn key_of(coord: TileCoord) -> u64 {
    u64::from(coord.z()) << 48 | u64::from(coord.x()) << 24 | u64::from(coord.y())
}

impl LayerSummary {
    pub(super) const EMPTY: Self = Self {
        tiles: 0,
        min_zoom: u8::MAX,
        max_zoom: 0,
        bounds: None,
        last_change: 0,
        simulated: false,
    };

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.tiles.to_le_bytes());
        bytes.extend(self.last_change.to_le_bytes());
        bytes.extend([self.min_zoom, self.max_zoom, u8::from(self.simulated)]);
        if let Some(bounds) = self.bounds {
            for edge in [
                bounds.west_deg,
                bounds.south_deg,
                bounds.east_deg,
                bounds.north_deg,
            ] {
                bytes.extend(edge.to_le_bytes());
            }
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tiles, bytes) = bytes.split_first_chunk()?;
        let (last_change, bytes) = bytes.split_first_chunk()?;
        let (&[min_zoom, max_zoom, simulated], edges) = bytes.split_first_chunk()?;
        let edges: Vec<f64> = edges
            .as_chunks()
            .0
            .iter()
            .map(|edge| f64::from_le_bytes(*edge))
            .collect();
        let bounds = match edges.as_slice() {
            [] => None,
            &[west_deg, south_deg, east_deg, north_deg] => Some(Bounds {
                west_deg,
                south_deg,
                east_deg,
                north_deg,
            }),
            _ => return None,
        };
        Some(Self {
            tiles: u64::from_le_bytes(*tiles),
            last_change: u64::from_le_bytes(*last_change),
            min_zoom,
            max_zoom,
            simulated: simulated != 0,
            bounds,
        })
    }
}
