//! Rounds of federated learning: which models are open for training, here and at peers.
//!
//! In: the gRPC service `sovereign.round.v1.Rounds`; `mesh.<peer>.round`; `round.*.record`, which it
//! also writes; `Checkpoints.Get` of checkpoint-svc.
//! Out: `round.<id>.record`, which the gateway announces to the mesh.
//!
//! Invariants:
//! * A round is open when its record is on disk in the durable topic, and only then. The store is read
//!   back from the topics, so a crash between the two loses nothing.
//! * A round starts from a model that was in the checkpoint store when it opened.
//! * A record never changes: the first of an origin and round id stays.
//! * A peer can neither replace nor displace the open rounds of another. Only when there are more peers
//!   with open rounds than are kept does the one heard of longest ago make room.
//!
//! Absent on purpose: participants, updates and aggregation. This node announces rounds.

mod config;
mod domain;
mod error;
mod grpc;
mod metrics;
mod service;
mod store;

pub use config::{Config, Settings};
pub use service::{Calls, RoundService};
