//! The drone front door: vehicles heard over UDP, pictures taken from the air.
//!
//! In: UDP datagrams, MAVLink 1 and 2 (dialect `ardupilotmega`) and JSON samples of the contract `av-v1`
//! side by side, told apart by their first byte; the gRPC service `sovereign.drone.v1.Drones`.
//!
//! Out: the live topic `drone.<id>.state` (at most so many states a second for each vehicle, the last
//! one always) and the durable topic `drone.<id>.capture`: pictures and LiDAR scans by digest, their bytes
//! being in the content store of checkpoint-svc.
//!
//! State: on disk the newest time of each signed stream. In memory the vehicles heard on this socket, whose process
//! is the one writer; a replica with a socket of its own knows those that send to it.
//!
//! Invariants:
//! * A frame whose checksum is wrong, or whose signature is where one is demanded, says nothing; a signed frame
//!   speaks once, over restarts too.
//! * What was never heard is absent: a heartbeat is no place, an unknown battery is no number, zero
//!   degrees on both axes without a fix is not an island.
//! * Two senders with one system id are two vehicles, for as long as both are heard.
//! * A sample or a picture is accepted when its bytes and its record are on disk, and only then does
//!   anything advance; the same picture sent twice is one frame.
//! * Every refusal is counted under a code; every table, queue and track is bounded.
//!
//! Absent on purpose: commands to vehicles (nothing is ever sent), poses, maps. A JSON sender can name itself
//! anything but a MAVLink vehicle: on a door that others reach, demand signatures, which JSON cannot give.

mod capture;
mod config;
mod domain;
mod error;
mod grpc;
mod intake;
mod keeper;
mod metrics;
mod publisher;
mod service;
mod store;
mod udp;
mod wire;

pub use config::{Config, Settings};
pub use service::{Calls, DroneService};
