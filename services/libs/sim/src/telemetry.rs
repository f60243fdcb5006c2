//! The autopilot: truth as the MAVLink 2 messages that a multicopter sends.

use std::time::Duration;

use mavlink::dialects::ardupilotmega::{
    ATTITUDE_DATA, GLOBAL_POSITION_INT_DATA, GPS_RAW_INT_DATA, GpsFixType, HEARTBEAT_DATA,
    MavAutopilot, MavMessage, MavModeFlag, MavState, MavType, SYS_STATUS_DATA, SYSTEM_TIME_DATA,
    VFR_HUD_DATA,
};
use mavlink::{MAVLinkV2MessageRaw, MavHeader};

use crate::VehicleTruth;

/// Encodes the telemetry of one vehicle, with its own sequence numbers.
///
/// The heartbeat carries `MAV_MODE_FLAG_HIL_ENABLED`: nobody can take these data for a real flight.
#[derive(Debug)]
pub struct Autopilot {
    system_id: u8,
    sequence: u8,
    last_second: Option<u64>,
    last_quarter: Option<u64>,
}

/// Flying time on one battery, seconds: the reported charge falls evenly over it.
const BATTERY_SECS: f64 = 1800.0;
/// ArduCopter's custom mode for an automatic mission.
const MODE_AUTO: u32 = 3;
const AUTOPILOT_COMPONENT: u8 = 1;

impl Autopilot {
    /// An autopilot with this MAVLink system id.
    pub fn new(system_id: u8) -> Self {
        Self {
            system_id,
            sequence: 0,
            last_second: None,
            last_quarter: None,
        }
    }

    /// Frames due at `elapsed` after boot, in sending order: heartbeat, status, time and GPS once a second,
    /// attitude and position on every call, VFR_HUD four times a second. The heartbeat is the first of all:
    /// nothing of this vehicle is heard before it is known as simulated. `unix` is the time of day.
    pub fn frames(
        &mut self,
        truth: &VehicleTruth,
        elapsed: Duration,
        unix: Duration,
    ) -> Vec<Vec<u8>> {
        let boot_ms = elapsed.as_millis() as u32;
        let mut messages = Vec::new();
        let second = elapsed.as_secs();
        if self.last_second.replace(second) != Some(second) {
            messages.push(heartbeat());
            messages.push(status(elapsed));
            messages.push(MavMessage::SYSTEM_TIME(SYSTEM_TIME_DATA {
                time_unix_usec: unix.as_micros() as u64,
                time_boot_ms: boot_ms,
            }));
            messages.push(gps(truth, unix));
        }
        messages.extend([attitude(truth, boot_ms), position(truth, boot_ms)]);
        let quarter = elapsed.as_millis() as u64 / 250;
        if self.last_quarter.replace(quarter) != Some(quarter) {
            messages.push(hud(truth));
        }
        messages
            .iter()
            .map(|message| self.encode(message))
            .collect()
    }

    fn encode(&mut self, message: &MavMessage) -> Vec<u8> {
        let mut raw = MAVLinkV2MessageRaw::new();
        let header = MavHeader {
            system_id: u32::from(self.system_id),
            component_id: AUTOPILOT_COMPONENT,
            sequence: self.sequence,
        };
        self.sequence = self.sequence.wrapping_add(1);
        raw.serialize_message(header, message);
        raw.raw_bytes().to_vec()
    }
}

fn heartbeat() -> MavMessage {
    MavMessage::HEARTBEAT(HEARTBEAT_DATA {
        custom_mode: MODE_AUTO,
        mavtype: MavType::MAV_TYPE_QUADROTOR,
        autopilot: MavAutopilot::MAV_AUTOPILOT_ARDUPILOTMEGA,
        base_mode: MavModeFlag::MAV_MODE_FLAG_SAFETY_ARMED
            | MavModeFlag::MAV_MODE_FLAG_CUSTOM_MODE_ENABLED
            | MavModeFlag::MAV_MODE_FLAG_AUTO_ENABLED
            | MavModeFlag::MAV_MODE_FLAG_HIL_ENABLED,
        system_status: MavState::MAV_STATE_ACTIVE,
        mavlink_version: 3,
    })
}

fn status(elapsed: Duration) -> MavMessage {
    let used = (elapsed.as_secs_f64() / BATTERY_SECS).fract();
    MavMessage::SYS_STATUS(SYS_STATUS_DATA {
        voltage_battery: (16_800.0 - 2_400.0 * used) as u16,
        current_battery: 1_450,
        battery_remaining: (100.0 * (1.0 - used)) as i8,
        ..SYS_STATUS_DATA::default()
    })
}

fn attitude(truth: &VehicleTruth, time_boot_ms: u32) -> MavMessage {
    MavMessage::ATTITUDE(ATTITUDE_DATA {
        time_boot_ms,
        roll: truth.attitude.roll_deg.to_radians() as f32,
        pitch: truth.attitude.pitch_deg.to_radians() as f32,
        yaw: truth.attitude.yaw_deg.to_radians() as f32,
        ..ATTITUDE_DATA::default()
    })
}

fn position(truth: &VehicleTruth, time_boot_ms: u32) -> MavMessage {
    let [north, east, down] = truth.velocity_ned_mps;
    MavMessage::GLOBAL_POSITION_INT(GLOBAL_POSITION_INT_DATA {
        time_boot_ms,
        lat: degrees_e7(truth.position.latitude_deg),
        lon: degrees_e7(truth.position.longitude_deg),
        alt: (truth.position.altitude_m * 1e3).round() as i32,
        relative_alt: (truth.height_m * 1e3).round() as i32,
        vx: (north * 100.0).round() as i16,
        vy: (east * 100.0).round() as i16,
        vz: (down * 100.0).round() as i16,
        hdg: heading_cdeg(truth),
    })
}

fn hud(truth: &VehicleTruth) -> MavMessage {
    let ground_speed = truth.velocity_ned_mps[0].hypot(truth.velocity_ned_mps[1]);
    MavMessage::VFR_HUD(VFR_HUD_DATA {
        airspeed: ground_speed as f32,
        groundspeed: ground_speed as f32,
        alt: truth.position.altitude_m as f32,
        climb: -truth.velocity_ned_mps[2] as f32,
        heading: (heading_cdeg(truth) / 100) as i16,
        throttle: 46,
    })
}

fn gps(truth: &VehicleTruth, unix: Duration) -> MavMessage {
    MavMessage::GPS_RAW_INT(GPS_RAW_INT_DATA {
        time_usec: unix.as_micros() as u64,
        lat: degrees_e7(truth.position.latitude_deg),
        lon: degrees_e7(truth.position.longitude_deg),
        alt: (truth.position.altitude_m * 1e3).round() as i32,
        eph: 70,
        epv: 110,
        vel: (truth.velocity_ned_mps[0].hypot(truth.velocity_ned_mps[1]) * 100.0) as u16,
        cog: heading_cdeg(truth),
        fix_type: GpsFixType::GPS_FIX_TYPE_RTK_FIXED,
        satellites_visible: 18,
    })
}

fn degrees_e7(degrees: f64) -> i32 {
    (degrees * 1e7).round() as i32
}

fn heading_cdeg(truth: &VehicleTruth) -> u16 {
    (truth.attitude.yaw_deg.rem_euclid(360.0) * 100.0).round() as u16 % 36_000
}
