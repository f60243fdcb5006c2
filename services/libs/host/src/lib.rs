//! A process: configuration, telemetry, listeners, signals, and an orderly end.
//!
//! Only `main.rs` files and the node use this crate. A thin main is [`main`] with one service; the node
//! is [`execute`] with a function that mounts several. Both run the same [`Host`].
//!
//! In: `--config FILE`, the environment (`SOVEREIGN__SECTION__KEY`), flags; SIGTERM and SIGINT.
//! Out: gRPC with health and reflection, `/livez` `/readyz` `/metrics` over HTTP, logs on the standard
//! error, traces over OTLP when configured, and an exit code: 0 stopped in order, 1 failed, 2 wrong
//! usage, 78 a configuration that cannot be used.
//!
//! Invariants:
//! * Every setting works or is refused by its full name before anything is bound.
//! * The environment is read here and nowhere else.
//! * One process has one data folder, closed to other users and locked while the process runs.
//! * What ends unasked, fails or panics ends the process with its name and causes.

mod addresses;
mod admin;
mod calls;
mod config;
mod data_dir;
mod error;
mod grpc;
mod host;
mod memory;
mod metrics;
mod process;
mod telemetry;

pub use calls::CallTable;
pub use config::{Environment, HostConfig, LogFormat, Settings};
pub use error::{ConfigError, EXIT_CONFIG, EXIT_FAILURE, EXIT_USAGE, HostError};
pub use host::{Host, OnEnd};
pub use process::{Options, Program, execute, exit_with_usage, main};
