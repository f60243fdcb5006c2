//! State of a vehicle as it is shown.

use std::borrow::Cow;

use sovereign_model::geo::{Attitude, Position};
use sovereign_model::{SensorId, Timestamp};

use super::super::framing::Version;
use super::super::telemetry::Velocity;

/// How a vehicle speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// MAVLink 1.
    Mavlink1,
    /// MAVLink 2.
    Mavlink2,
    /// JSON samples.
    Json,
}

impl Source {
    /// Of a MAVLink vehicle.
    pub fn from_version(version: Version) -> Source {
        match version {
            Version::V1 => Source::Mavlink1,
            Version::V2 => Source::Mavlink2,
        }
    }

    /// As states show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Mavlink1 => "mavlink1",
            Source::Mavlink2 => "mavlink2",
            Source::Json => "av-v1",
        }
    }
}

/// What arrived over the link of a vehicle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Messages accepted.
    pub messages: u64,
    /// Messages missing by sequence number.
    pub lost: u64,
    /// Messages with a verified signature.
    pub signed: u64,
}

/// State of a vehicle at one moment. What was never heard is absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// `sys-<system id>`, or the drone id of the JSON contract.
    pub vehicle_id: SensorId,
    /// Time of the newest part.
    pub observed: Timestamp,
    /// Where.
    pub position: Option<Position>,
    /// Metres above the take-off point.
    pub relative_altitude_m: Option<f64>,
    /// Of the body.
    pub attitude: Option<Attitude>,
    /// Over ground.
    pub velocity: Option<Velocity>,
    /// Over ground.
    pub ground_speed_mps: Option<f64>,
    /// Clockwise from north.
    pub heading_deg: Option<f64>,
    /// 0 to 100.
    pub battery_percent: Option<f64>,
    /// Empty when unknown.
    pub flight_mode: Cow<'static, str>,
    /// How it speaks.
    pub source: Source,
    /// 0 to 1, by what was heard.
    pub confidence: f64,
    /// Motors may turn.
    pub armed: Option<bool>,
    /// The link.
    pub link: LinkCounts,
    /// The sender says that it is a simulation.
    pub simulated: bool,
    /// Health the sender reports.
    pub sensor_health: Cow<'static, str>,
}
