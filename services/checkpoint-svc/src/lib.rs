//! Model checkpoints, content-addressed on the file system.
//!
//! In: the gRPC service `sovereign.checkpoint.v1.Checkpoints`.
//! Out: `checkpoint.stored`, once for every stored version.
//!
//! Invariants:
//! * Stored means on disk, index included, before the caller hears of it.
//! * Read means verified: the last bytes leave only after the digest of all was found right.
//! * A version never changes its bytes, and names no file: files are named by their digest.
//! * Memory does not grow with a checkpoint; the store does not grow over its limit.
//! * Every stored version is announced, also when the process ended before it could.
//!
//! Absent on purpose: deletion. A round may start from any version that was announced.

mod config;
mod domain;
mod error;
mod grpc;
mod metrics;
mod service;
mod store;

pub use config::{Config, Settings};
pub use service::CheckpointService;
