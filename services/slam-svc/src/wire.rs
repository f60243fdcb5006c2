//! Captures into what the domain judges, verdicts into what is published.

use sovereign_bus::Key;
use sovereign_model::geo::Position;
use sovereign_model::{CameraPose, Digest, Intrinsics, SensorId, Timestamp};
use sovereign_proto::convert::{FieldError, converted};
use sovereign_proto::geo::v1 as geo;
pub(crate) use sovereign_proto::geo::v1::{Capture, TrackingState};
pub(crate) use sovereign_proto::mobile::v1::Sample;
use sovereign_proto::mobile::v1::SampleType;
use sovereign_proto::slam::v1::{self as slam, Calibration, KeyframeCause};
pub(crate) use sovereign_proto::slam::v1::{Keyframe, PoseEvent, PoseSource};
pub(crate) use sovereign_proto::tile::v1::FrameRefused;

use crate::calibration;
use crate::domain::camera::CameraModel;
use crate::domain::georeference::{Reason, Source, Telemetry, TelemetryAttitude, Verdict};

/// A camera fixed to the body looks down unless the sender says otherwise, as the contract has it.
const DEFAULT_MOUNT_PITCH_DEG: f64 = -90.0;

pub(crate) fn intrinsics_of(capture: &geo::Capture) -> Result<Option<Intrinsics>, Reason> {
    match &capture.intrinsics {
        Some(given) => converted("intrinsics", Some(given))
            .map(Some)
            .map_err(|error| invalid(&error)),
        None => Ok(None),
    }
}

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
        course_deg: None,
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

pub(crate) fn keyframe_from(capture: &geo::Capture, verdict: &Verdict) -> Keyframe {
    let bare = Keyframe {
        frame_id: capture.frame_id.clone(),
        sensor_id: capture.sensor_id.clone(),
        captured_unix_nanos: capture.captured_unix_nanos,
        received_unix_nanos: capture.received_unix_nanos,
        image_digest: capture.image_digest.clone(),
        simulated: capture.simulated,
        cause: KeyframeCause::Direct.into(),
        ..Keyframe::default()
    };
    match verdict {
        Verdict::Tracking {
            pose,
            intrinsics,
            source,
            relief,
            ..
        } => Keyframe {
            state: geo::TrackingState::Tracking.into(),
            pose: Some((*pose).into()),
            intrinsics: Some((*intrinsics).into()),
            source: match source {
                Source::ImageMetadata => PoseSource::ImageMetadata.into(),
                Source::Telemetry => PoseSource::Telemetry.into(),
                Source::Assumed => PoseSource::Assumed.into(),
            },
            relief: relief.as_ref().map(slam::Relief::from),
            footprint: relief
                .as_ref()
                .map_or_else(
                    || pose.footprint(intrinsics),
                    |relief| relief.footprint(pose, intrinsics),
                )
                .map(|corners| corners.map(geo::GeoPoint::from).to_vec())
                .unwrap_or_default(),
            ..bare
        },
        Verdict::PositionOnly { position, reason } => Keyframe {
            position: Some((*position).into()),
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

pub(crate) fn pose_at(position: Position) -> geo::Pose {
    geo::Pose {
        position: Some(position.into()),
        enu_from_camera: None,
        height_above_ground_m: None,
    }
}

/// Where a kept keyframe was taken, and when; `None` for one without a position or a time.
pub(crate) fn place_of(keyframe: &Keyframe) -> Option<(Position, i64)> {
    let posed = keyframe
        .pose
        .as_ref()
        .and_then(|pose| pose.position.as_ref());
    let place = posed.or(keyframe.position.as_ref())?;
    let taken = keyframe.captured_unix_nanos;
    (taken > 0).then_some((Position::try_from(place).ok()?, taken))
}

/// Pose and camera of a kept keyframe; `None` for one without a pose.
pub(crate) fn view_of(keyframe: &Keyframe) -> Option<(CameraPose, Intrinsics)> {
    let pose = CameraPose::try_from(keyframe.pose.as_ref()?).ok()?;
    let intrinsics = Intrinsics::try_from(keyframe.intrinsics.as_ref()?).ok()?;
    Some((pose, intrinsics))
}

/// Whether a capture is a picture: scans have no pose of their own.
pub(crate) fn is_picture(capture: &Capture) -> bool {
    // Captures of earlier doors say nothing of their type.
    capture.media_type.is_empty() || capture.media_type == "image/jpeg"
}

pub(crate) fn digest_of(capture: &Capture) -> Option<Digest> {
    Digest::from_slice(&capture.image_digest).ok()
}

pub(crate) fn model_of(capture: &Capture) -> &str {
    capture
        .picture
        .as_ref()
        .map_or("", |picture| picture.camera_model.trim())
}

/// The verdict on a frame that the painter refused: it has the pose that it had, and is not tracked.
pub(crate) fn refused(current: &Keyframe, reason: &str) -> Keyframe {
    Keyframe {
        revision: current.revision + 1,
        cause: KeyframeCause::Refused.into(),
        state: TrackingState::Lost.into(),
        reason: reason.to_owned(),
        footprint: Vec::new(),
        ..current.clone()
    }
}

/// The next verdict on a frame that has `current`; nothing when it says the same.
pub(crate) fn revision_of(current: &Keyframe, fresh: Keyframe) -> Option<Keyframe> {
    let fresh = Keyframe {
        revision: current.revision,
        cause: current.cause,
        ..fresh
    };
    (fresh != *current).then(|| Keyframe {
        revision: current.revision + 1,
        cause: KeyframeCause::Calibration.into(),
        ..fresh
    })
}

pub(crate) fn message_id_of(keyframe: &Keyframe) -> String {
    match keyframe.revision {
        0 => keyframe.frame_id.clone(),
        revision => format!("{}.{revision}", keyframe.frame_id),
    }
}

/// The position that a phone sampled, and its key; `Err` names why there is none.
pub(crate) fn event_from_sample(sample: &Sample) -> Result<(Key, PoseEvent), &'static str> {
    if sample.r#type() != SampleType::Gps {
        return Err("other");
    }
    let position = converted::<_, Position>("position", sample.position.as_ref());
    let (Ok(position), Ok(phone)) = (position, Key::parse(&sample.client_id)) else {
        return Err("invalid");
    };
    let event = PoseEvent {
        sensor_id: sample.client_id.clone(),
        observed_unix_nanos: sample.observed_unix_nanos,
        state: geo::TrackingState::Tracking.into(),
        pose: Some(pose_at(position)),
        source: PoseSource::PositionOnly.into(),
        simulated: sample.simulated,
        frame_id: String::new(),
    };
    Ok((phone, event))
}

pub(crate) fn calibration_from_wire(
    given: Option<&Calibration>,
    now: Timestamp,
) -> Result<calibration::Calibration, FieldError> {
    let within = |error: FieldError| error.within("calibration");
    let given = sovereign_proto::convert::required("calibration", given)?;
    if !given.sensor_id.is_empty() {
        SensorId::parse(&given.sensor_id)
            .map_err(|error| within(FieldError::new("sensor_id", error.to_string())))?;
    }
    let camera = CameraModel {
        model: given.camera_model.trim().to_owned(),
        focal_px_per_width: given.focal_px_per_width,
        k1: given.k1,
        k2: given.k2,
    };
    if let Some((name, why)) = camera.fault() {
        let field = if name == "model" {
            "camera_model"
        } else {
            name
        };
        return Err(within(FieldError::new(field, why)));
    }
    Ok(calibration::Calibration {
        camera,
        sensor_id: given.sensor_id.clone(),
        set: now,
    })
}

pub(crate) fn calibration_from(kept: &calibration::Calibration) -> Calibration {
    Calibration {
        camera_model: kept.camera.model.clone(),
        sensor_id: kept.sensor_id.clone(),
        focal_px_per_width: kept.camera.focal_px_per_width,
        k1: kept.camera.k1,
        k2: kept.camera.k2,
        set_unix_nanos: kept.set.as_unix_nanos(),
    }
}

pub(crate) fn kept_calibration(message: &Calibration) -> Option<calibration::Calibration> {
    let set = Timestamp::from_unix_nanos(message.set_unix_nanos);
    calibration_from_wire(Some(message), set).ok()
}
