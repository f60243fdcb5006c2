//! The bridge between this node's bus and the libp2p mesh.
//!
//! In: the logs `Tiles.ListChanges`, `Checkpoints.ListChanges` and `Rounds.ListRecords`, with
//! `tile.changed`, `checkpoint.stored` and `round.*.record` as hints at them; gossip of peers on two
//! topics; the gRPC service `sovereign.mesh.v1.Mesh`.
//! Out: gossip; `mesh.<peer>.{message,tile,checkpoint}` live and `mesh.<peer>.round` durable.
//!
//! State: the identity, and how far each log was exported. One declared writer: the process that holds the
//! data folder. A replica with a folder of its own is another peer, which exports by itself and answers for
//! its own connections.
//!
//! Invariants:
//! * Nothing of a peer is delivered or forwarded before its signature and its content were checked.
//! * Nobody is heard beyond a rate, neither an author nor a forwarder, and this node keeps to its own.
//! * Each message is delivered once, as long as it is among the newest that are remembered: 65,536 of all
//!   authors together, and none from before a start. An older one that somebody brings again is delivered
//!   again, under the same id and still signed by its author.
//! * Export reads only logs of this node's own services, import writes only under `mesh.`, and none of
//!   these logs holds what came from there: loops are impossible by construction.
//! * An island loses nothing that the logs still keep: what could not be published waits there, in order, and
//!   what was published while every link turned out to be dead is published again. One link that held is
//!   enough: a peer whose own link was dead meanwhile misses what was published then, but for what GossipSub
//!   still tells it of, a few seconds. A peer that is connected and too slow for what waits for it does lose
//!   messages; they are counted.
//! * The identity is kept in a file that only its owner may read.
//!
//! Absent on purpose: pictures, tiles and model weights. They are announced by content id.

mod address;
mod config;
mod domain;
mod error;
mod export;
mod grpc;
mod import;
mod key;
mod metrics;
mod service;
mod store;
mod swarm;
mod topics;
mod wire;

pub use config::{Config, Mode, Settings};
pub use service::{Calls, GatewayService};
pub use topics::MAP_TOPIC;
