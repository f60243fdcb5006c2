//! The gateway over real loopback QUIC and TCP.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod exports;
mod messages;
mod node;
mod peers;
mod strangers;
mod tiles;
