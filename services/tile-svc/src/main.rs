//! tile-svc as a process of its own.

use std::process::ExitCode;

use tile_svc::{Calls, TileService};

fn main() -> ExitCode {
    sovereign_host::main::<TileService>(|calls| {
        Ok(Calls {
            slam: calls.channel("slam-svc")?,
        })
    })
}
