//! What the door decides, without touching anything: bytes and the time in, states and refusals out.
//!
//! A datagram takes one of two ways. MAVLink: [`framing`] finds frames and verifies their checksum,
//! [`signing`] their signature, [`telemetry`] decodes the messages that say something about a vehicle,
//! [`vehicle`] merges them into one state, [`history`] remembers them for matching with pictures. JSON:
//! [`sample`] validates it, [`ply`] makes a file of its scan. [`door`] owns the table of vehicles, the order of samples, what is due for
//! publishing, and every counter.

pub mod definition;
pub mod door;
pub mod flight_mode;
pub mod framing;
pub mod history;
pub mod ply;
pub mod reject;
pub mod sample;
pub mod signing;
pub mod stats;
pub mod telemetry;
pub mod vehicle;

#[cfg(test)]
mod fixtures;
