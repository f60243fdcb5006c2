//! Places pictures in the world by direct georeferencing.
//!
//! * In: [`DRONE_CAPTURE`](sovereign_proto::topics::DRONE_CAPTURE),
//!   [`MOBILE_CAPTURE`](sovereign_proto::topics::MOBILE_CAPTURE) and
//!   [`MOBILE_SAMPLE`](sovereign_proto::topics::MOBILE_SAMPLE), durable, group `slam-svc`; it calls nobody.
//! * Out: [`SLAM_KEYFRAME`](sovereign_proto::topics::SLAM_KEYFRAME), durable;
//!   [`SLAM_POSE`](sovereign_proto::topics::SLAM_POSE), live; gRPC `Slam`.
//! * Invariants: exactly one keyframe per capture, in the order of the captures of each sensor, the same
//!   one however often the capture is delivered; a picture is judged only when it matches its digest; a
//!   pose is measured or absent, and absent has a reason.
//!
//! Absent on purpose: decoding of pictures (only their headers are read, so a verdict takes well under a
//! millisecond; the embedded previews of edited pictures are the one exception), and vehicle tracks, which
//! are `drone.<id>.state` already.

mod config;
mod domain;
mod error;
mod grpc;
mod metrics;
mod service;
mod store;

pub use config::{CameraConfig, Config, HeadingConfig, Settings};
pub use service::SlamService;
