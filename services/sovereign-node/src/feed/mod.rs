//! Feeding a node through its front doors, as sensors do: UDP for telemetry, HTTPS for pictures and phones.
//!
//! Nothing here reaches around a door: what a sensor could not send, this cannot either.

mod edge;
mod flight;
mod left_out;
mod recording;
mod summary;
mod tlog;

pub use edge::{
    Accepted, CaptureNotes, Edge, EdgeError, Event, Events, Fix, Latency, Seen, Stats, Verdict,
};
pub use flight::{Flight, Sent};
pub use left_out::{LeftOut, LeftOuts};
pub use recording::{Counts, Recording, RecordingError, Speed};
pub use summary::{Datagrams, LatencyMs, Summary};
pub use tlog::{Record, records_from_tlog};
