//! Tiles of the Web Mercator square, XYZ scheme.

use std::fmt;

use super::mercator::{MercatorPoint, geodetic_from_mercator, mercator_from_geodetic};
use super::{Bounds, Geodetic};

/// One tile: column `x` from the west and row `y` from the north of the `2^z` by `2^z` tiles of a zoom.
///
/// Ordered by zoom, then column, then row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileCoord {
    z: u8,
    x: u32,
    y: u32,
}

impl TileCoord {
    /// Deepest zoom: about 6 mm a pixel at the equator, finer than any picture from the air.
    pub const MAX_ZOOM: u8 = 24;

    /// The tile, if there is one: zoom at most [`TileCoord::MAX_ZOOM`], column and row below `2^z`.
    pub fn new(z: u8, x: u32, y: u32) -> Option<TileCoord> {
        let exists = z <= TileCoord::MAX_ZOOM && x < 1 << z && y < 1 << z;
        exists.then_some(TileCoord { z, x, y })
    }

    /// The tile that a place falls into. Longitude 180 and latitudes beyond the square belong to the
    /// outermost tile, zooms beyond [`TileCoord::MAX_ZOOM`] to that zoom.
    pub fn containing(latitude_deg: f64, longitude_deg: f64, z: u8) -> TileCoord {
        let z = z.min(TileCoord::MAX_ZOOM);
        let point = mercator_from_geodetic(&Geodetic {
            latitude_deg,
            longitude_deg,
            altitude_m: 0.0,
        });
        let last = (1_u32 << z) - 1;
        // A float-to-int cast saturates, and takes NaN to 0.
        let index = |unit: f64| ((unit * f64::from(1_u32 << z)) as u32).min(last);
        TileCoord {
            z,
            x: index(point.x),
            y: index(point.y),
        }
    }

    /// Zoom.
    pub fn z(self) -> u8 {
        self.z
    }

    /// Column, from the west.
    pub fn x(self) -> u32 {
        self.x
    }

    /// Row, from the north.
    pub fn y(self) -> u32 {
        self.y
    }

    /// The tile one zoom up that contains this one; `None` for the root.
    pub fn parent(self) -> Option<TileCoord> {
        Some(TileCoord {
            z: self.z.checked_sub(1)?,
            x: self.x / 2,
            y: self.y / 2,
        })
    }

    /// The four tiles one zoom down: north-west, north-east, south-west, south-east; `None` at the deepest zoom.
    pub fn children(self) -> Option<[TileCoord; 4]> {
        let child = |dx: u32, dy: u32| TileCoord {
            z: self.z + 1,
            x: self.x * 2 + dx,
            y: self.y * 2 + dy,
        };
        (self.z < TileCoord::MAX_ZOOM).then(|| [child(0, 0), child(1, 0), child(0, 1), child(1, 1)])
    }

    /// Side of the tile on the Mercator square; exact, a power of two.
    #[inline]
    pub fn side(self) -> f64 {
        1.0 / f64::from(1_u32 << self.z)
    }

    /// North-west corner on the Mercator square; exact.
    #[inline]
    pub fn north_west(self) -> MercatorPoint {
        MercatorPoint {
            x: f64::from(self.x) * self.side(),
            y: f64::from(self.y) * self.side(),
        }
    }

    /// Edges in degrees.
    pub fn bounds(self) -> Bounds {
        let corner = self.north_west();
        let north_west = geodetic_from_mercator(corner);
        let south_east = geodetic_from_mercator(MercatorPoint {
            x: corner.x + self.side(),
            y: corner.y + self.side(),
        });
        Bounds {
            west_deg: north_west.longitude_deg,
            south_deg: south_east.latitude_deg,
            east_deg: south_east.longitude_deg,
            north_deg: north_west.latitude_deg,
        }
    }
}

impl fmt::Display for TileCoord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.z, self.x, self.y)
    }
}
