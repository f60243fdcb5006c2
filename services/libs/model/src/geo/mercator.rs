//! Web Mercator (EPSG:3857) scaled to the unit square.

use std::f64::consts::{PI, TAU};

use super::{Geodetic, WGS84_A_M};

/// Latitude where the square ends, degrees: 2 atan(e^pi) - pi / 2.
pub const MAX_LATITUDE_DEG: f64 = 85.051_128_779_806_59;

/// Pixels along one side of a tile.
pub const TILE_SIZE_PX: u32 = 256;

/// A place on the Web Mercator square: x 0 at 180 degrees west to 1 at 180 degrees east, y 0 at
/// [`MAX_LATITUDE_DEG`] north, growing southwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MercatorPoint {
    /// 0 to 1, eastwards.
    pub x: f64,
    /// 0 to 1, southwards.
    pub y: f64,
}

/// Map position of a place. Latitudes beyond [`MAX_LATITUDE_DEG`] land on the edge.
#[inline]
pub fn mercator_from_geodetic(point: &Geodetic) -> MercatorPoint {
    let latitude = point
        .latitude_deg
        .clamp(-MAX_LATITUDE_DEG, MAX_LATITUDE_DEG)
        .to_radians();
    MercatorPoint {
        x: (point.longitude_deg / 360.0 + 0.5).clamp(0.0, 1.0),
        // asinh(tan) is the inverse Gudermannian: no cancellation near the equator.
        y: (0.5 - latitude.tan().asinh() / TAU).clamp(0.0, 1.0),
    }
}

/// Place of a map position, at altitude 0.
#[inline]
pub fn geodetic_from_mercator(point: MercatorPoint) -> Geodetic {
    Geodetic {
        latitude_deg: (PI * (1.0 - 2.0 * point.y)).sinh().atan().to_degrees(),
        longitude_deg: (point.x - 0.5) * 360.0,
        altitude_m: 0.0,
    }
}

/// Metres on the ground that one pixel of a 256-pixel tile covers at a latitude.
pub fn meters_per_pixel(latitude_deg: f64, zoom: u8) -> f64 {
    let pixels_around = f64::from(TILE_SIZE_PX) * 2_f64.powi(i32::from(zoom));
    TAU * WGS84_A_M * latitude_deg.to_radians().cos() / pixels_around
}
