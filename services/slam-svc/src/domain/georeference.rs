//! Direct georeferencing: the pose of one picture from what was measured at its exposure.
//!
//! Pipeline: position (picture, else telemetry) -> attitude (the maker's gimbal in the picture, else
//! telemetry) -> height above the ground (a ground elevation from the configuration, else relative
//! altitude of picture or telemetry) -> camera ([`super::camera`]) -> pose and footprint.
//!
//! Degenerate cases: whatever is missing is named and nothing is made up; a position without the rest
//! is a marker on the map ([`Verdict::PositionOnly`]), not a pose. A picture that looks at or above the
//! horizon has a pose and no footprint.

use sovereign_model::geo::{Attitude, Geodetic};
use sovereign_model::{CameraPose, Intrinsics};

use super::camera::{self, CameraModel, Heading, NoCamera};
use super::metadata::{NotAPicture, PictureMetadata};

/// Below this height flat ground and barometers do not make a map, metres.
pub(crate) const MIN_HEIGHT_M: f64 = 1.0;

/// A place whose altitude may be unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Position {
    /// Degrees.
    pub(crate) latitude_deg: f64,
    /// Degrees.
    pub(crate) longitude_deg: f64,
    /// Metres.
    pub(crate) altitude_m: Option<f64>,
}

/// Telemetry at the exposure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Telemetry {
    /// Vehicle position.
    pub(crate) position: Option<Position>,
    /// Metres above the take-off point.
    pub(crate) relative_altitude_m: Option<f64>,
    /// Attitude, and whose.
    pub(crate) attitude: Option<TelemetryAttitude>,
}

/// An attitude from telemetry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TelemetryAttitude {
    /// Of the camera itself.
    Camera(Attitude),
    /// Of the body; the camera is mounted at a pitch against it.
    Body {
        /// Of the body.
        attitude: Attitude,
        /// Degrees; -90 looks down through the floor.
        mount_pitch_deg: f64,
    },
}

/// What the operator knows better.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Site {
    /// Metres above mean sea level of the ground; when set, height is altitude minus this.
    pub(crate) ground_elevation_m: Option<f64>,
    /// Camera calibrations.
    pub(crate) cameras: Vec<CameraModel>,
}

/// How a pose was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Attitude from the picture's own metadata.
    ImageMetadata,
    /// Attitude from telemetry.
    Telemetry,
}

/// What is known of where a picture was taken.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The pose was measured.
    Tracking {
        /// Camera pose of the pixels as stored.
        pose: CameraPose,
        /// Camera.
        intrinsics: Intrinsics,
        /// How it was found.
        source: Source,
    },
    /// Where, but not how the camera looked.
    PositionOnly {
        /// Where.
        position: Position,
        /// Why not more.
        reason: Reason,
    },
    /// Not even where.
    Lost {
        /// Why not.
        reason: Reason,
    },
}

/// Why a picture has no pose.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Reason {
    /// The bytes are not those that were announced.
    #[error("the picture does not match its digest")]
    Corrupt,
    /// The bytes are no picture.
    #[error("the picture cannot be read: {0}")]
    Unreadable(NotAPicture),
    /// Reading it failed in a way that is our fault.
    #[error("reading the picture's metadata failed")]
    Failed,
    /// What the sender says of its camera or telemetry cannot be.
    #[error("{0}")]
    Invalid(String),
    /// No GPS position in the picture, no telemetry.
    #[error(
        "no position: the picture has no GPS position and no telemetry was near enough in time"
    )]
    NoPosition,
    /// No attitude.
    #[error(
        "no attitude: the picture has no gimbal attitude and no telemetry was near enough in time"
    )]
    NoAttitude,
    /// No altitude.
    #[error("no altitude in the picture or in telemetry")]
    NoAltitude,
    /// No height above the ground.
    #[error(
        "height above ground is unknown: no relative altitude, and ground_elevation_m is not configured"
    )]
    NoHeight,
    /// Too near to the ground.
    #[error("height above ground is {height_m:.1} m, at least {MIN_HEIGHT_M:.1} m is needed")]
    TooLow {
        /// Metres.
        height_m: f64,
    },
    /// A number that cannot be.
    #[error("{field} is out of range")]
    OutOfRange {
        /// Which.
        field: &'static str,
    },
    /// No usable camera.
    #[error("{0}")]
    Camera(#[from] NoCamera),
}

impl Reason {
    /// A bounded name, for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Reason::Corrupt => "corrupt",
            Reason::Unreadable(_) => "unreadable",
            Reason::Failed => "failed",
            Reason::Invalid(_) => "invalid",
            Reason::NoPosition => "no_position",
            Reason::NoAttitude => "no_attitude",
            Reason::NoAltitude => "no_altitude",
            Reason::NoHeight => "no_height",
            Reason::TooLow { .. } => "too_low",
            Reason::OutOfRange { .. } => "out_of_range",
            Reason::Camera(NoCamera::Unknown) => "no_camera",
            Reason::Camera(NoCamera::OtherSize { .. }) => "camera_size",
            Reason::Camera(NoCamera::Impossible(_)) => "camera_impossible",
        }
    }
}

/// The verdict on one picture.
pub(crate) fn georeference(
    metadata: &PictureMetadata,
    telemetry: &Telemetry,
    given: Option<Intrinsics>,
    site: &Site,
) -> Verdict {
    let attitude = attitude(metadata, telemetry, site);
    let Some(position) = position(metadata, telemetry, attitude.map(|(_, source)| source)) else {
        return Verdict::Lost {
            reason: Reason::NoPosition,
        };
    };
    match pose(metadata, telemetry, given, site, position, attitude) {
        Ok(tracking) => tracking,
        Err(reason) => Verdict::PositionOnly { position, reason },
    }
}

fn pose(
    metadata: &PictureMetadata,
    telemetry: &Telemetry,
    given: Option<Intrinsics>,
    site: &Site,
    position: Position,
    attitude: Option<(TelemetryAttitude, Source)>,
) -> Result<Verdict, Reason> {
    let (attitude, source) = attitude.ok_or(Reason::NoAttitude)?;
    let altitude_m = position.altitude_m.ok_or(Reason::NoAltitude)?;
    let height_m = height_m(metadata, telemetry, site, altitude_m, source)?;
    let intrinsics = camera::intrinsics(metadata, given, &site.cameras)?;
    let position = Geodetic::new(position.latitude_deg, position.longitude_deg, altitude_m)
        .map_err(|error| Reason::OutOfRange { field: error.field })?;
    let pose = match attitude {
        TelemetryAttitude::Camera(camera) => CameraPose::from_gimbal(position, camera, height_m),
        TelemetryAttitude::Body {
            attitude,
            mount_pitch_deg,
        } => CameraPose::from_body(position, attitude, mount_pitch_deg, height_m),
    };
    Ok(Verdict::Tracking {
        pose,
        intrinsics,
        source,
    })
}

/// The picture's attitude, else telemetry's. A stabilised gimbal that does not state its roll has none.
fn attitude(
    metadata: &PictureMetadata,
    telemetry: &Telemetry,
    site: &Site,
) -> Option<(TelemetryAttitude, Source)> {
    let heading = camera::model_of(metadata, &site.cameras).map_or(Heading::Gimbal, |c| c.heading);
    let gimbal = metadata.gimbal;
    let yaw_deg = match heading {
        Heading::Gimbal => gimbal.yaw_deg,
        Heading::Flight => metadata.flight.yaw_deg.or(gimbal.yaw_deg),
    };
    if let (Some(pitch_deg), Some(yaw_deg)) = (gimbal.pitch_deg, yaw_deg) {
        let camera = Attitude {
            roll_deg: gimbal.roll_deg.unwrap_or(0.0),
            pitch_deg,
            yaw_deg,
        };
        return Some((TelemetryAttitude::Camera(camera), Source::ImageMetadata));
    }
    telemetry
        .attitude
        .map(|attitude| (attitude, Source::Telemetry))
}

/// Position from where the attitude is from, so that both are of one moment; else from the other side.
fn position(
    metadata: &PictureMetadata,
    telemetry: &Telemetry,
    attitude_from: Option<Source>,
) -> Option<Position> {
    let picture = metadata.gps.map(|(latitude_deg, longitude_deg)| Position {
        latitude_deg,
        longitude_deg,
        altitude_m: metadata.altitude_m,
    });
    let (first, second) = match attitude_from {
        Some(Source::Telemetry) => (telemetry.position, picture),
        Some(Source::ImageMetadata) | None => (picture, telemetry.position),
    };
    let position = first.or(second)?;
    Some(Position {
        altitude_m: position
            .altitude_m
            .or(second.and_then(|other| other.altitude_m)),
        ..position
    })
}

fn height_m(
    metadata: &PictureMetadata,
    telemetry: &Telemetry,
    site: &Site,
    altitude_m: f64,
    source: Source,
) -> Result<f64, Reason> {
    let height_m = match site.ground_elevation_m {
        Some(ground_m) => altitude_m - ground_m,
        None => match source {
            Source::ImageMetadata => metadata
                .relative_altitude_m
                .or(telemetry.relative_altitude_m),
            Source::Telemetry => telemetry
                .relative_altitude_m
                .or(metadata.relative_altitude_m),
        }
        .ok_or(Reason::NoHeight)?,
    };
    if !height_m.is_finite() {
        Err(Reason::OutOfRange {
            field: "height above ground",
        })
    } else if height_m < MIN_HEIGHT_M {
        Err(Reason::TooLow { height_m })
    } else {
        Ok(height_m)
    }
}

#[cfg(test)]
mod tests;
