//! The `sage` command.

use std::env;
use std::process::ExitCode;

use sage_cli::Host;

fn main() -> ExitCode {
    let itself = env::current_exe().map_or_else(|_| "sage".into(), Into::into);
    ExitCode::from(sage_cli::main(env::args_os(), &Host { itself: vec![itself], python: None }))
}
