//! Every subject of the bus: its message, owner, class, and bound.
//!
//! A pattern has at most one `*`, the key: the vehicle, camera, phone or peer that order is promised
//! for. Only the owner publishes; anyone may read. A durable topic keeps what a group has not read yet, and
//! what all have read as long as its class says.

use sovereign_bus::{Class, DurableTopic, LiveTopic};

use crate::{camera, checkpoint, drone, geo, mesh, mobile, round, slam, tile};

/// Frames of fixed cameras. Owner: camera-svc. A late reader sees the two newest.
pub const CAMERA_FRAME: LiveTopic<camera::v1::Frame> = LiveTopic::new("camera.*.frame", 2);
/// Vehicle states. Owner: drone-ingest. A late reader sees the newest of each vehicle.
pub const DRONE_STATE: LiveTopic<drone::v1::VehicleState> = LiveTopic::new("drone.*.state", 1);
/// Pictures and scans from the air, by digest, key: vehicle. Owner: drone-ingest.
pub const DRONE_CAPTURE: DurableTopic<geo::v1::Capture> =
    DurableTopic::new("drone.*.capture", Class::Records);
/// Phone samples, key: phone. Owner: mobile-ingest.
pub const MOBILE_SAMPLE: DurableTopic<mobile::v1::Sample> =
    DurableTopic::new("mobile.*.sample", Class::Samples);
/// Phone pictures, by digest, key: phone. Owner: mobile-ingest.
pub const MOBILE_CAPTURE: DurableTopic<geo::v1::Capture> =
    DurableTopic::new("mobile.*.capture", Class::Records);
/// Poses as they are found. Owner: slam-svc. A late reader sees the newest of each sensor.
pub const SLAM_POSE: LiveTopic<slam::v1::PoseEvent> = LiveTopic::new("slam.*.pose", 1);
/// Verdicts on captures, key: sensor. Owner: slam-svc.
pub const SLAM_KEYFRAME: DurableTopic<slam::v1::Keyframe> =
    DurableTopic::new("slam.*.keyframe", Class::Records);
/// Hint that tiles changed; the truth is `Tiles.ListChanges`. Owner: tile-svc.
pub const TILE_CHANGED: LiveTopic<tile::v1::TileChanged> = LiveTopic::new("tile.changed", 256);
/// Frames that could not be painted, key: sensor. Owner: tile-svc.
pub const TILE_REFUSED: DurableTopic<tile::v1::FrameRefused> =
    DurableTopic::new("tile.*.refused", Class::Records);
/// Hint that a checkpoint was stored; the truth is `Checkpoints.ListChanges`. Owner: checkpoint-svc.
pub const CHECKPOINT_STORED: LiveTopic<checkpoint::v1::CheckpointChange> =
    LiveTopic::new("checkpoint.stored", 16);
/// Hint at a record of a round of this node, key: round; the truth is `Rounds.ListRecords`. Owner:
/// round-svc.
pub const ROUND_RECORD: LiveTopic<round::v1::RoundRecord> = LiveTopic::new("round.*.record", 2);

/// Bytes that a peer published, key: peer. Owner: mesh-gateway, as of all `mesh.` topics.
pub const MESH_MESSAGE: LiveTopic<mesh::v1::MeshMessage> = LiveTopic::new("mesh.*.message", 256);
/// Tiles that changed at a peer, key: peer.
pub const MESH_TILE: LiveTopic<mesh::v1::PeerTileChange> = LiveTopic::new("mesh.*.tile", 256);
/// Checkpoints of a peer, key: peer.
pub const MESH_CHECKPOINT: LiveTopic<mesh::v1::PeerCheckpoint> =
    LiveTopic::new("mesh.*.checkpoint", 256);
/// Rounds of a peer, key: peer.
pub const MESH_ROUND: DurableTopic<mesh::v1::PeerRound> =
    DurableTopic::new("mesh.*.round", Class::Records);
