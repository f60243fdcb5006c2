//! A synthetic world with exact truth: ground, flights with MAVLink telemetry, cameras and phones.
//!
//! * In: parameters and the time since the start; no clock, no socket.
//! * Out: truth ([`VehicleTruth`], [`PhoneTruth`]), the MAVLink frames that a vehicle would send, and the
//!   picture that its camera would take.
//! * Invariants: the same parameters give the same bytes on every run; every MAVLink heartbeat carries
//!   the hardware-in-the-loop flag and every upload made from this crate says that it is simulated.
//!
//! Absent on purpose: sockets and uploads. Whoever drives the simulation sends what it makes through the
//! real front doors.

mod camera;
mod flight;
mod geotag;
mod phone;
mod telemetry;
mod world;

pub use camera::{Camera, RenderError};
pub use flight::{Survey, SurveyArea, VehicleTruth};
pub use geotag::{GeotagError, SIMULATOR, geotagged, survey_camera};
pub use phone::{PhoneTruth, Walk};
pub use telemetry::Autopilot;
pub use world::{ControlMark, World, WorldConfig};
