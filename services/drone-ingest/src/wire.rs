//! Messages of the contract, and what the door knows them as.

use bytes::Bytes;
use sovereign_model::{Intrinsics, SensorId, Timestamp};
use sovereign_proto::convert::FieldError;
use sovereign_proto::drone::v1 as drone;
use sovereign_proto::geo::v1 as wire;

use crate::capture::{Note, Stored};
use crate::domain::door::Door;
use crate::domain::history::{Fix, Looking};
use crate::domain::vehicle::Snapshot;

/// How a camera can be mounted, degrees from the nose.
const MOUNT_PITCH_DEG: std::ops::RangeInclusive<f64> = -180.0..=180.0;

/// Checks what is said of a picture, field by field; no exposure is later than `latest`.
pub(crate) fn note_from_header(
    header: &drone::CaptureHeader,
    latest: Timestamp,
) -> Result<Note, FieldError> {
    let vehicle_id = SensorId::parse(&header.vehicle_id)
        .map_err(|error| FieldError::new("vehicle_id", format!("cannot be used: {error}")))?;
    let captured = match header.captured_unix_nanos {
        0 => None,
        nanos if nanos > latest.as_unix_nanos() => {
            return Err(FieldError::new(
                "captured_unix_nanos",
                format!("is {nanos}, further ahead of this door's clock than the allowed skew"),
            ));
        }
        nanos if nanos > 0 => Some(Timestamp::from_unix_nanos(nanos)),
        nanos => {
            return Err(FieldError::new(
                "captured_unix_nanos",
                format!("is {nanos}, before 1970"),
            ));
        }
    };
    let intrinsics = header.intrinsics.as_ref().map(Intrinsics::try_from);
    let intrinsics = intrinsics
        .transpose()
        .map_err(|error| error.within("intrinsics"))?;
    if let Some(pitch) = header.mount_pitch_deg
        && !MOUNT_PITCH_DEG.contains(&pitch)
    {
        return Err(FieldError::new(
            "mount_pitch_deg",
            format!("is {pitch}, must be -180 to 180"),
        ));
    }
    Ok(Note {
        vehicle_id,
        captured,
        intrinsics,
        mount_pitch_deg: header.mount_pitch_deg,
        simulated: header.simulated,
    })
}

pub(crate) fn capture_from_parts(
    frame_id: &str,
    note: &Note,
    stored: &Stored,
    fix: Option<&Fix>,
    received: Timestamp,
) -> wire::Capture {
    let media_type = match stored.header {
        Some(_) => "image/jpeg",
        None => "model/ply",
    };
    wire::Capture {
        frame_id: frame_id.to_owned(),
        sensor_id: note.vehicle_id.to_string(),
        captured_unix_nanos: note.captured.map_or(0, Timestamp::as_unix_nanos),
        received_unix_nanos: received.as_unix_nanos(),
        image_digest: Bytes::copy_from_slice(stored.object.digest.as_bytes()),
        media_type: media_type.to_owned(),
        telemetry: fix.map(telemetry_from_fix),
        intrinsics: note.intrinsics.map(Into::into),
        mount_pitch_deg: note.mount_pitch_deg,
        simulated: note.simulated,
        size_bytes: stored.object.size_bytes,
        picture: stored.header.as_ref().map(|header| wire::PictureFacts {
            width_px: header.width_px,
            height_px: header.height_px,
            camera_model: header.camera_name().unwrap_or_default(),
        }),
    }
}

fn telemetry_from_fix(fix: &Fix) -> wire::TelemetryFix {
    let (attitude, attitude_is_camera) = match fix.looking {
        Some(Looking::Camera(attitude)) => (Some(attitude.into()), true),
        Some(Looking::Body(attitude)) => (Some(attitude.into()), false),
        None => (None, false),
    };
    wire::TelemetryFix {
        position: Some(fix.place.position.into()),
        relative_altitude_m: fix.place.relative_altitude_m,
        attitude,
        attitude_is_camera,
        time_offset_nanos: i64::try_from(fix.offset.as_nanos()).unwrap_or(i64::MAX),
    }
}

pub(crate) fn state_from_snapshot(state: &Snapshot) -> drone::VehicleState {
    drone::VehicleState {
        vehicle_id: state.vehicle_id.to_string(),
        observed_unix_nanos: state.observed.as_unix_nanos(),
        position: state.position.map(Into::into),
        relative_altitude_m: state.relative_altitude_m,
        attitude: state.attitude.map(Into::into),
        velocity: state.velocity.map(|velocity| wire::VelocityNed {
            north_mps: velocity.north_mps,
            east_mps: velocity.east_mps,
            down_mps: velocity.down_mps,
        }),
        ground_speed_mps: state.ground_speed_mps,
        heading_deg: state.heading_deg,
        battery_percent: state.battery_percent,
        flight_mode: state.flight_mode.to_string(),
        source: state.source.as_str().to_owned(),
        confidence: state.confidence,
        armed: state.armed,
        link: Some(drone::LinkStats {
            messages: state.link.messages,
            lost: state.link.lost,
            signed: state.link.signed,
        }),
        simulated: state.simulated,
        sensor_health: state.sensor_health.to_string(),
    }
}

pub(crate) fn stats_from_door(door: &Door) -> drone::GetIngestStatsResponse {
    let (stats, vehicles) = (door.stats(), door.vehicles());
    let owned = |(name, count): (&'static str, u64)| (name.to_owned(), count);
    let last_accepted = vehicles.iter().map(|(state, heard)| {
        let seconds = heard.as_unix_nanos() as f64 / 1e9;
        (state.vehicle_id.to_string(), seconds)
    });
    let rejected = stats.rejected_by_reason();
    drone::GetIngestStatsResponse {
        datagrams: stats.datagrams,
        bytes: stats.bytes,
        accepted_by_type: stats.accepted_by_type().map(owned).collect(),
        rejected_by_reason: rejected.map(|(r, n)| (r.code().to_owned(), n)).collect(),
        messages_by_source: stats.messages_by_source().collect(),
        messages_by_version: stats.messages_by_version().map(owned).into(),
        last_accepted_unix_by_vehicle: last_accepted.collect(),
        active_vehicles: vehicles.len() as u64,
    }
}
