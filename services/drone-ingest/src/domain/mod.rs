//! What the door decides, without touching anything: bytes and the time in, states and refusals out.
//!
//! A datagram takes one of two ways. MAVLink: [`framing`] finds frames and verifies their checksum,
//! [`signing`] their signature, [`telemetry`] decodes the messages that say something about a vehicle,
//! [`vehicle`] merges them into one state, [`history`] remembers them for matching with pictures. JSON:
//! [`sample`] validates it, [`ply`] makes a file of its scan. [`door`] owns the table of vehicles, the order
//! of samples, what is due for publishing, and every counter.

pub(crate) mod definition;
pub(crate) mod door;
pub(crate) mod flight_mode;
pub(crate) mod framing;
pub(crate) mod history;
pub(crate) mod ply;
pub(crate) mod reject;
pub(crate) mod sample;
pub(crate) mod signing;
pub(crate) mod stats;
pub(crate) mod telemetry;
pub(crate) mod vehicle;

#[cfg(test)]
mod fixtures;
