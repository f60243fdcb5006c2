//! Values as bytes: tiles, frames and summaries, each to be sealed under its key.

use std::sync::Arc;

use sovereign_model::geo::{Bounds, TileCoord};
use sovereign_model::{Digest, SEAL_BYTES, seal, unsealed};

use crate::domain::layer::{Layer, Place};
use crate::domain::planes::{Own, Planes};
use crate::domain::raster::{Raster, TILE_BYTES, digest_of_rgbw};
use crate::picture::{rgbw_from_png, write_png};

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) planes: Planes,
    pub(crate) digest: Digest,
}

#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) place: Place,
    pub(crate) stored: Arc<Stored>,
    pub(super) sealed: Vec<u8>,
}

impl Fresh {
    /// Seal over place, kind, digest and what lies beneath; then the picture, which the digest is of: so
    /// nothing is hashed twice. `rgbw` is room for the pixels of one tile.
    pub(crate) fn encode(place: Place, planes: Planes, rgbw: &mut [u8; TILE_BYTES]) -> Self {
        // About what an aerial tile compresses to.
        let mut sealed = Vec::with_capacity(TILE_BYTES / 2);
        sealed.resize(HEADER_BYTES, 0);
        if let Own::Beneath(own) = planes.own() {
            own.write_rgbw(rgbw);
            write_png(rgbw, &mut sealed);
        }
        planes.shown().write_rgbw(rgbw);
        let digest = digest_of_rgbw(rgbw);
        let header = Header {
            kind: match planes.own() {
                Own::Nothing => KIND_DERIVED,
                Own::Shown => KIND_PAINTED,
                Own::Beneath(_) => KIND_BOTH,
            },
            digest,
            // A tile is at most a few hundred kibibytes.
            beneath: (sealed.len() - HEADER_BYTES) as u32,
        };
        header.write(&mut sealed[SEAL_BYTES..HEADER_BYTES]);
        seal(&seal_of(place), &mut sealed);
        write_png(rgbw, &mut sealed);
        Self {
            place,
            stored: Arc::new(Stored { planes, digest }),
            sealed,
        }
    }
}

const KIND_DERIVED: u8 = 0;
const KIND_PAINTED: u8 = 1;
/// Own plane and children: a second picture follows.
const KIND_BOTH: u8 = 2;

const HEADER_BYTES: usize = SEAL_BYTES + 1 + 32 + 4;

struct Header {
    kind: u8,
    digest: Digest,
    /// Bytes of the second picture.
    beneath: u32,
}

impl Header {
    fn write(&self, bytes: &mut [u8]) {
        bytes[0] = self.kind;
        bytes[1..33].copy_from_slice(self.digest.as_bytes());
        bytes[33..].copy_from_slice(&self.beneath.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        let (digest, rest) = rest.split_first_chunk::<32>()?;
        Some(Self {
            kind,
            digest: Digest::from_slice(digest).ok()?,
            beneath: u32::from_le_bytes(*rest.first_chunk()?),
        })
    }
}

/// A tile as it was written; `None` when the bytes are not what was written there.
pub(super) fn stored_from_bytes(place: Place, bytes: &[u8]) -> Option<Stored> {
    let header = Header::read(bytes.get(SEAL_BYTES..HEADER_BYTES)?)?;
    let sealed = HEADER_BYTES.checked_add(header.beneath as usize)?;
    let (sealed, picture) = bytes.split_at_checked(sealed)?;
    unsealed(&seal_of(place), sealed)?;
    let own = match header.kind {
        KIND_DERIVED => Own::Nothing,
        KIND_PAINTED => Own::Shown,
        KIND_BOTH => Own::Beneath(Raster::from_rgbw(&rgbw_from_png(&sealed[HEADER_BYTES..])?)?),
        _ => return None,
    };
    let rgbw = rgbw_from_png(picture)?;
    if digest_of_rgbw(&rgbw) != header.digest {
        return None;
    }
    Some(Stored {
        planes: Planes::from_parts(Raster::from_rgbw(&rgbw)?, own),
        digest: header.digest,
    })
}

/// A key of the tables: the layer, then places in the order of zoom, column, row.
pub(super) fn key_of(place: Place) -> (u8, u64) {
    (place.layer.number(), number_of(place.coord))
}

pub(super) fn place_of((layer, coord): (u8, u64)) -> Option<Place> {
    Some(Place {
        layer: Layer::from_number(layer)?,
        coord: coord_of(coord)?,
    })
}

pub(super) fn number_of(coord: TileCoord) -> u64 {
    u64::from(coord.z()) << 48 | u64::from(coord.x()) << 24 | u64::from(coord.y())
}

fn coord_of(number: u64) -> Option<TileCoord> {
    const LOW: u64 = (1 << 24) - 1;
    let zoom = u8::try_from(number >> 48).ok()?;
    // Both have 24 bits.
    TileCoord::new(zoom, (number >> 24 & LOW) as u32, (number & LOW) as u32)
}

fn seal_of(place: Place) -> [u8; 9] {
    let (layer, number) = key_of(place);
    let mut key = [layer; 9];
    key[1..].copy_from_slice(&number.to_le_bytes());
    key
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FrameRecord {
    pub(crate) revision: u32,
    pub(crate) simulated: bool,
    /// Ground that it shows; nothing when it is not on the map.
    pub(crate) bounds: Option<Bounds>,
    /// Tiles of its own zoom that it may have pixels in.
    pub(crate) tiles: Vec<TileCoord>,
    pub(crate) keyframe: Vec<u8>,
}

impl FrameRecord {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.revision.to_le_bytes().to_vec();
        bytes.push(u8::from(self.simulated));
        bytes.push(u8::from(self.bounds.is_some()));
        if let Some(bounds) = &self.bounds {
            write_bounds(bounds, &mut bytes);
        }
        // A frame is at most on some thousand tiles.
        bytes.extend((self.tiles.len() as u32).to_le_bytes());
        for &coord in &self.tiles {
            bytes.extend(number_of(coord).to_le_bytes());
        }
        bytes.extend(&self.keyframe);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (revision, bytes) = bytes.split_first_chunk()?;
        let (&[simulated, has_bounds], mut bytes) = bytes.split_first_chunk()?;
        let mut bounds = None;
        if has_bounds != 0 {
            let (edges, rest) = bytes.split_first_chunk::<32>()?;
            (bounds, bytes) = (Some(bounds_from(edges)), rest);
        }
        let (count, bytes) = bytes.split_first_chunk()?;
        let length = (u32::from_le_bytes(*count) as usize).checked_mul(8)?;
        let (tiles, keyframe) = bytes.split_at_checked(length)?;
        let coord = |number: &[u8; 8]| coord_of(u64::from_le_bytes(*number));
        Some(Self {
            revision: u32::from_le_bytes(*revision),
            simulated: simulated != 0,
            bounds,
            tiles: tiles
                .as_chunks()
                .0
                .iter()
                .map(coord)
                .collect::<Option<_>>()?,
            keyframe: keyframe.to_vec(),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LayerSummary {
    pub(crate) tiles: u64,
    /// Coarsest zoom with content; [`u8::MAX`] for an empty layer.
    pub(crate) min_zoom: u8,
    /// Finest zoom with content; 0 for an empty layer.
    pub(crate) max_zoom: u8,
    pub(crate) bounds: Option<Bounds>,
    pub(crate) last_change: u64,
    pub(crate) simulated: bool,
}

impl LayerSummary {
    pub(crate) const EMPTY: Self = Self {
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
        if let Some(bounds) = &self.bounds {
            write_bounds(bounds, &mut bytes);
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tiles, bytes) = bytes.split_first_chunk()?;
        let (last_change, bytes) = bytes.split_first_chunk()?;
        let (&[min_zoom, max_zoom, simulated], edges) = bytes.split_first_chunk()?;
        let bounds = if edges.is_empty() {
            None
        } else {
            Some(bounds_from(edges.try_into().ok()?))
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

fn write_bounds(bounds: &Bounds, bytes: &mut Vec<u8>) {
    for edge in [
        bounds.west_deg,
        bounds.south_deg,
        bounds.east_deg,
        bounds.north_deg,
    ] {
        bytes.extend(edge.to_le_bytes());
    }
}

fn bounds_from(bytes: &[u8; 32]) -> Bounds {
    let edge = |index: usize| {
        let mut edge = [0; 8];
        edge.copy_from_slice(&bytes[index * 8..][..8]);
        f64::from_le_bytes(edge)
    };
    Bounds {
        west_deg: edge(0),
        south_deg: edge(1),
        east_deg: edge(2),
        north_deg: edge(3),
    }
}
