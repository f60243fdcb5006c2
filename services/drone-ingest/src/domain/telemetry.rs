//! What single MAVLink messages say about a vehicle, in degrees, metres and seconds.
//!
//! Layouts, offsets and enums come from the generated dialect. "Unknown" markers of the protocol (-1 %,
//! 65535, NaN) become `None` here and nowhere else.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use mavlink::dialects::ardupilotmega as dialect;
use mavlink::error::ParserError;
use mavlink::{MavlinkVersion, MessageData};
use sovereign_model::geo::{Attitude, Position};

#[expect(deprecated, reason = "gimbals in the field still send it")]
use mavlink::dialects::ardupilotmega::MOUNT_ORIENTATION_DATA as Mount;

use super::flight_mode::flight_mode;
use super::framing::{Frame, Version};
use super::reject::Reject;

#[expect(deprecated, reason = "gimbals in the field still send it")]
const MOUNT_ID: u32 = Mount::ID;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Velocity {
    pub(crate) north_mps: f64,
    pub(crate) east_mps: f64,
    pub(crate) down_mps: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum YawFrame {
    Earth,
    Vehicle,
}

/// What one message says. Times since boot are in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Telemetry {
    Heartbeat {
        /// True for an autopilot of a vehicle; false for ground stations, radios, cameras.
        is_vehicle: bool,
        flight_mode: Cow<'static, str>,
        armed: bool,
        /// Hardware in the loop: the vehicle is simulated and says so.
        simulated: bool,
    },
    SystemStatus {
        /// 0 to 100.
        battery_percent: Option<f64>,
    },
    Battery {
        /// 0 to 100.
        battery_percent: Option<f64>,
    },
    SystemTime {
        /// Nanoseconds since the Unix epoch; `None` when the vehicle does not know.
        unix_nanos: Option<i64>,
        boot_ms: u32,
    },
    Gps {
        fix: bool,
        position: Option<Position>,
        ground_speed_mps: Option<f64>,
    },
    GlobalPosition {
        boot_ms: u32,
        /// Where; may be zero on both axes, see [`Position::is_zero`].
        position: Option<Position>,
        relative_altitude_m: f64,
        velocity: Velocity,
        /// Clockwise from north.
        heading_deg: Option<f64>,
    },
    Attitude {
        boot_ms: u32,
        attitude: Attitude,
    },
    Hud {
        ground_speed_mps: f64,
        /// Clockwise from north.
        heading_deg: Option<f64>,
        altitude_m: f64,
    },
    /// One message for all, over a link that carries little (a satellite).
    HighLatency {
        position: Option<Position>,
        ground_speed_mps: f64,
        /// Clockwise from north.
        heading_deg: Option<f64>,
        /// 0 to 100.
        battery_percent: Option<f64>,
        flight_mode: Cow<'static, str>,
    },
    Gimbal {
        /// Who says it: the gimbal, or an autopilot for it.
        component_id: u8,
        /// When; `None` when it is not known on the autopilot's clock.
        boot_ms: Option<u32>,
        /// Of the camera; its yaw is measured as `yaw_frame` says.
        attitude: Attitude,
        yaw_frame: YawFrame,
    },
    ImageCaptured {
        /// Exposure, nanoseconds since the Unix epoch.
        unix_nanos: Option<i64>,
        /// Exposure since boot; `None` when it is not known on the autopilot's clock.
        boot_ms: Option<u32>,
        position: Option<Position>,
        relative_altitude_m: f64,
        /// Of the camera, in the earth frame.
        attitude: Option<Attitude>,
    },
}

impl Telemetry {
    /// The same without its time since boot: said by a component that booted by itself.
    pub(crate) fn undated(mut self) -> Telemetry {
        match &mut self {
            Telemetry::Gimbal { boot_ms, .. } | Telemetry::ImageCaptured { boot_ms, .. } => {
                *boot_ms = None;
            }
            // Only autopilots are believed in these.
            Telemetry::Heartbeat { .. }
            | Telemetry::SystemStatus { .. }
            | Telemetry::Battery { .. }
            | Telemetry::SystemTime { .. }
            | Telemetry::Gps { .. }
            | Telemetry::GlobalPosition { .. }
            | Telemetry::Attitude { .. }
            | Telemetry::Hud { .. }
            | Telemetry::HighLatency { .. } => {}
        }
        self
    }
}

/// Decodes the messages that say something about a vehicle; `None` for every other message.
pub(crate) fn decode(frame: &Frame<'_>) -> Result<Option<Telemetry>, Reject> {
    match frame.definition.id {
        dialect::HEARTBEAT_DATA::ID => heartbeat(&parse(frame)?).map(Some),
        dialect::SYS_STATUS_DATA::ID => {
            let m: dialect::SYS_STATUS_DATA = parse(frame)?;
            Ok(Some(Telemetry::SystemStatus {
                battery_percent: percent(m.battery_remaining),
            }))
        }
        dialect::BATTERY_STATUS_DATA::ID => {
            let m: dialect::BATTERY_STATUS_DATA = parse(frame)?;
            Ok((m.id == 0).then(|| Telemetry::Battery {
                battery_percent: percent(m.battery_remaining),
            }))
        }
        dialect::SYSTEM_TIME_DATA::ID => {
            let m: dialect::SYSTEM_TIME_DATA = parse(frame)?;
            Ok(Some(Telemetry::SystemTime {
                unix_nanos: nanos_from_unix_usec(m.time_unix_usec),
                boot_ms: m.time_boot_ms,
            }))
        }
        dialect::GPS_RAW_INT_DATA::ID => gps(&parse(frame)?).map(Some),
        dialect::GLOBAL_POSITION_INT_DATA::ID => global_position(&parse(frame)?).map(Some),
        dialect::ATTITUDE_DATA::ID => {
            let m: dialect::ATTITUDE_DATA = parse(frame)?;
            Ok(Some(Telemetry::Attitude {
                boot_ms: m.time_boot_ms,
                attitude: attitude_from_degrees(
                    f64::from(m.roll).to_degrees(),
                    f64::from(m.pitch).to_degrees(),
                    f64::from(m.yaw).to_degrees(),
                )?,
            }))
        }
        dialect::ATTITUDE_QUATERNION_DATA::ID => {
            let m: dialect::ATTITUDE_QUATERNION_DATA = parse(frame)?;
            Ok(Some(Telemetry::Attitude {
                boot_ms: m.time_boot_ms,
                attitude: attitude_from_quaternion([m.q1, m.q2, m.q3, m.q4])
                    .ok_or(Reject::OutOfRange)?,
            }))
        }
        dialect::VFR_HUD_DATA::ID => {
            let m: dialect::VFR_HUD_DATA = parse(frame)?;
            Ok(Some(Telemetry::Hud {
                ground_speed_mps: within(0.0..=MAX_SPEED_MPS, m.groundspeed)?,
                heading_deg: (0..=360)
                    .contains(&m.heading)
                    .then(|| wrap_360(f64::from(m.heading))),
                altitude_m: within(-MAX_ALTITUDE_M..=MAX_ALTITUDE_M, m.alt)?,
            }))
        }
        dialect::HIGH_LATENCY2_DATA::ID => high_latency(&parse(frame)?).map(Some),
        MOUNT_ID => Ok(mount(frame.component_id, &parse(frame)?)),
        dialect::GIMBAL_DEVICE_ATTITUDE_STATUS_DATA::ID => {
            Ok(gimbal(frame.component_id, &parse(frame)?))
        }
        dialect::CAMERA_IMAGE_CAPTURED_DATA::ID => image_captured(&parse(frame)?),
        _ => Ok(None),
    }
}

fn parse<M: MessageData>(frame: &Frame<'_>) -> Result<M, Reject> {
    let version = match frame.version {
        Version::V1 => MavlinkVersion::V1,
        Version::V2 => MavlinkVersion::V2,
    };
    let deser = |payload: &[u8]| M::deser(version, payload);
    let parsed = match deser(frame.payload) {
        Err(ParserError::InvalidEnum { .. }) => without_new_values(frame, deser),
        parsed => parsed,
    };
    parsed.map_err(|error| match error {
        ParserError::InvalidEnum { .. } => Reject::UnknownEnumValue,
        ParserError::UnknownMessage { .. } => Reject::UnknownMessage,
        ParserError::InvalidPayloadSize { .. } | ParserError::BytesError(_) => Reject::Truncated,
    })
}

/// The same message with a value that is newer than the dialect taken for 0, which is "generic", "unknown" or
/// "none": it costs that field and not the message.
fn without_new_values<M>(
    frame: &Frame<'_>,
    deser: impl Fn(&[u8]) -> Result<M, ParserError>,
) -> Result<M, ParserError> {
    /// Where the one-byte enumerations of a payload are.
    const ENUMERATIONS: [(u32, &[usize]); 4] = [
        // Type, autopilot, status.
        (dialect::HEARTBEAT_DATA::ID, &[4, 5, 7]),
        // Fix type.
        (dialect::GPS_RAW_INT_DATA::ID, &[28]),
        // Function, type, charge state, mode.
        (dialect::BATTERY_STATUS_DATA::ID, &[33, 34, 40, 49]),
        // Type, autopilot.
        (dialect::HIGH_LATENCY2_DATA::ID, &[24, 25]),
    ];
    let id = frame.definition.id;
    let places = ENUMERATIONS.iter().find(|(known, _)| *known == id);
    let mut payload = frame.payload.to_vec();
    let mut parsed = deser(&payload);
    for &place in places.map_or(&[][..], |(_, places)| *places) {
        let Some(byte) = payload.get_mut(place) else {
            break;
        };
        let sent = std::mem::take(byte);
        let without = deser(&payload);
        // One that was known keeps its value.
        let was_new = match (&parsed, &without) {
            (
                Err(ParserError::InvalidEnum { enum_type: a, .. }),
                Err(ParserError::InvalidEnum { enum_type: b, .. }),
            ) => a != b,
            (_, without) => without.is_ok(),
        };
        if was_new {
            parsed = without;
            if parsed.is_ok() {
                break;
            }
        } else {
            payload[place] = sent;
        }
    }
    parsed
}

/// Types of what is no vehicle: it is carried by one, or watches them.
const PARTS_OF_A_VEHICLE: [dialect::MavType; 17] = {
    use dialect::MavType::*;
    [
        MAV_TYPE_ANTENNA_TRACKER,
        MAV_TYPE_GCS,
        MAV_TYPE_ONBOARD_CONTROLLER,
        MAV_TYPE_GIMBAL,
        MAV_TYPE_ADSB,
        MAV_TYPE_CAMERA,
        MAV_TYPE_CHARGING_STATION,
        MAV_TYPE_FLARM,
        MAV_TYPE_SERVO,
        MAV_TYPE_ODID,
        MAV_TYPE_BATTERY,
        MAV_TYPE_PARACHUTE,
        MAV_TYPE_LOG,
        MAV_TYPE_OSD,
        MAV_TYPE_IMU,
        MAV_TYPE_GPS,
        MAV_TYPE_WINCH,
    ]
};

fn heartbeat(m: &dialect::HEARTBEAT_DATA) -> Result<Telemetry, Reject> {
    use dialect::{MavAutopilot, MavModeFlag};
    Ok(Telemetry::Heartbeat {
        is_vehicle: m.autopilot != MavAutopilot::MAV_AUTOPILOT_INVALID
            && !PARTS_OF_A_VEHICLE.contains(&m.mavtype),
        flight_mode: flight_mode(m),
        armed: m
            .base_mode
            .contains(MavModeFlag::MAV_MODE_FLAG_SAFETY_ARMED),
        simulated: m.base_mode.contains(MavModeFlag::MAV_MODE_FLAG_HIL_ENABLED),
    })
}

fn gps(m: &dialect::GPS_RAW_INT_DATA) -> Result<Telemetry, Reject> {
    use dialect::GpsFixType;
    let (fix, altitude_mm) = match m.fix_type {
        GpsFixType::GPS_FIX_TYPE_NO_GPS | GpsFixType::GPS_FIX_TYPE_NO_FIX => (false, None),
        // Two dimensions are all that is known.
        GpsFixType::GPS_FIX_TYPE_2D_FIX => (true, None),
        GpsFixType::GPS_FIX_TYPE_3D_FIX
        | GpsFixType::GPS_FIX_TYPE_DGPS
        | GpsFixType::GPS_FIX_TYPE_RTK_FLOAT
        | GpsFixType::GPS_FIX_TYPE_RTK_FIXED
        | GpsFixType::GPS_FIX_TYPE_STATIC
        | GpsFixType::GPS_FIX_TYPE_PPP => (true, Some(m.alt)),
    };
    // Without a fix the fields hold whatever was last there: not looked at.
    let position = if fix {
        place(m.lat, m.lon, altitude_mm)?
    } else {
        None
    };
    Ok(Telemetry::Gps {
        fix,
        position,
        ground_speed_mps: (fix && m.vel != u16::MAX).then(|| f64::from(m.vel) / 100.0),
    })
}

fn global_position(m: &dialect::GLOBAL_POSITION_INT_DATA) -> Result<Telemetry, Reject> {
    Ok(Telemetry::GlobalPosition {
        boot_ms: m.time_boot_ms,
        position: place(m.lat, m.lon, Some(m.alt))?,
        relative_altitude_m: f64::from(m.relative_alt) / 1000.0,
        velocity: Velocity {
            north_mps: f64::from(m.vx) / 100.0,
            east_mps: f64::from(m.vy) / 100.0,
            down_mps: f64::from(m.vz) / 100.0,
        },
        heading_deg: (m.hdg <= 36_000).then(|| wrap_360(f64::from(m.hdg) / 100.0)),
    })
}

/// HIGH_LATENCY2: altitude in metres, heading in two degrees, speed in a fifth of a metre per second.
fn high_latency(m: &dialect::HIGH_LATENCY2_DATA) -> Result<Telemetry, Reject> {
    use dialect::{MavAutopilot, MavModeFlag};
    // Two bytes of it are sent: ArduPilot's number, or PX4's upper half.
    let custom_mode = match m.autopilot == MavAutopilot::MAV_AUTOPILOT_PX4 {
        true => u32::from(m.custom_mode) << 16,
        false => u32::from(m.custom_mode),
    };
    let mode = dialect::HEARTBEAT_DATA {
        custom_mode,
        mavtype: m.mavtype,
        autopilot: m.autopilot,
        base_mode: MavModeFlag::MAV_MODE_FLAG_CUSTOM_MODE_ENABLED,
        ..dialect::HEARTBEAT_DATA::default()
    };
    let altitude_mm = i32::from(m.altitude) * 1_000;
    Ok(Telemetry::HighLatency {
        position: place(m.latitude, m.longitude, Some(altitude_mm))?,
        ground_speed_mps: f64::from(m.groundspeed) / 5.0,
        heading_deg: (m.heading <= 180).then(|| wrap_360(f64::from(m.heading) * 2.0)),
        battery_percent: percent(m.battery),
        flight_mode: flight_mode(&mode),
    })
}

#[expect(deprecated, reason = "gimbals in the field still send it")]
fn mount(component_id: u8, m: &Mount) -> Option<Telemetry> {
    let [roll, pitch, yaw] = [m.roll, m.pitch, m.yaw].map(f64::from);
    // NaN is how the protocol says that an axis is not known: then the camera's attitude is not either.
    let attitude = attitude_from_degrees(roll, pitch, yaw).ok()?;
    Some(Telemetry::Gimbal {
        component_id,
        boot_ms: Some(m.time_boot_ms),
        attitude,
        yaw_frame: YawFrame::Vehicle,
    })
}

fn gimbal(component_id: u8, m: &dialect::GIMBAL_DEVICE_ATTITUDE_STATUS_DATA) -> Option<Telemetry> {
    use dialect::GimbalDeviceFlags as Flags;
    let yaw_frame = if m
        .flags
        .contains(Flags::GIMBAL_DEVICE_FLAGS_YAW_IN_EARTH_FRAME)
    {
        YawFrame::Earth
    } else if m
        .flags
        .contains(Flags::GIMBAL_DEVICE_FLAGS_YAW_IN_VEHICLE_FRAME)
    {
        YawFrame::Vehicle
    } else if m.flags.contains(Flags::GIMBAL_DEVICE_FLAGS_YAW_LOCK) {
        // Senders older than the two frame flags: a locked yaw was meant in the earth frame.
        YawFrame::Earth
    } else {
        YawFrame::Vehicle
    };
    Some(Telemetry::Gimbal {
        component_id,
        boot_ms: Some(m.time_boot_ms),
        attitude: attitude_from_quaternion(m.q)?,
        yaw_frame,
    })
}

fn image_captured(m: &dialect::CAMERA_IMAGE_CAPTURED_DATA) -> Result<Option<Telemetry>, Reject> {
    if m.capture_result != dialect::MavBool::MAV_BOOL_TRUE {
        return Ok(None);
    }
    Ok(Some(Telemetry::ImageCaptured {
        unix_nanos: nanos_from_unix_usec(m.time_utc),
        boot_ms: Some(m.time_boot_ms),
        position: place(m.lat, m.lon, Some(m.alt))?,
        relative_altitude_m: f64::from(m.relative_alt) / 1000.0,
        attitude: attitude_from_quaternion(m.q),
    }))
}

fn percent(remaining: i8) -> Option<f64> {
    (0..=100).contains(&remaining).then(|| f64::from(remaining))
}

/// A speed beyond this is damage, not a measurement.
pub(crate) const MAX_SPEED_MPS: f64 = 10_000.0;
/// An altitude beyond this, up or down, is damage, not a measurement.
pub(crate) const MAX_ALTITUDE_M: f64 = 1_000_000.0;
/// Senders count angles to 180 or 360; beyond two turns it is no angle any more.
const MAX_ANGLE_DEG: f64 = 720.0;

fn within(range: RangeInclusive<f64>, value: f32) -> Result<f64, Reject> {
    let value = f64::from(value);
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(Reject::OutOfRange)
    }
}

/// 2015-01-01: anything earlier is a vehicle that counts from its start.
const EARLIEST_UNIX_USEC: u64 = 1_420_070_400_000_000;

fn nanos_from_unix_usec(usec: u64) -> Option<i64> {
    if usec < EARLIEST_UNIX_USEC {
        return None;
    }
    i64::try_from(usec).ok()?.checked_mul(1_000)
}

fn place(lat_e7: i32, lon_e7: i32, alt_mm: Option<i32>) -> Result<Option<Position>, Reject> {
    if lat_e7 == i32::MAX || lon_e7 == i32::MAX {
        return Ok(None);
    }
    if !(-900_000_000..=900_000_000).contains(&lat_e7) {
        return Err(Reject::InvalidLatitude);
    }
    if !(-1_800_000_000..=1_800_000_000).contains(&lon_e7) {
        return Err(Reject::InvalidLongitude);
    }
    Ok(Some(Position {
        latitude_deg: f64::from(lat_e7) / 1e7,
        longitude_deg: f64::from(lon_e7) / 1e7,
        altitude_m: alt_mm.map(|mm| f64::from(mm) / 1000.0),
    }))
}

/// The same direction in 0 to 360, 360 excluded.
pub(crate) fn wrap_360(degrees: f64) -> f64 {
    let wrapped = degrees.rem_euclid(360.0);
    // A tiny negative angle rounds up to 360.
    if wrapped < 360.0 { wrapped } else { 0.0 }
}

/// The same direction in -180 to 180, 180 excluded.
pub(crate) fn wrap_180(degrees: f64) -> f64 {
    wrap_360(degrees + 180.0) - 180.0
}

fn attitude_from_degrees(roll: f64, pitch: f64, yaw: f64) -> Result<Attitude, Reject> {
    if [roll, pitch, yaw]
        .iter()
        .any(|angle| angle.is_nan() || angle.abs() > MAX_ANGLE_DEG)
    {
        return Err(Reject::OutOfRange);
    }
    Ok(Attitude {
        roll_deg: wrap_180(roll),
        pitch_deg: wrap_180(pitch),
        yaw_deg: wrap_360(yaw),
    })
}

/// Z-Y-X angles of a quaternion (w first); `None` when it is not a rotation.
///
/// Looking straight up or down, roll and yaw turn about the same axis: all of it is called yaw then.
fn attitude_from_quaternion(q: [f32; 4]) -> Option<Attitude> {
    let [w, x, y, z] = q.map(f64::from);
    let norm = (w * w + x * x + y * y + z * z).sqrt();
    if !norm.is_finite() || (norm - 1.0).abs() > 0.1 {
        return None;
    }
    let [w, x, y, z] = [w, x, y, z].map(|part| part / norm);
    let sin_pitch = (2.0 * (w * y - z * x)).clamp(-1.0, 1.0);
    // Below this cosine the two remaining angles are noise.
    const STRAIGHT: f64 = 0.999_999;
    let (roll, yaw) = if sin_pitch.abs() > STRAIGHT {
        (0.0, -2.0 * sin_pitch.signum() * x.atan2(w))
    } else {
        (
            (2.0 * (w * x + y * z)).atan2(1.0 - 2.0 * (x * x + y * y)),
            (2.0 * (w * z + x * y)).atan2(1.0 - 2.0 * (y * y + z * z)),
        )
    };
    attitude_from_degrees(
        roll.to_degrees(),
        sin_pitch.asin().to_degrees(),
        yaw.to_degrees(),
    )
    .ok()
}

#[cfg(test)]
mod tests;
