//! The HTTPS edge: what phones, browsers and map clients talk to.
//!
//! In: `av-v1` samples and pictures of phones, pictures of drones, requests for tiles and state, all over
//! TLS. Topics read for the live feed: `drone.*.state`, `slam.*.pose`, `tile.changed`, `mesh.*.tile`,
//! `mesh.*.message`. Calls: checkpoint-svc, drone-ingest, tile-svc, slam-svc and, where there is one, mesh-
//! gateway.
//!
//! Out: `mobile.<id>.capture` and `mobile.<id>.sample` (durable; the bytes of pictures are in the content
//! store), tiles and TileJSON, state as JSON, server-sent events, the console, and the gRPC service `Mobile`.
//!
//! State: token and certificate on disk, phones and sessions in memory. One declared writer: the process
//! that holds the data folder; a phone that reaches another replica is told to register there.
//!
//! Invariants:
//! * A write needs the bearer token; a read needs a loopback peer, the token, or the session cookie,
//!   unless the operator made reads public.
//! * A timestamp is remembered only once its sample is durably queued, so a refused sample may be sent
//!   again; one that was accepted and is sent again is told so.
//! * A slow reader of events loses events and is told how many; it never slows anybody else.
//! * No clear-text listener, no default token, no secret in a log.
//!
//! Absent on purpose: any knowledge of how tiles are stored, poses are found or vehicles are heard.

mod calls;
mod certificate;
mod config;
mod domain;
mod error;
mod events;
mod feed;
mod grpc;
mod http;
mod intake;
mod metrics;
mod secrets;
mod service;
mod sparse;
mod tls;
mod upstream;
mod views;
mod wire;

pub use calls::Calls;
pub use config::{Config, ReadAccess, Settings};
pub use service::MobileService;
