//! The unified binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    sovereign_node::main()
}
