//! checkpoint-svc as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    sovereign_host::main::<checkpoint_svc::CheckpointService>()
}
