//! The map: frames with a measured pose become Web Mercator tiles.
//!
//! In: pictures (`drone.*.capture`, `mobile.*.capture`) and verdicts on their pose (`slam.*.keyframe`),
//! durable, group `tile-svc`; `Slam.GetKeyframe` for a verdict that was lost on the way.
//! Out: `sovereign.tile.v1.Tiles` (layers, tiles, changes, measurements) and the hint `tile.changed`.
//!
//! A frame is laid onto the ground plane it shows, blended into the tiles of the zoom that fits its
//! resolution, and carried up into their parents; tiles, log entry and the memory of having painted the
//! frame are one transaction. Only then are picture and verdict acknowledged.
//!
//! Invariants:
//! * The same frames give the same tiles, bit for bit, in whatever order and however often they come.
//! * A tile that is read was verified; a damaged one is reported and never served.
//! * Only tiles that change, and the parents that change with them, are written; a place without
//!   content has no tile.
//! * A frame without a measured pose is never painted; it is counted by the reason.
//!
//! Absent on purpose: poses (slam-svc finds them), HTTP (the edge serves it), tiles of other nodes.

mod canvas;
mod config;
mod domain;
mod error;
mod grpc;
mod metrics;
mod picture;
mod served;
mod service;
mod store;

pub use config::{Config, Settings};
pub use service::{Calls, TileService};
