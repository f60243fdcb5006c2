//! Messages of the contract, and what phones say and readers see of them.

use bytes::Bytes;
use futures::{Stream, stream};
use sovereign_model::geo::TileCoord;
use sovereign_model::{SensorId, Timestamp};
use sovereign_objects::StoredPicture;
use sovereign_proto::drone::v1 as drone;
use sovereign_proto::geo::v1 as geo;
use sovereign_proto::mesh::v1 as mesh;
use sovereign_proto::mobile::v1 as mobile;
pub(crate) use sovereign_proto::mobile::v1::Sample;
use sovereign_proto::slam::v1 as slam;
use sovereign_proto::tile::v1 as tile;

use crate::domain::capture::{DroneCapture, PictureNote};
use crate::domain::frame::{Place, Stream as PhoneStream};
use crate::views::{
    CameraPlace, DroneStats, Keyframe, Latency, Layer, Link, MeshNews, MeshNode, MeshPeer,
    PaintStats, PaintedFrame, Pose, TileChange, Vehicle, ms_from_nanos, non_empty,
    unix_ms_from_nanos,
};

/// A camera whose axis is further below the horizon than this (sine) looks down.
const LOOKS_DOWN: f64 = 0.707;

pub(crate) fn vehicle(state: drone::VehicleState) -> Vehicle {
    Vehicle {
        vehicle_id: state.vehicle_id,
        observed_unix_ms: unix_ms_from_nanos(state.observed_unix_nanos),
        latitude: state.position.map(|at| at.latitude_deg),
        longitude: state.position.map(|at| at.longitude_deg),
        altitude_m: state.position.and_then(|at| at.altitude_m),
        relative_altitude_m: state.relative_altitude_m,
        roll_deg: state.attitude.map(|attitude| attitude.roll_deg),
        pitch_deg: state.attitude.map(|attitude| attitude.pitch_deg),
        yaw_deg: state.attitude.map(|attitude| attitude.yaw_deg),
        heading_deg: state.heading_deg,
        ground_speed_mps: state.ground_speed_mps,
        battery_percent: state.battery_percent,
        flight_mode: non_empty(state.flight_mode),
        armed: state.armed,
        source: state.source,
        confidence: state.confidence,
        sensor_health: state.sensor_health,
        link: state.link.map(|link| Link {
            messages: link.messages,
            lost: link.lost,
            signed: link.signed,
        }),
        simulated: state.simulated,
    }
}

pub(crate) fn pose(event: slam::PoseEvent) -> Pose {
    Pose {
        state: tracking(event.state()),
        source: source(event.source()),
        place: event.pose.as_ref().map(camera_place).unwrap_or_default(),
        sensor_id: event.sensor_id,
        observed_unix_ms: unix_ms_from_nanos(event.observed_unix_nanos),
        frame_id: non_empty(event.frame_id),
        simulated: event.simulated,
    }
}

pub(crate) fn keyframe(keyframe: slam::Keyframe) -> Keyframe {
    Keyframe {
        state: tracking(keyframe.state()),
        source: source(keyframe.source()),
        place: keyframe
            .pose
            .or_else(|| position_alone(&keyframe))
            .as_ref()
            .map(camera_place)
            .unwrap_or_default(),
        frame_id: keyframe.frame_id,
        sensor_id: keyframe.sensor_id,
        captured_unix_ms: Some(keyframe.captured_unix_nanos)
            .filter(|nanos| *nanos != 0)
            .map(unix_ms_from_nanos),
        received_unix_ms: unix_ms_from_nanos(keyframe.received_unix_nanos),
        reason: non_empty(keyframe.reason),
        footprint: keyframe
            .footprint
            .iter()
            .map(|corner| [corner.longitude_deg, corner.latitude_deg])
            .collect(),
        simulated: keyframe.simulated,
    }
}

pub(crate) fn tile_change(changed: tile::TileChanged) -> Option<TileChange> {
    let change = changed.change?;
    let frames = change.frames.into_iter().map(|frame| PaintedFrame {
        frame_id: frame.frame_id,
        sensor_id: frame.sensor_id,
        revision: frame.revision,
    });
    Some(TileChange {
        layer: change.layer,
        sequence: change.sequence,
        tiles: change
            .tiles
            .iter()
            .filter_map(|tile| tile.coord)
            .map(|coord| [coord.z, coord.x, coord.y])
            .collect(),
        committed_unix_ms: unix_ms_from_nanos(change.committed_unix_nanos),
        latency_ms: ms_from_nanos(changed.latency_nanos),
        frames: frames.collect(),
        simulated: change.simulated,
    })
}

pub(crate) fn mesh_tile(news: mesh::PeerTileChange) -> Option<MeshNews> {
    let change = news.change?;
    Some(MeshNews::Tile {
        peer_id: news.peer_id,
        layer: change.layer,
        sequence: change.sequence,
        tiles: change.tiles.len(),
        simulated: change.simulated,
    })
}

pub(crate) fn mesh_message(message: mesh::MeshMessage) -> MeshNews {
    MeshNews::Message {
        peer_id: message.origin_peer_id,
        topic: message.topic,
        bytes: message.payload.len(),
        published_unix_ms: unix_ms_from_nanos(message.published_unix_nanos),
    }
}

pub(crate) fn paint_stats(stats: tile::GetPaintStatsResponse) -> PaintStats {
    PaintStats {
        frames_painted: stats.frames_painted,
        frames_refused: stats.frames_refused.into_iter().collect(),
        tiles_written: stats.tiles_written,
        latency: stats.latency.map(|latency| Latency {
            frames: latency.count,
            p50_ms: ms_from_nanos(latency.p50_nanos),
            p99_ms: ms_from_nanos(latency.p99_nanos),
        }),
        since_unix_ms: Some(stats.since_unix_nanos)
            .filter(|nanos| *nanos != 0)
            .map(unix_ms_from_nanos),
    }
}

pub(crate) fn drone_stats(stats: drone::GetIngestStatsResponse) -> DroneStats {
    DroneStats {
        datagrams: stats.datagrams,
        bytes: stats.bytes,
        active_vehicles: stats.active_vehicles,
        accepted_by_type: stats.accepted_by_type.into_iter().collect(),
        rejected_by_reason: stats.rejected_by_reason.into_iter().collect(),
    }
}

pub(crate) fn layer(layer: tile::Layer) -> Layer {
    Layer {
        name: layer.name,
        min_zoom: layer.min_zoom,
        max_zoom: layer.max_zoom,
        bounds: layer.bounds.map(|bounds| {
            [
                bounds.west_deg,
                bounds.south_deg,
                bounds.east_deg,
                bounds.north_deg,
            ]
        }),
        centre: layer.centre.as_ref().and_then(|coord| {
            let coord = TileCoord::try_from(coord).ok()?;
            let bounds = coord.bounds();
            let longitude = f64::midpoint(bounds.west_deg, bounds.east_deg);
            let latitude = f64::midpoint(bounds.south_deg, bounds.north_deg);
            Some((longitude, latitude, coord.z().into()))
        }),
        tiles: layer.tiles,
        last_change: layer.last_change,
        simulated: layer.simulated,
    }
}

pub(crate) fn mesh_node(node: mesh::GetNodeResponse) -> MeshNode {
    MeshNode {
        peer_id: node.peer_id,
        node_id: node.node_id,
        network: node.network,
        listen_addrs: node.listen_addrs,
        topics: node.topics,
    }
}

pub(crate) fn mesh_peer(peer: mesh::Peer) -> MeshPeer {
    MeshPeer {
        peer_id: peer.peer_id,
        address: peer.address,
        transport: peer.transport,
        topics: peer.topics,
        agent: non_empty(peer.agent),
    }
}

fn tracking(state: geo::TrackingState) -> &'static str {
    match state {
        // Not set is refused by every reader: nothing is known about the pose.
        geo::TrackingState::Unspecified | geo::TrackingState::Lost => "lost",
        geo::TrackingState::Initializing => "initializing",
        geo::TrackingState::Tracking => "tracking",
    }
}

fn source(source: slam::PoseSource) -> Option<&'static str> {
    match source {
        slam::PoseSource::Unspecified => None,
        slam::PoseSource::ImageMetadata => Some("image_metadata"),
        slam::PoseSource::Telemetry => Some("telemetry"),
        slam::PoseSource::PositionOnly => Some("position_only"),
        slam::PoseSource::Assumed => Some("assumed"),
    }
}

/// A frame that is nothing but a place, as one that waits for more.
fn position_alone(keyframe: &slam::Keyframe) -> Option<geo::Pose> {
    keyframe.position.map(|position| geo::Pose {
        position: Some(position),
        ..geo::Pose::default()
    })
}

fn camera_place(pose: &geo::Pose) -> CameraPlace {
    CameraPlace {
        latitude: pose.position.map(|at| at.latitude_deg),
        longitude: pose.position.map(|at| at.longitude_deg),
        altitude_m: pose.position.and_then(|at| at.altitude_m),
        height_above_ground_m: pose.height_above_ground_m,
        heading_deg: pose.enu_from_camera.as_ref().and_then(heading_deg),
    }
}

/// Degrees clockwise from north of the top of the picture for a camera that looks down, of its optical
/// axis otherwise; `None` when the rotation is none.
fn heading_deg(enu_from_camera: &geo::Quaternion) -> Option<f64> {
    let geo::Quaternion { w, x, y, z } = *enu_from_camera;
    let norm = w * w + x * x + y * y + z * z;
    if !(0.5..2.0).contains(&norm) {
        return None;
    }
    // Third column of the rotation: the optical axis. Minus the second: the top of the picture.
    let axis = [
        2.0 * (x * z + w * y),
        2.0 * (y * z - w * x),
        norm - 2.0 * (x * x + y * y),
    ];
    let top = [-2.0 * (x * y - w * z), -(norm - 2.0 * (x * x + z * z))];
    let (east, north) = if axis[2] < -LOOKS_DOWN * norm {
        (top[0], top[1])
    } else {
        (axis[0], axis[1])
    };
    Some(east.atan2(north).to_degrees().rem_euclid(360.0))
}

pub(crate) fn capture_from_parts(
    frame_id: &str,
    client: &SensorId,
    note: &PictureNote,
    picture: &StoredPicture,
    captured: Timestamp,
    received: Timestamp,
) -> geo::Capture {
    let header = &picture.header;
    geo::Capture {
        frame_id: frame_id.to_owned(),
        sensor_id: client.to_string(),
        captured_unix_nanos: captured.as_unix_nanos(),
        received_unix_nanos: received.as_unix_nanos(),
        image_digest: Bytes::copy_from_slice(picture.object.digest.as_bytes()),
        media_type: "image/jpeg".to_owned(),
        telemetry: note.place.position.map(|position| geo::TelemetryFix {
            position: Some(position.into()),
            ..geo::TelemetryFix::default()
        }),
        intrinsics: None,
        mount_pitch_deg: None,
        simulated: note.simulated,
        size_bytes: picture.object.size_bytes,
        picture: Some(geo::PictureFacts {
            width_px: header.width_px,
            height_px: header.height_px,
            camera_model: header.camera_name().unwrap_or_default(),
        }),
    }
}

pub(crate) fn sample_from_parts(
    client: &SensorId,
    stream: PhoneStream,
    observed: Timestamp,
    received: Timestamp,
    place: Place,
    simulated: bool,
) -> mobile::Sample {
    let kind = match stream {
        // Pictures travel as captures.
        PhoneStream::Camera => mobile::SampleType::Unspecified,
        PhoneStream::Gps => mobile::SampleType::Gps,
        PhoneStream::Accelerometer => mobile::SampleType::Accelerometer,
        PhoneStream::Gyroscope => mobile::SampleType::Gyroscope,
        PhoneStream::Magnetometer => mobile::SampleType::Magnetometer,
        PhoneStream::Barometer => mobile::SampleType::Barometer,
    };
    let notes = [
        ("accuracy_m", place.accuracy_m),
        ("heading_deg", place.heading_deg),
    ];
    mobile::Sample {
        client_id: client.to_string(),
        r#type: kind.into(),
        observed_unix_nanos: observed.as_unix_nanos(),
        received_unix_nanos: received.as_unix_nanos(),
        position: place.position.map(Into::into),
        values: notes
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect(),
        simulated,
    }
}

pub(crate) fn header_from_capture(capture: DroneCapture) -> drone::SubmitCaptureRequest {
    let header = drone::CaptureHeader {
        vehicle_id: capture.vehicle_id,
        captured_unix_nanos: capture.captured_unix_nanos,
        intrinsics: capture.calibration.map(Into::into),
        mount_pitch_deg: capture.mount_pitch_deg,
        simulated: capture.simulated,
    };
    drone::SubmitCaptureRequest {
        part: Some(drone::submit_capture_request::Part::Header(header)),
    }
}

pub(crate) fn chunks(mut piece: Bytes) -> impl Stream<Item = drone::SubmitCaptureRequest> {
    const MAX_CHUNK_BYTES: usize = 1 << 20;
    stream::iter(std::iter::from_fn(move || {
        if piece.is_empty() {
            return None;
        }
        let chunk = piece.split_to(piece.len().min(MAX_CHUNK_BYTES));
        Some(drone::SubmitCaptureRequest {
            part: Some(drone::submit_capture_request::Part::Chunk(chunk)),
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(w: f64, x: f64, y: f64, z: f64) -> f64 {
        heading_deg(&geo::Quaternion { w, x, y, z }).unwrap()
    }

    fn assert_near(heading: f64, expected: f64) {
        let difference = (heading - expected + 180.0).rem_euclid(360.0) - 180.0;
        assert!(difference.abs() < 1e-9, "{heading} is not {expected}");
    }

    #[test]
    fn a_camera_that_looks_down_points_where_the_top_of_its_picture_is() {
        let half = std::f64::consts::FRAC_1_SQRT_2;
        // Turned half around east: x east, y (down in the picture) south, z down.
        assert_near(heading(0.0, 1.0, 0.0, 0.0), 0.0);
        // The same, then a quarter turn clockwise as seen from above: the top is east.
        assert_near(heading(0.0, half, -half, 0.0), 90.0);
    }

    #[test]
    fn a_camera_that_looks_ahead_points_where_it_looks() {
        let half = std::f64::consts::FRAC_1_SQRT_2;
        // A quarter turn around east from looking up: looks north or south.
        assert_near(heading(half, -half, 0.0, 0.0), 0.0);
        assert_near(heading(half, half, 0.0, 0.0), 180.0);
        assert_near(heading(half, 0.0, half, 0.0), 90.0);
    }

    #[test]
    fn no_rotation_has_no_heading() {
        assert_eq!(heading_deg(&geo::Quaternion::default()), None);
        let broken = geo::Quaternion {
            w: f64::NAN,
            ..Default::default()
        };
        assert_eq!(heading_deg(&broken), None);
    }

    #[test]
    fn what_was_never_heard_is_not_zero() {
        let vehicle = vehicle(drone::VehicleState {
            vehicle_id: "sys-1".to_owned(),
            ..Default::default()
        });
        let json = serde_json::to_value(vehicle).unwrap();
        for field in [
            "latitude",
            "altitude_m",
            "battery_percent",
            "armed",
            "flight_mode",
            "link",
        ] {
            assert!(json[field].is_null(), "{field}: {json}");
        }
        let keyframe = serde_json::to_value(keyframe(slam::Keyframe::default())).unwrap();
        for field in [
            "latitude",
            "captured_unix_ms",
            "heading_deg",
            "height_above_ground_m",
        ] {
            assert!(keyframe[field].is_null(), "{field}: {keyframe}");
        }
    }
}
