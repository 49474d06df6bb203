//! `sage run`: starts a program, and ends when that and all that it has started are gone.
//!
//! Two processes see to it, each of which adopts what is left below it (a *subreaper*):
//!
//! ```text
//! sage run          hands on signals, says what has become of the program       reaper.rs
//!  └─ its warden    starts the program, waits for it, ends what it leaves       warden.rs
//!      └─ program
//! ```
//!
//! If one of the two is killed, the other ends all that is below: the warden sees that its socket to `sage run` is
//! closed, and `sage run` becomes the parent of what the warden had.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use self::ended::Ended;
use self::program::Program;

mod below;
mod ended;
mod message;
mod program;
mod reaper;
mod warden;

/// Run a program and end all that it leaves.
///
/// Signals go to the program: the first SIGINT or SIGTERM drains its jobs, the second cancels them, the third ends it
/// at once. Processes that it leaves when it ends are ended too, and named.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Args {
    /// Say what has become of it in a line of JSON, the last one of the standard output
    #[arg(long)]
    json: bool,

    /// The interpreter for a Python program [default: that of the active virtual environment, or python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,

    /// A Python file or a program, and what it is given
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["PROGRAM", "ARGUMENTS"])]
    program: Vec<OsString>,
}

pub(crate) fn run(args: &Args, python: Option<&Path>) -> u8 {
    let python = args.python.as_deref().or(python);
    let Some((file, arguments)) = args.program.split_first() else { return USAGE };
    let program = match Program::find(Path::new(file), arguments, python) {
        Ok(program) => program,
        Err(error) => {
            say(&error.to_string());
            return USAGE;
        }
    };
    match reaper::run(&program) {
        Ok(ended) => told(&program, &ended, args.json),
        Err(error) => {
            say(&format!("{} could not be run: {error}", program.name()));
            1
        }
    }
}

/// The exit code for what the command line has wrong.
const USAGE: u8 = 2;

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "sage: {line}");
}

fn told(program: &Program, ended: &Ended, json: bool) -> u8 {
    for line in ended.lines(program.name()) {
        say(&line);
    }
    if json {
        // Nobody reads what cannot be written.
        let _ = writeln!(io::stdout(), "{}", ended.json(program.name()));
    }
    ended.exit_code()
}
