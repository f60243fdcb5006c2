//! JSON samples of the contract `av-v1`: one object a datagram.
//!
//! Unknown fields are ignored, so that newer senders are understood. The confidence a sender claims is
//! never used. `source` is accepted for compatibility and not used either: a state says `av-v1`. Values
//! that cannot be (a battery of 130 %, a negative speed) count as not sent. What the contract requires is
//! checked in this order: version, drone id, times, place, speed, payload; the first failure is the answer.
//! `simulated` is our extension: true for data that no real vehicle sent. What a sender in Go writes for a
//! field that was never set (year 1, exactly zero on both axes) counts as not sent.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use sovereign_model::geo::Position;
use sovereign_model::{SensorId, Timestamp};

use super::reject::Reject;
use super::telemetry::{MAX_ALTITUDE_M, MAX_SPEED_MPS, wrap_360};

pub(crate) const CONTRACT_VERSION: &str = "av-v1";
/// How senders in Go write a time that was never set.
const GO_ZERO_TIME: &str = "0001-01-01T00:00:00Z";
/// Longest flight mode and sensor health kept, in characters; the rest is cut. Control characters are
/// left out: these texts reach terminals.
pub(crate) const MAX_TEXT_CHARS: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) drone_id: SensorId,
    /// When, as the drone says; `None` when it does not.
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) position: Option<Position>,
    /// Clockwise from north.
    pub(crate) heading_deg: Option<f64>,
    pub(crate) ground_speed_mps: Option<f64>,
    /// 0 to 100.
    pub(crate) battery_percent: Option<f64>,
    pub(crate) flight_mode: Option<String>,
    pub(crate) sensor_health: Option<String>,
    pub(crate) image: Option<Vec<u8>>,
    /// x, y, z triples, metres.
    pub(crate) lidar_points: Option<Vec<f32>>,
    pub(crate) simulated: bool,
}

pub(crate) fn looks_like_json(datagram: &[u8]) -> bool {
    json_of(datagram).first() == Some(&b'{')
}

/// Whether a datagram is an object from its first byte to its last, as far as these tell.
pub(crate) fn is_whole_json(datagram: &[u8]) -> bool {
    let json = json_of(datagram);
    json.first() == Some(&b'{') && json.last() == Some(&b'}')
}

/// What a datagram holds without what some senders put around it: a byte-order mark before, zero bytes behind.
fn json_of(datagram: &[u8]) -> &[u8] {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let mut json = datagram.strip_prefix(BYTE_ORDER_MARK).unwrap_or(datagram);
    while let [rest @ .., 0] = json {
        json = rest;
    }
    json.trim_ascii()
}

/// Reads a sample; times and order are judged elsewhere, against the clock and the drone's last sample.
pub(crate) fn parse(datagram: &[u8]) -> Result<Sample, Reject> {
    let wire: Wire<'_> =
        serde_json::from_slice(json_of(datagram)).map_err(|_| Reject::InvalidPayload)?;
    if wire.contract_version.as_deref() != Some(CONTRACT_VERSION) {
        return Err(Reject::UnsupportedContractVersion);
    }
    let drone_id = match wire.drone_id.as_deref() {
        None | Some("") => return Err(Reject::MissingDroneId),
        Some(id) => SensorId::parse(id).map_err(|_| Reject::InvalidDroneId)?,
    };
    if is_reserved(drone_id.as_str()) {
        return Err(Reject::ReservedDroneId);
    }
    let timestamp = match wire.timestamp.as_deref() {
        None | Some(GO_ZERO_TIME) => None,
        Some(text) => Some(time_from_text(text)?),
    };
    let position = position(&wire)?;
    if wire
        .ground_speed_ms
        .is_some_and(|speed| speed > MAX_SPEED_MPS)
    {
        return Err(Reject::InvalidGroundSpeed);
    }
    let image = wire.image_data.as_deref().filter(|text| !text.is_empty());
    let image = image.map(image_from_base64).transpose()?;
    let lidar_points = wire.lidar_points.filter(|points| !points.is_empty());
    let lidar_points = lidar_points.map(triples).transpose()?;
    Ok(Sample {
        drone_id,
        timestamp,
        position,
        heading_deg: wire.heading_degrees.and_then(heading),
        ground_speed_mps: wire.ground_speed_ms.filter(|speed| *speed >= 0.0),
        battery_percent: wire.battery_percent.filter(|p| (0.0..=100.0).contains(p)),
        flight_mode: wire.flight_mode.as_deref().and_then(text),
        sensor_health: wire.sensor_health.as_deref().and_then(text),
        image,
        lidar_points,
        simulated: wire.simulated.unwrap_or(false),
    })
}

/// A heading that is one: senders write -1, 511 or 655.35 for one that they do not know.
fn heading(degrees: f64) -> Option<f64> {
    const UNKNOWN: f64 = -1.0;
    let is_heading = (-180.0..=360.0).contains(&degrees) && degrees != UNKNOWN;
    is_heading.then(|| wrap_360(degrees))
}

/// `sys-` and a digit: the names that MAVLink vehicles get, which nobody may take over JSON.
fn is_reserved(drone_id: &str) -> bool {
    drone_id
        .strip_prefix("sys-")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    contract_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    drone_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    altitude_meters: Option<f64>,
    heading_degrees: Option<f64>,
    ground_speed_ms: Option<f64>,
    battery_percent: Option<f64>,
    #[serde(borrow)]
    flight_mode: Option<Cow<'a, str>>,
    #[serde(borrow)]
    sensor_health: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_data: Option<Cow<'a, str>>,
    lidar_points: Option<Vec<f64>>,
    simulated: Option<bool>,
}

fn time_from_text(text: &str) -> Result<Timestamp, Reject> {
    let time: jiff::Timestamp = text.parse().map_err(|_| Reject::InvalidPayload)?;
    let nanos = i64::try_from(time.as_nanosecond()).map_err(|_| Reject::InvalidPayload)?;
    Ok(Timestamp::from_unix_nanos(nanos))
}

fn position(wire: &Wire<'_>) -> Result<Option<Position>, Reject> {
    if wire
        .altitude_meters
        .is_some_and(|altitude| altitude.abs() > MAX_ALTITUDE_M)
    {
        return Err(Reject::InvalidAltitude);
    }
    let (latitude_deg, longitude_deg) = match (wire.latitude, wire.longitude) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(Reject::InvalidLatitude),
        (Some(_), None) => return Err(Reject::InvalidLongitude),
        (Some(latitude), Some(longitude)) => (latitude, longitude),
    };
    if !(-90.0..=90.0).contains(&latitude_deg) {
        return Err(Reject::InvalidLatitude);
    }
    if !(-180.0..=180.0).contains(&longitude_deg) {
        return Err(Reject::InvalidLongitude);
    }
    let position = Position {
        latitude_deg,
        longitude_deg,
        altitude_m: wire.altitude_meters,
    };
    Ok((!position.is_zero()).then_some(position))
}

fn image_from_base64(text: &str) -> Result<Vec<u8>, Reject> {
    STANDARD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text))
        .map_err(|_| Reject::InvalidImageData)
}

fn triples(points: Vec<f64>) -> Result<Vec<f32>, Reject> {
    if !points.len().is_multiple_of(3) {
        return Err(Reject::InvalidLidarPoints);
    }
    let metres = points.into_iter().map(|metres| {
        let metres = metres as f32;
        metres
            .is_finite()
            .then_some(metres)
            .ok_or(Reject::InvalidLidarPoints)
    });
    metres.collect()
}

fn text(text: &str) -> Option<String> {
    let visible = text.chars().filter(|character| !character.is_control());
    let kept: String = visible.take(MAX_TEXT_CHARS).collect();
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests;
