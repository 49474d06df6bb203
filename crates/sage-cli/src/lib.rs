//! The `sage` command as a library: the binary calls [`main`], and so does whoever hosts it.
//!
//! `sage run` starts a program and is its reaper: see `run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

mod doctor;
mod job;
mod jobmanager;
mod limits;
mod output;
mod place;
mod run;

/// Runs jobs, and ends all that they leave.
#[derive(Debug, Parser)]
#[command(name = "sage", version, after_help = EXIT_CODES)]
struct Sage {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Job(job::Args),
    Jobmanager(jobmanager::Args),
    Doctor(doctor::Args),
}

const EXIT_CODES: &str = "\
Exit codes:
  0    it succeeded, and left nothing
  1    it failed, or was cancelled, timed out or killed
  2    the command line is wrong
  3    something is left, or was and had to be ended
  130  ended by SIGINT
  143  ended by SIGTERM";

/// What hosts the command.
#[derive(Debug, Clone)]
pub struct Host {
    /// What starts the command anew, before its arguments: the binary, or an interpreter and what it is given.
    pub itself: Vec<OsString>,
    /// The interpreter for Python programs that are started without saying which: without it, that of the active
    /// virtual environment, or `python3`.
    pub python: Option<PathBuf>,
}

/// Runs the command with these arguments, of which the first is its own name, and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>, host: &Host) -> u8 {
    match Sage::try_parse_from(arguments) {
        Ok(Sage { command: Command::Run(args) }) => run::run(&args, host.python.as_deref()),
        Ok(Sage { command: Command::Job(args) }) => job::run(&args, host.python.as_deref()),
        Ok(Sage { command: Command::Jobmanager(args) }) => jobmanager::run(&args, host),
        Ok(Sage { command: Command::Doctor(args) }) => doctor::run(&args, host),
        Err(error) => {
            // Nobody reads what cannot be written.
            let _ = error.print();
            error.exit_code().try_into().unwrap_or(2)
        }
    }
}
