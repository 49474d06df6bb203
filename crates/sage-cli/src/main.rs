//! The `sage` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    sage_cli::main(std::env::args_os(), None)
}
