//! Direct georeferencing: the pose of one picture from what was measured at its exposure.
//!
//! Pipeline: position (picture, else telemetry) -> attitude (the picture's own word, [`super::attitude`], else
//! telemetry) -> height above the ground (altitude over a terrain model, else over a ground elevation
//! from the configuration, else relative altitude of picture or telemetry) -> camera ([`super::camera`]) -> pose and footprint.
//!
//! Degenerate cases: whatever is missing is named and nothing is made up; a position without the rest
//! is a marker on the map ([`Verdict::PositionOnly`]), not a pose. A picture that looks at or above the
//! horizon has a pose and no footprint.

use sovereign_model::geo::{Attitude, Geodetic, Position};
use sovereign_model::{CameraPose, Intrinsics, Relief};

use std::sync::Arc;

use super::attitude::{self, Ambiguous, Reading};
use super::camera::{self, CameraModel, NoCamera};
use super::geoid::Geoid;
use super::ground::{self, Elevation};
use sovereign_picture::{Header, NotAPicture};

/// Below this height flat ground and barometers do not make a map, metres.
pub(crate) const MIN_HEIGHT_M: f64 = 1.0;
/// Beyond this height a number is no height, metres: the limit that altitudes have too.
const MAX_HEIGHT_M: f64 = 1.0e6;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Telemetry {
    pub(crate) position: Option<Position>,
    pub(crate) relative_altitude_m: Option<f64>,
    pub(crate) attitude: Option<TelemetryAttitude>,
    /// Direction of flight, degrees clockwise from true north, by where the sensor was before.
    pub(crate) course_deg: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TelemetryAttitude {
    Camera(Attitude),
    /// Of the body; the camera is mounted at a pitch against it.
    Body {
        attitude: Attitude,
        /// Degrees; -90 looks down through the floor.
        mount_pitch_deg: f64,
    },
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    pub(crate) terrain: Option<Arc<dyn Elevation>>,
    pub(crate) geoid: Geoid,
    /// A camera of which nothing is known looked straight down.
    pub(crate) assume_nadir: bool,
    /// Metres above mean sea level of the ground; when set, height is altitude minus this.
    pub(crate) ground_elevation_m: Option<f64>,
    pub(crate) cameras: Vec<CameraModel>,
    /// How the words of some models are to be read.
    pub(crate) readings: Vec<Reading>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The picture's own metadata; of a pose, for every part.
    ImageMetadata,
    /// Telemetry; of a pose, for one part at least.
    Telemetry,
    /// Nobody: the configuration says that cameras look straight down.
    Assumed,
}

impl Source {
    fn and(self, other: Source) -> Source {
        match (self, other) {
            (Source::Assumed, _) | (_, Source::Assumed) => Source::Assumed,
            (Source::Telemetry, _) | (_, Source::Telemetry) => Source::Telemetry,
            (Source::ImageMetadata, Source::ImageMetadata) => Source::ImageMetadata,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Tracking {
        pose: CameraPose,
        intrinsics: Intrinsics,
        source: Source,
        attitude_from: Source,
        /// Shape of the ground by the terrain model.
        relief: Option<Relief>,
    },
    /// Where, but not how the camera looked.
    PositionOnly { position: Position, reason: Reason },
    /// Not even where.
    Lost { reason: Reason },
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("the picture is not in the content store any more")]
    Missing,
    #[error("the picture is damaged in the content store")]
    Corrupt,
    #[error("the picture {0}")]
    Unreadable(NotAPicture),
    #[error("reading the picture's metadata failed")]
    Failed,
    #[error("{0}")]
    Invalid(String),
    #[error(
        "no position: the picture has no GPS position and no telemetry was near enough in time"
    )]
    NoPosition,
    #[error("no position: that of the picture {0}, and no telemetry was near enough in time")]
    FaultyPosition(&'static str),
    #[error(
        "no attitude: the picture says none of its camera and no telemetry was near enough in time"
    )]
    NoAttitude,
    #[error("{0}")]
    Ambiguous(#[from] Ambiguous),
    #[error("no altitude in the picture or in telemetry")]
    NoAltitude,
    #[error(
        "height above ground is unknown: no relative altitude, no terrain model there, and ground_elevation_m \
         is not configured"
    )]
    NoHeight,
    #[error("height above ground is {height_m:.1} m, at least {MIN_HEIGHT_M:.1} m is needed")]
    TooLow { height_m: f64 },
    #[error("{field} is out of range")]
    OutOfRange { field: &'static str },
    #[error("{0}")]
    Camera(#[from] NoCamera),
}

impl Reason {
    /// A bounded name, for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Reason::Missing => "missing",
            Reason::Corrupt => "corrupt",
            Reason::Unreadable(_) => "unreadable",
            Reason::Failed => "failed",
            Reason::Invalid(_) => "invalid",
            Reason::NoPosition => "no_position",
            Reason::FaultyPosition(_) => "faulty_position",
            Reason::NoAttitude => "no_attitude",
            Reason::Ambiguous(_) => "ambiguous_attitude",
            Reason::NoAltitude => "no_altitude",
            Reason::NoHeight => "no_height",
            Reason::TooLow { .. } => "too_low",
            Reason::OutOfRange { .. } => "out_of_range",
            Reason::Camera(NoCamera::Unknown) => "no_camera",
            Reason::Camera(NoCamera::OtherSize { .. }) => "camera_size",
            Reason::Camera(NoCamera::Fisheye) => "fisheye",
            Reason::Camera(NoCamera::Panorama) => "panorama",
            Reason::Camera(NoCamera::Impossible(_)) => "camera_impossible",
        }
    }
}

pub(crate) fn georeference(
    metadata: &Header,
    telemetry: &Telemetry,
    given: Option<Intrinsics>,
    site: &Site,
) -> Verdict {
    let attitude = attitude(metadata, telemetry, site);
    let attitude_from = attitude.as_ref().ok().map(|(_, source)| *source);
    let Some(position) = position(metadata, telemetry, attitude_from, &site.geoid) else {
        return Verdict::Lost {
            reason: metadata
                .gps_fault
                .map_or(Reason::NoPosition, Reason::FaultyPosition),
        };
    };
    // A place that cannot be is no position either.
    if let Err(reason) = geodetic(&position.0, position.0.altitude_m.unwrap_or(0.0)) {
        return Verdict::Lost { reason };
    }
    match pose(metadata, telemetry, given, site, position, attitude) {
        Ok(tracking) => tracking,
        Err(reason) => Verdict::PositionOnly {
            position: position.0,
            reason,
        },
    }
}

fn pose(
    metadata: &Header,
    telemetry: &Telemetry,
    given: Option<Intrinsics>,
    site: &Site,
    (position, position_from): (Position, Source),
    attitude: Result<(TelemetryAttitude, Source), Reason>,
) -> Result<Verdict, Reason> {
    let (attitude, attitude_from) = attitude?;
    let altitude_m = position.altitude_m.ok_or(Reason::NoAltitude)?;
    let below_m = site
        .terrain
        .as_ref()
        .and_then(|terrain| terrain.ellipsoidal_m(position.latitude_deg, position.longitude_deg));
    let (height_m, height_from) = match (below_m, site.ground_elevation_m) {
        (Some(below_m), _) => {
            let sea_m = site
                .geoid
                .height(position.latitude_deg, position.longitude_deg);
            (altitude_m + sea_m - below_m, position_from)
        }
        (None, Some(ground_m)) => (altitude_m - ground_m, position_from),
        (None, None) => either(
            attitude_from,
            height_of(metadata),
            telemetry.relative_altitude_m,
        )
        .ok_or(Reason::NoHeight)?,
    };
    check_height(height_m)?;
    let intrinsics = camera::intrinsics(metadata, given, &site.cameras)?;
    let position = geodetic(&position, altitude_m)?;
    let pose = match attitude {
        TelemetryAttitude::Camera(camera) => CameraPose::from_gimbal(position, camera, height_m),
        TelemetryAttitude::Body {
            attitude,
            mount_pitch_deg,
        } => CameraPose::from_body(position, attitude, mount_pitch_deg, height_m),
    };
    let relief = site
        .terrain
        .as_deref()
        .zip(below_m)
        .and_then(|(terrain, below_m)| ground::relief(terrain, &pose, &intrinsics, below_m));
    Ok(Verdict::Tracking {
        relief,
        pose,
        intrinsics,
        source: attitude_from.and(position_from).and(height_from),
        attitude_from,
    })
}

/// The picture's attitude, else telemetry's, else what the configuration assumes.
fn attitude(
    metadata: &Header,
    telemetry: &Telemetry,
    site: &Site,
) -> Result<(TelemetryAttitude, Source), Reason> {
    let said = attitude::attitude_of(metadata, &site.readings);
    if let Ok(Some(camera)) = said {
        return Ok((TelemetryAttitude::Camera(camera), Source::ImageMetadata));
    }
    let course = metadata.track_deg.or(telemetry.course_deg);
    match (telemetry.attitude, said, course) {
        (Some(attitude), _, _) => Ok((attitude, Source::Telemetry)),
        (None, Err(ambiguous), _) => Err(ambiguous.into()),
        (None, Ok(_), Some(yaw_deg)) if site.assume_nadir => {
            let down = Attitude {
                roll_deg: 0.0,
                pitch_deg: -90.0,
                yaw_deg,
            };
            Ok((TelemetryAttitude::Camera(down), Source::Assumed))
        }
        (None, Ok(_), _) => Err(Reason::NoAttitude),
    }
}

/// Height above the take-off point, else above the ground. Exactly zero is what cameras write that know
/// none.
fn height_of(metadata: &Header) -> Option<f64> {
    let said = metadata.relative_altitude_m.or(metadata.above_ground_m);
    said.filter(|metres| *metres != 0.0)
}

/// Position from where the attitude is from, so that both are of one moment; else from the other side.
fn position(
    metadata: &Header,
    telemetry: &Telemetry,
    attitude_from: Option<Source>,
    geoid: &Geoid,
) -> Option<(Position, Source)> {
    let prefer = attitude_from.unwrap_or(Source::ImageMetadata);
    let picture = metadata.gps.map(|(latitude_deg, longitude_deg)| Position {
        latitude_deg,
        longitude_deg,
        altitude_m: metadata.altitude_m.map(|metres| {
            if metadata.altitude_is_ellipsoidal {
                metres - geoid.height(latitude_deg, longitude_deg)
            } else {
                metres
            }
        }),
    });
    let altitude = |position: Option<Position>| position.and_then(|p| p.altitude_m);
    let (place, place_from) = either(prefer, picture, telemetry.position)?;
    Some(
        match either(prefer, altitude(picture), altitude(telemetry.position)) {
            Some((metres, altitude_from)) => (
                Position {
                    altitude_m: Some(metres),
                    ..place
                },
                place_from.and(altitude_from),
            ),
            None => (place, place_from),
        },
    )
}

/// What the preferred side says, else what the other does, and which of them it was.
fn either<T>(prefer: Source, picture: Option<T>, telemetry: Option<T>) -> Option<(T, Source)> {
    let picture = picture.map(|value| (value, Source::ImageMetadata));
    let telemetry = telemetry.map(|value| (value, Source::Telemetry));
    match prefer {
        Source::ImageMetadata | Source::Assumed => picture.or(telemetry),
        Source::Telemetry => telemetry.or(picture),
    }
}

fn geodetic(position: &Position, altitude_m: f64) -> Result<Geodetic, Reason> {
    Geodetic::new(position.latitude_deg, position.longitude_deg, altitude_m)
        .map_err(|error| Reason::OutOfRange { field: error.field })
}

fn check_height(height_m: f64) -> Result<(), Reason> {
    if height_m.is_nan() || height_m.abs() > MAX_HEIGHT_M {
        Err(Reason::OutOfRange {
            field: "height above ground",
        })
    } else if height_m < MIN_HEIGHT_M {
        Err(Reason::TooLow { height_m })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
