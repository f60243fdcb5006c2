//! The content store of a node: pictures, scans and model checkpoints, named by their SHA-256.
//!
//! In: the gRPC services `sovereign.checkpoint.v1.{Objects,Checkpoints}`.
//! Out: `checkpoint.stored`, a hint; the truth is `Checkpoints.ListChanges`.
//! State: none is shared: each replica has what was put through it, and says so (NOT_FOUND) for the rest.
//!
//! Invariants:
//! * Stored means on disk, index included, before the caller hears of it.
//! * Read means verified, chunk by chunk, before it leaves.
//! * A version never changes its bytes, and names no file: objects are named by their digest.
//! * Memory does not grow with an object; no class grows over its room.
//! * What is pinned to be kept stays; what goes is counted.
//!
//! Absent on purpose: deletion of versions. A round may start from any that was announced.

mod config;
mod domain;
mod error;
mod grpc;
mod metrics;
mod service;
mod store;
mod wire;

pub use config::{CheckpointRoom, Config, Room, Settings};
pub use service::CheckpointService;
