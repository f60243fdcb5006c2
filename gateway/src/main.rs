//! mesh-gateway as a process of its own.

use std::process::ExitCode;

use mesh_gateway::{Calls, GatewayService};

fn main() -> ExitCode {
    sovereign_host::main::<GatewayService>(|calls| {
        Ok(Calls {
            tiles: calls.channel("tile-svc")?,
        })
    })
}
