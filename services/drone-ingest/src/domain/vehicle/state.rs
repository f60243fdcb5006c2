//! State of a vehicle as it is shown.

use std::borrow::Cow;

use sovereign_model::geo::{Attitude, Position};
use sovereign_model::{SensorId, Timestamp};

use super::super::framing::Version;
use super::super::telemetry::Velocity;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Mavlink1,
    Mavlink2,
    Json,
}

impl Source {
    pub(crate) fn from_version(version: Version) -> Source {
        match version {
            Version::V1 => Source::Mavlink1,
            Version::V2 => Source::Mavlink2,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Source::Mavlink1 => "mavlink1",
            Source::Mavlink2 => "mavlink2",
            Source::Json => "av-v1",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkCounts {
    pub(crate) messages: u64,
    pub(crate) lost: u64,
    pub(crate) signed: u64,
}

/// State of a vehicle at one moment. What was never heard is absent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    /// `sys-<system id>`, or the drone id of the JSON contract.
    pub(crate) vehicle_id: SensorId,
    pub(crate) observed: Timestamp,
    pub(crate) position: Option<Position>,
    /// Metres above the take-off point.
    pub(crate) relative_altitude_m: Option<f64>,
    pub(crate) attitude: Option<Attitude>,
    pub(crate) velocity: Option<Velocity>,
    pub(crate) ground_speed_mps: Option<f64>,
    /// Clockwise from north.
    pub(crate) heading_deg: Option<f64>,
    /// 0 to 100.
    pub(crate) battery_percent: Option<f64>,
    pub(crate) flight_mode: Cow<'static, str>,
    pub(crate) source: Source,
    /// 0 to 1, by what was heard.
    pub(crate) confidence: f64,
    pub(crate) armed: Option<bool>,
    pub(crate) link: LinkCounts,
    pub(crate) simulated: bool,
    pub(crate) sensor_health: Cow<'static, str>,
}
