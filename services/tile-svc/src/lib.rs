//! The map: frames with a measured pose become Web Mercator tiles.
//!
//! In: verdicts on pictures (`slam.*.keyframe`), durable, group `tile-svc`; the pictures themselves by
//! digest from checkpoint-svc, which keeps them for as long as the map may need them.
//! Out: `sovereign.tile.v1.Tiles` (layers, tiles, changes, measurements), the hint `tile.changed`, and
//! `tile.*.refused`, durable: frames with a pose that cannot be painted, of which slam-svc takes the verdict back.
//!
//! A frame is laid onto the ground plane it shows, blended into the tiles of the zoom that fits its
//! resolution, and carried up into their parents; tiles, log entry and the memory of the frame are one
//! transaction. A better pose, a frame that is withdrawn and a lost picture are one operation: paint this
//! ground again from these frames.
//!
//! State: the map. One declared writer: the process that holds the data folder and, on the bus, the name of
//! the service; a second is refused.
//!
//! Invariants:
//! * The same frames with the same poses give the same tiles, bit for bit, in whatever order frames and
//!   revisions come, and however often.
//! * A tile that is read was verified; a damaged one is reported and never served.
//! * Only tiles that change, and the parents that change with them, are written; a place without
//!   content has no tile.
//! * A frame without a measured pose is never painted; it is counted by the reason.
//!
//! Absent on purpose: poses (slam-svc finds them), HTTP (the edge serves it), tiles of other nodes.

mod arrival;
mod canvas;
mod config;
mod domain;
mod error;
mod grpc;
mod intake;
mod metrics;
mod painter;
mod picture;
mod prepare;
mod refusals;
mod served;
mod service;
mod store;
mod wire;

pub use config::{Config, Settings};
pub use service::{Calls, TileService};
