//! What readers see: the shapes of JSON answers and events.
//!
//! Degrees, metres, milliseconds since the Unix epoch. What is unknown is `null`, never 0.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::clients::Client;
use sovereign_model::{SensorId, Timestamp};

pub(crate) fn unix_ms(time: Timestamp) -> i64 {
    unix_ms_from_nanos(time.as_unix_nanos())
}

pub(crate) fn unix_ms_from_nanos(nanos: i64) -> i64 {
    nanos.div_euclid(1_000_000)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a duration beyond 104 days loses nanoseconds, which nobody reads"
)]
pub(crate) fn ms_from_nanos(nanos: i64) -> f64 {
    nanos as f64 / 1e6
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Vehicle {
    pub(crate) vehicle_id: String,
    pub(crate) observed_unix_ms: i64,
    pub(crate) latitude: Option<f64>,
    pub(crate) longitude: Option<f64>,
    pub(crate) altitude_m: Option<f64>,
    pub(crate) relative_altitude_m: Option<f64>,
    pub(crate) roll_deg: Option<f64>,
    pub(crate) pitch_deg: Option<f64>,
    pub(crate) yaw_deg: Option<f64>,
    pub(crate) heading_deg: Option<f64>,
    pub(crate) ground_speed_mps: Option<f64>,
    pub(crate) battery_percent: Option<f64>,
    pub(crate) flight_mode: Option<String>,
    pub(crate) armed: Option<bool>,
    pub(crate) source: String,
    pub(crate) confidence: f64,
    pub(crate) sensor_health: String,
    pub(crate) link: Option<Link>,
    pub(crate) simulated: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Link {
    pub(crate) messages: u64,
    pub(crate) lost: u64,
    pub(crate) signed: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Phone {
    pub(crate) client_id: String,
    pub(crate) device_model: Option<String>,
    pub(crate) streams: Vec<String>,
    pub(crate) last_seen_unix_ms: Option<i64>,
    pub(crate) latitude: Option<f64>,
    pub(crate) longitude: Option<f64>,
    pub(crate) altitude_m: Option<f64>,
    pub(crate) accuracy_m: Option<f64>,
    pub(crate) heading_deg: Option<f64>,
    pub(crate) position_unix_ms: Option<i64>,
    pub(crate) accepted: u64,
    pub(crate) simulated: bool,
}

impl Phone {
    pub(crate) fn from_client<L>(id: &SensorId, client: &Client<L>) -> Self {
        let place = client.place.map(|(place, _)| place);
        let position = place.and_then(|place| place.position);
        let announcement = &client.announcement;
        Self {
            client_id: id.to_string(),
            device_model: non_empty(announcement.device_model.clone()),
            streams: announcement.streams.clone(),
            last_seen_unix_ms: client.last_seen.map(unix_ms),
            latitude: position.map(|at| at.latitude_deg),
            longitude: position.map(|at| at.longitude_deg),
            altitude_m: position.and_then(|at| at.altitude_m),
            accuracy_m: place.and_then(|place| place.accuracy_m),
            heading_deg: place.and_then(|place| place.heading_deg),
            position_unix_ms: client.place.map(|(_, observed)| unix_ms(observed)),
            accepted: client.accepted,
            simulated: client.simulated,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct CameraPlace {
    pub(crate) latitude: Option<f64>,
    pub(crate) longitude: Option<f64>,
    pub(crate) altitude_m: Option<f64>,
    pub(crate) height_above_ground_m: Option<f64>,
    pub(crate) heading_deg: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Pose {
    pub(crate) sensor_id: String,
    pub(crate) observed_unix_ms: i64,
    pub(crate) state: &'static str,
    #[serde(flatten)]
    pub(crate) place: CameraPlace,
    pub(crate) source: Option<&'static str>,
    pub(crate) frame_id: Option<String>,
    pub(crate) simulated: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Keyframe {
    pub(crate) frame_id: String,
    pub(crate) sensor_id: String,
    pub(crate) captured_unix_ms: Option<i64>,
    pub(crate) received_unix_ms: i64,
    pub(crate) state: &'static str,
    #[serde(flatten)]
    pub(crate) place: CameraPlace,
    pub(crate) source: Option<&'static str>,
    pub(crate) reason: Option<String>,
    pub(crate) footprint: Vec<[f64; 2]>,
    pub(crate) simulated: bool,
}

/// The newest keyframes, or those with a verdict since a position.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Keyframes {
    /// The position that these come after; `null` for the newest.
    pub(crate) after: Option<u64>,
    pub(crate) position: u64,
    pub(crate) keyframes: Vec<Keyframe>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct TileChange {
    pub(crate) layer: String,
    pub(crate) sequence: u64,
    pub(crate) tiles: Vec<[u32; 3]>,
    pub(crate) committed_unix_ms: i64,
    pub(crate) latency_ms: f64,
    pub(crate) frames: Vec<PaintedFrame>,
    pub(crate) simulated: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PaintedFrame {
    pub(crate) frame_id: String,
    pub(crate) sensor_id: String,
    pub(crate) revision: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) frame_id: String,
    pub(crate) duplicate: bool,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum MeshNews {
    Tile {
        peer_id: String,
        layer: String,
        sequence: u64,
        tiles: usize,
        simulated: bool,
    },
    Message {
        peer_id: String,
        topic: String,
        bytes: usize,
        published_unix_ms: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PaintStats {
    pub(crate) frames_painted: u64,
    pub(crate) frames_refused: BTreeMap<String, u64>,
    pub(crate) tiles_written: u64,
    pub(crate) latency: Option<Latency>,
    /// Since when these count; absent when the service does not say.
    pub(crate) since_unix_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) frames: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct LatencyNews {
    pub(crate) frames_painted: u64,
    pub(crate) tiles_written: u64,
    #[serde(flatten)]
    pub(crate) latency: Latency,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct DroneStats {
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
    pub(crate) active_vehicles: u64,
    pub(crate) accepted_by_type: BTreeMap<String, u64>,
    pub(crate) rejected_by_reason: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) min_zoom: u32,
    pub(crate) max_zoom: u32,
    /// West, south, east, north; absent for an empty layer.
    pub(crate) bounds: Option<[f64; 4]>,
    /// Longitude, latitude and zoom where there is content; absent for an empty layer.
    pub(crate) centre: Option<(f64, f64, u32)>,
    pub(crate) tiles: u64,
    pub(crate) last_change: u64,
    pub(crate) simulated: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Mesh {
    pub(crate) node: MeshNode,
    pub(crate) peers: Vec<MeshPeer>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct MeshNode {
    pub(crate) peer_id: String,
    pub(crate) node_id: String,
    pub(crate) network: String,
    pub(crate) listen_addrs: Vec<String>,
    pub(crate) topics: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct MeshPeer {
    pub(crate) peer_id: String,
    pub(crate) address: String,
    pub(crate) transport: String,
    pub(crate) topics: Vec<String>,
    pub(crate) agent: Option<String>,
}

pub(crate) fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
