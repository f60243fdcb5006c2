//! checkpoint-svc as a process of its own.

use std::process::ExitCode;

use checkpoint_svc::CheckpointService;

fn main() -> ExitCode {
    sovereign_host::main::<CheckpointService>(|_| Ok(()))
}
