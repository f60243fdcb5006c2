//! Places pictures in the world by direct georeferencing.
//!
//! * In: [`DRONE_CAPTURE`](sovereign_proto::topics::DRONE_CAPTURE),
//!   [`MOBILE_CAPTURE`](sovereign_proto::topics::MOBILE_CAPTURE) and
//!   [`MOBILE_SAMPLE`](sovereign_proto::topics::MOBILE_SAMPLE), durable, group `slam-svc`; headers of pictures
//!   by digest from checkpoint-svc; calibrations by gRPC;
//!   [`TILE_REFUSED`](sovereign_proto::topics::TILE_REFUSED), durable: frames that the painter refused.
//! * Out: [`SLAM_KEYFRAME`](sovereign_proto::topics::SLAM_KEYFRAME), durable;
//!   [`SLAM_POSE`](sovereign_proto::topics::SLAM_POSE), live; gRPC `Slam`.
//! * Invariants: one first keyframe per picture, in the order of the captures of each sensor, the same one
//!   however often the capture is delivered; a revision whenever a calibration that somebody set gives
//!   another verdict or the painter refuses the frame, and the history of each frame; a pose is measured or absent, and absent has a reason.
//!
//! State: verdicts, previews and calibrations. One declared writer: the process that holds the data folder
//! and, on the bus, the name of the service; a second is refused.
//!
//! Absent on purpose: decoding of pictures (only their headers are read, so a verdict takes well under a
//! millisecond; the embedded previews of edited pictures are the one exception), and vehicle tracks, which
//! are `drone.<id>.state` already.

mod calibration;
mod config;
mod domain;
mod error;
mod grpc;
mod judge;
mod metrics;
mod service;
mod store;
mod terrain;
mod wire;

pub use config::{CameraConfig, Config, HeadingConfig, Settings};
pub use service::{Calls, SlamService};
