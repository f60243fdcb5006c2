//! The drone front door as a process of its own.

use std::process::ExitCode;

use drone_ingest::DroneService;

fn main() -> ExitCode {
    sovereign_host::main::<DroneService>(|_| Ok(()))
}
