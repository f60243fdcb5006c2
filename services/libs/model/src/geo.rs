//! Places on Earth.
//!
//! Four frames, each a type: [`Geodetic`] (WGS84 latitude, longitude, altitude), [`Ecef`] (Earth-centred,
//! Earth-fixed metres), [`Enu`] (metres east, north, up of a [`LocalFrame`]) and
//! [`mercator::MercatorPoint`] (Web Mercator, 0 to 1). Geodetic and ENU meet through ECEF, exactly; no
//! flat-Earth shortcut is taken.
//!
//! Altitude is treated as height above the ellipsoid. Sensors report it above mean sea level; the offset
//! (the geoid, up to 110 m) is the same for everything that one map compares, and cancels.
//!
//! Degenerate cases: at a pole every longitude is the same place, and longitude comes back as 0; within
//! a few metres of the Earth's centre geodetic latitude has no meaning.

pub mod mercator;
mod tile;

use nalgebra::{Matrix3, UnitQuaternion, Vector3};

pub use tile::TileCoord;

/// Semi-major axis of WGS84, metres.
pub const WGS84_A_M: f64 = 6_378_137.0;
/// Flattening of WGS84.
pub const WGS84_F: f64 = 1.0 / 298.257_223_563;
/// Semi-minor axis, metres.
const B_M: f64 = WGS84_A_M * (1.0 - WGS84_F);
/// First eccentricity squared.
const E2: f64 = WGS84_F * (2.0 - WGS84_F);
/// Second eccentricity squared.
const EP2: f64 = E2 / (1.0 - E2);

/// A WGS84 position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geodetic {
    /// Degrees, -90 to 90, north positive.
    pub latitude_deg: f64,
    /// Degrees, -180 to 180, east positive.
    pub longitude_deg: f64,
    /// Metres.
    pub altitude_m: f64,
}

/// A number outside the range that its field allows, or not a number.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{field} is {value}, which is out of range")]
pub struct OutOfRange {
    /// Name of the field.
    pub field: &'static str,
    /// What it was.
    pub value: f64,
}

/// Altitudes beyond this are refused: no sensor of this system is in space, and none below the sea floor.
const ALTITUDE_LIMIT_M: f64 = 1.0e6;

impl Geodetic {
    /// A position whose fields have been checked.
    ///
    /// # Errors
    /// Names the field that is out of range or not finite.
    pub fn new(
        latitude_deg: f64,
        longitude_deg: f64,
        altitude_m: f64,
    ) -> Result<Geodetic, OutOfRange> {
        let check = |field, value: f64, limit: f64| {
            if value.abs() <= limit {
                Ok(value)
            } else {
                Err(OutOfRange { field, value })
            }
        };
        Ok(Geodetic {
            latitude_deg: check("latitude_deg", latitude_deg, 90.0)?,
            longitude_deg: check("longitude_deg", longitude_deg, 180.0)?,
            altitude_m: check("altitude_m", altitude_m, ALTITUDE_LIMIT_M)?,
        })
    }

    /// The same place at another altitude.
    #[must_use]
    pub fn at_altitude(self, altitude_m: f64) -> Geodetic {
        Geodetic { altitude_m, ..self }
    }
}

/// A WGS84 position whose altitude may be unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// Degrees, -90 to 90, north positive.
    pub latitude_deg: f64,
    /// Degrees, -180 to 180, east positive.
    pub longitude_deg: f64,
    /// Metres; absent when unknown, which is not 0.
    pub altitude_m: Option<f64>,
}

impl Position {
    /// A position whose fields have been checked.
    ///
    /// # Errors
    /// Names the field that is out of range or not finite.
    pub fn new(
        latitude_deg: f64,
        longitude_deg: f64,
        altitude_m: Option<f64>,
    ) -> Result<Position, OutOfRange> {
        Geodetic::new(latitude_deg, longitude_deg, altitude_m.unwrap_or(0.0))?;
        Ok(Position {
            latitude_deg,
            longitude_deg,
            altitude_m,
        })
    }

    /// The same place at a known altitude.
    ///
    /// # Errors
    /// Names the field that is out of range or not finite.
    pub fn at_altitude(self, altitude_m: f64) -> Result<Geodetic, OutOfRange> {
        Geodetic::new(self.latitude_deg, self.longitude_deg, altitude_m)
    }

    /// Zero on both axes is what senders without a fix write, and not an island.
    pub fn is_zero(&self) -> bool {
        self.latitude_deg == 0.0 && self.longitude_deg == 0.0
    }
}

/// Earth-centred, Earth-fixed: metres; x to latitude 0 longitude 0, z to the north pole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ecef(pub Vector3<f64>);

/// Metres east, north and up of the origin of a [`LocalFrame`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Enu {
    /// Metres.
    pub east: f64,
    /// Metres.
    pub north: f64,
    /// Metres.
    pub up: f64,
}

impl Enu {
    /// As a vector (east, north, up).
    pub fn to_vector(self) -> Vector3<f64> {
        Vector3::new(self.east, self.north, self.up)
    }

    /// From a vector (east, north, up).
    pub fn from_vector(vector: Vector3<f64>) -> Enu {
        Enu {
            east: vector.x,
            north: vector.y,
            up: vector.z,
        }
    }
}

/// ECEF position of a geodetic one.
pub fn ecef_from_geodetic(point: &Geodetic) -> Ecef {
    let (sin_lat, cos_lat) = point.latitude_deg.to_radians().sin_cos();
    let (sin_lon, cos_lon) = point.longitude_deg.to_radians().sin_cos();
    let prime_vertical = WGS84_A_M / (1.0 - E2 * sin_lat * sin_lat).sqrt();
    let ring = (prime_vertical + point.altitude_m) * cos_lat;
    Ecef(Vector3::new(
        ring * cos_lon,
        ring * sin_lon,
        (prime_vertical * (1.0 - E2) + point.altitude_m) * sin_lat,
    ))
}

/// Geodetic position of an ECEF one: Bowring's formula, iterated to the last bit of a double.
pub fn geodetic_from_ecef(point: &Ecef) -> Geodetic {
    /// One step is exact to micrometres near the surface; three reach rounding at any altitude allowed.
    const STEPS: usize = 3;
    let (x, y, z) = (point.0.x, point.0.y, point.0.z);
    let ring = x.hypot(y);
    // Parametric latitude as sine and cosine: no angle is needed until the end.
    let unit = |sin: f64, cos: f64| {
        let length = sin.hypot(cos);
        if length > 0.0 {
            (sin / length, cos / length)
        } else {
            (0.0, 1.0)
        }
    };
    let (mut sin_beta, mut cos_beta) = unit(z, ring * (1.0 - WGS84_F));
    let (mut sin_lat, mut cos_lat) = (sin_beta, cos_beta);
    for _ in 0..STEPS {
        (sin_lat, cos_lat) = unit(
            z + EP2 * B_M * sin_beta.powi(3),
            ring - E2 * WGS84_A_M * cos_beta.powi(3),
        );
        (sin_beta, cos_beta) = unit((1.0 - WGS84_F) * sin_lat, cos_lat);
    }
    Geodetic {
        latitude_deg: sin_lat.atan2(cos_lat).to_degrees(),
        longitude_deg: if ring > 0.0 {
            y.atan2(x).to_degrees()
        } else {
            0.0
        },
        altitude_m: ring * cos_lat + z * sin_lat
            - WGS84_A_M * (1.0 - E2 * sin_lat * sin_lat).sqrt(),
    }
}

/// East, north, up around an origin: the tangent plane of the ellipsoid there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalFrame {
    origin: Geodetic,
    origin_ecef: Vector3<f64>,
    enu_from_ecef: Matrix3<f64>,
}

impl LocalFrame {
    /// The frame whose origin is `origin`.
    pub fn at(origin: Geodetic) -> LocalFrame {
        let (sin_lat, cos_lat) = origin.latitude_deg.to_radians().sin_cos();
        let (sin_lon, cos_lon) = origin.longitude_deg.to_radians().sin_cos();
        LocalFrame {
            origin,
            origin_ecef: ecef_from_geodetic(&origin).0,
            enu_from_ecef: Matrix3::new(
                -sin_lon,
                cos_lon,
                0.0,
                -sin_lat * cos_lon,
                -sin_lat * sin_lon,
                cos_lat,
                cos_lat * cos_lon,
                cos_lat * sin_lon,
                sin_lat,
            ),
        }
    }

    /// Where east, north and up are zero.
    pub fn origin(&self) -> Geodetic {
        self.origin
    }

    /// Local position of a geodetic one.
    #[inline]
    pub fn enu_from_geodetic(&self, point: &Geodetic) -> Enu {
        let offset = ecef_from_geodetic(point).0 - self.origin_ecef;
        Enu::from_vector(self.enu_from_ecef * offset)
    }

    /// Geodetic position of a local one.
    pub fn geodetic_from_enu(&self, point: &Enu) -> Geodetic {
        let ecef = self.origin_ecef + self.enu_from_ecef.tr_mul(&point.to_vector());
        geodetic_from_ecef(&Ecef(ecef))
    }
}

/// Distance along the ellipsoid between two places, whatever their altitudes, metres.
///
/// The chord is exact and is bent to the radius of curvature in its own direction: below a millimetre
/// at the size of a survey, within 0.5 % across the globe.
pub fn horizontal_distance_m(a: &Geodetic, b: &Geodetic) -> f64 {
    let chord = (ecef_from_geodetic(&a.at_altitude(0.0)).0
        - ecef_from_geodetic(&b.at_altitude(0.0)).0)
        .norm();
    let sin_lat = ((a.latitude_deg + b.latitude_deg) / 2.0).to_radians().sin();
    let w = 1.0 - E2 * sin_lat * sin_lat;
    // Mean of the two principal radii of curvature.
    let radius = WGS84_A_M * (1.0 - E2).sqrt() / w;
    2.0 * radius * (chord / (2.0 * radius)).min(1.0).asin()
}

/// Aerospace attitude: Z-Y-X Euler angles of a body (x forward, y right, z down) in north, east, down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attitude {
    /// Degrees, right side down positive.
    pub roll_deg: f64,
    /// Degrees, nose up positive; a gimbal looking straight down has -90.
    pub pitch_deg: f64,
    /// Degrees clockwise from true north.
    pub yaw_deg: f64,
}

impl Attitude {
    /// Rotates body axes into north, east, down.
    pub fn ned_from_body(&self) -> UnitQuaternion<f64> {
        UnitQuaternion::from_euler_angles(
            self.roll_deg.to_radians(),
            self.pitch_deg.to_radians(),
            self.yaw_deg.to_radians(),
        )
    }
}

/// A geographic box. It does not cross the antimeridian: `west_deg <= east_deg`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Western edge, degrees.
    pub west_deg: f64,
    /// Southern edge, degrees.
    pub south_deg: f64,
    /// Eastern edge, degrees.
    pub east_deg: f64,
    /// Northern edge, degrees.
    pub north_deg: f64,
}

impl Bounds {
    /// Smallest box around both.
    #[must_use]
    pub fn union(&self, other: &Bounds) -> Bounds {
        Bounds {
            west_deg: self.west_deg.min(other.west_deg),
            south_deg: self.south_deg.min(other.south_deg),
            east_deg: self.east_deg.max(other.east_deg),
            north_deg: self.north_deg.max(other.north_deg),
        }
    }

    /// Whether a place is inside or on the edge.
    pub fn contains(&self, point: &Geodetic) -> bool {
        (self.west_deg..=self.east_deg).contains(&point.longitude_deg)
            && (self.south_deg..=self.north_deg).contains(&point.latitude_deg)
    }

    /// Whether two boxes share at least an edge or a corner.
    pub fn intersects(&self, other: &Bounds) -> bool {
        self.west_deg <= other.east_deg
            && other.west_deg <= self.east_deg
            && self.south_deg <= other.north_deg
            && other.south_deg <= self.north_deg
    }
}

#[cfg(test)]
mod tests;
