//! Captures into what the domain judges, verdicts into what is published.

use sovereign_model::geo::Position;
use sovereign_model::{CameraPose, Intrinsics};
use sovereign_proto::convert::{FieldError, converted};
use sovereign_proto::geo::v1 as geo;
use sovereign_proto::slam::v1::{Keyframe, PoseEvent, PoseSource};

use crate::domain::georeference::{Reason, Source, Telemetry, TelemetryAttitude, Verdict};

/// A camera fixed to the body looks down unless the sender says otherwise, as the contract has it.
const DEFAULT_MOUNT_PITCH_DEG: f64 = -90.0;

/// Camera that the sender gave.
pub(crate) fn intrinsics_of(capture: &geo::Capture) -> Result<Option<Intrinsics>, Reason> {
    match &capture.intrinsics {
        Some(given) => converted("intrinsics", Some(given))
            .map(Some)
            .map_err(|error| invalid(&error)),
        None => Ok(None),
    }
}

/// Telemetry that the front door matched to the exposure.
pub(crate) fn telemetry_of(capture: &geo::Capture) -> Result<Telemetry, Reason> {
    let Some(fix) = &capture.telemetry else {
        return Ok(Telemetry::default());
    };
    let position = match &fix.position {
        Some(point) => {
            Some(Position::try_from(point).map_err(|e| invalid(&e.within("telemetry.position")))?)
        }
        None => None,
    };
    let attitude = match &fix.attitude {
        Some(attitude) => {
            let attitude =
                converted("telemetry.attitude", Some(attitude)).map_err(|error| invalid(&error))?;
            Some(if fix.attitude_is_camera {
                TelemetryAttitude::Camera(attitude)
            } else {
                TelemetryAttitude::Body {
                    attitude,
                    mount_pitch_deg: mount_pitch_deg(capture)?,
                }
            })
        }
        None => None,
    };
    Ok(Telemetry {
        position,
        relative_altitude_m: fix.relative_altitude_m,
        attitude,
    })
}

fn mount_pitch_deg(capture: &geo::Capture) -> Result<f64, Reason> {
    let pitch = capture.mount_pitch_deg.unwrap_or(DEFAULT_MOUNT_PITCH_DEG);
    if (-180.0..=180.0).contains(&pitch) {
        Ok(pitch)
    } else {
        Err(invalid(&FieldError::new(
            "mount_pitch_deg",
            format!("is {pitch}, must be -180 to 180"),
        )))
    }
}

fn invalid(error: &FieldError) -> Reason {
    Reason::Invalid(error.to_string())
}

/// The verdict on a capture as it is published and kept.
pub(crate) fn keyframe_from(capture: &geo::Capture, verdict: &Verdict) -> Keyframe {
    let bare = Keyframe {
        frame_id: capture.frame_id.clone(),
        sensor_id: capture.sensor_id.clone(),
        captured_unix_nanos: capture.captured_unix_nanos,
        received_unix_nanos: capture.received_unix_nanos,
        image_digest: capture.image_digest.clone(),
        simulated: capture.simulated,
        ..Keyframe::default()
    };
    match verdict {
        Verdict::Tracking {
            pose,
            intrinsics,
            source,
            ..
        } => Keyframe {
            state: geo::TrackingState::Tracking.into(),
            pose: Some((*pose).into()),
            intrinsics: Some((*intrinsics).into()),
            source: match source {
                Source::ImageMetadata => PoseSource::ImageMetadata.into(),
                Source::Telemetry => PoseSource::Telemetry.into(),
            },
            footprint: pose
                .footprint(intrinsics)
                .map(|corners| corners.map(geo::GeoPoint::from).to_vec())
                .unwrap_or_default(),
            ..bare
        },
        Verdict::PositionOnly { reason, .. } => Keyframe {
            state: geo::TrackingState::Lost.into(),
            source: PoseSource::PositionOnly.into(),
            reason: reason.to_string(),
            ..bare
        },
        Verdict::Lost { reason } => Keyframe {
            state: geo::TrackingState::Lost.into(),
            reason: reason.to_string(),
            ..bare
        },
    }
}

/// The same verdict as a pose event.
pub(crate) fn pose_event_from(keyframe: &Keyframe, verdict: &Verdict) -> PoseEvent {
    let observed = match keyframe.captured_unix_nanos {
        0 => keyframe.received_unix_nanos,
        captured => captured,
    };
    let pose = match verdict {
        Verdict::Tracking { .. } => keyframe.pose,
        Verdict::PositionOnly { position, .. } => Some(pose_at(*position)),
        Verdict::Lost { .. } => None,
    };
    PoseEvent {
        sensor_id: keyframe.sensor_id.clone(),
        observed_unix_nanos: observed,
        state: match pose {
            Some(_) => geo::TrackingState::Tracking.into(),
            None => geo::TrackingState::Lost.into(),
        },
        pose,
        source: keyframe.source,
        simulated: keyframe.simulated,
        frame_id: keyframe.frame_id.clone(),
    }
}

/// A position without orientation.
pub(crate) fn pose_at(position: Position) -> geo::Pose {
    geo::Pose {
        position: Some(position.into()),
        enu_from_camera: None,
        height_above_ground_m: None,
    }
}

/// Pose and camera of a kept keyframe; `None` for one without a pose.
pub(crate) fn view_of(keyframe: &Keyframe) -> Option<(CameraPose, Intrinsics)> {
    let pose = CameraPose::try_from(keyframe.pose.as_ref()?).ok()?;
    let intrinsics = Intrinsics::try_from(keyframe.intrinsics.as_ref()?).ok()?;
    Some((pose, intrinsics))
}
