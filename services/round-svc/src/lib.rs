//! Rounds of federated learning: which models are open for training, here and at peers.
//!
//! In: the gRPC service `sovereign.round.v1.Rounds`; `mesh.<peer>.round`; `Checkpoints.Get` of
//! checkpoint-svc.
//! Out: `round.<id>.record`, a hint at `Rounds.ListRecords`, which the gateway reads for the mesh.
//!
//! State: the rounds and the log of this node's own, in one file. One declared writer: the process that
//! holds the data folder and, on the bus, the name of the service; a second is refused, so every read is of the
//! one there is.
//!
//! Invariants:
//! * A round is open, and later closed, when its record is in the log on disk, and only then.
//! * A round is closed when its time is over, also when the node was down then.
//! * A round starts from a model that was in the checkpoint store when it opened.
//! * Terms never change: the first of an origin and round id stay. What was closed stays closed.
//! * A peer can neither replace nor displace the open rounds of another. Only when there are more peers
//!   with open rounds than are kept does the one heard of longest ago make room.
//!
//! Absent on purpose: participants, updates and aggregation. This node announces rounds.

mod config;
mod domain;
mod error;
mod grpc;
mod ledger;
mod metrics;
mod service;
mod store;
mod wire;

pub use config::{Config, Settings};
pub use service::{Calls, RoundService};
