//! The edge at its boundary: real TLS, a memory bus, and small services behind local channels.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod events;
mod pictures;
mod server;
mod state;
mod support;
mod tiles;
mod uploads;
