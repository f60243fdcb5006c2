//! round-svc as a process of its own.

use std::process::ExitCode;

use round_svc::{Calls, RoundService};

fn main() -> ExitCode {
    sovereign_host::main::<RoundService>(|calls| {
        Ok(Calls {
            checkpoints: calls.channel("checkpoint-svc")?,
        })
    })
}
