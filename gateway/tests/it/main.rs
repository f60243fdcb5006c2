//! The gateway over real loopback QUIC and TCP.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cuts;
mod exports;
mod link;
mod messages;
mod node;
mod owners;
mod peers;
mod strangers;
