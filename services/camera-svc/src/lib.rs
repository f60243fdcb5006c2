//! Reads fixed cameras and publishes their frames.
//!
//! * In: devices, RTSP streams and video files from the configuration; it calls nobody.
//! * Out: [`CAMERA_FRAME`](sovereign_proto::topics::CAMERA_FRAME), live; gRPC `Cameras`.
//! * Invariants: a frame of a live source that cannot be published in time is dropped and counted, and
//!   no reader of one waits; a file waits, and loses nothing but broken frames, which are counted; a
//!   source that fails is opened again with growing pauses; a file that ends is over.
//!
//! State: none; each replica reads the cameras of its own configuration.
//!
//! Absent on purpose: poses. A fixed camera says what it sees, not where it is.

mod board;
mod config;
mod domain;
mod error;
mod grpc;
mod metrics;
mod publisher;
mod reader;
mod service;
mod wire;

pub use config::{CameraConfig, Config, Settings, SourceKind};
pub use service::CameraService;
