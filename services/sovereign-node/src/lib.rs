//! The whole system in one process, and its command line.
//!
//! * `compose`: which services there are, who calls whom, and how they are mounted on one host.
//! * `cli`: `start`, `join`, `status`, `camera`, `demo`, `replay`.
//! * `network`: the JSON files that describe a network.
//! * [`running`]: how a running node is found and asked; [`status`] asks for what it says about itself,
//!   `calibration` tells it what a camera really is.
//! * [`feed`]: what sensors send, simulated or recorded; `demo` and `replay` send it to a node.
//!
//! Invariants: `start` and `join` differ in the hello, in the wait for a first peer, and in nothing
//! else; a service is composed here exactly as its own process composes it.
//!
//! Absent on purpose: what a service decides. Composition is wiring.

mod calibration;
mod cli;
mod compose;
mod demo;
pub mod feed;
mod import;
mod join;
mod network;
mod replay;
pub mod running;
pub mod status;
pub mod visit;

pub use cli::main;
