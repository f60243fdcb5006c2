//! mobile-ingest as a process of its own.

use std::process::ExitCode;

use mobile_ingest::{Calls, MobileService};

fn main() -> ExitCode {
    sovereign_host::main::<MobileService>(|calls| {
        Ok(Calls {
            drones: calls.channel("drone-ingest")?,
            tiles: calls.channel("tile-svc")?,
            slam: calls.channel("slam-svc")?,
            mesh: calls.optional("mesh-gateway")?,
        })
    })
}
