//! `sage run`: starts a program, and ends when that and all that it has started are gone.
//!
//! Two processes see to it, each of which adopts what is left below it (a *subreaper*):
//!
//! ```text
//! sage run          hears jobs and the daemon, notes what happens               reaper.rs
//!  └─ its warden    starts the program, waits for it, ends what it leaves       warden.rs
//!      └─ program   its jobs dial the socket of `sage run`                      desk.rs
//! ```
//!
//! If one of the two is killed, the other ends all that is below: the warden sees that its socket to `sage run` is
//! closed, and `sage run` becomes the parent of what the warden had.
//!
//! In the foreground the program has the terminal, and nothing is written. For a job of the job manager all is written
//! to the job's folder (`seat.rs`): events (`events.rs`), output (`output.rs`) and the outcome (`verdict.rs`).

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sage_api::job::{AFTER_TIME, JobSpec};

use self::bounds::Bounds;
use self::ended::{Ended, USAGE};
use self::program::Program;
use self::seat::Seat;
use crate::limits::{self, LimitArgs};

pub(crate) use self::program::interpreter;

mod below;
mod bounds;
mod cgroup;
mod cleanups;
mod desk;
mod ended;
mod events;
mod files;
mod message;
mod output;
mod peers;
mod program;
mod reaper;
mod reports;
mod seat;
mod session;
mod verdict;
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

    #[command(flatten)]
    limits: LimitArgs,

    /// How long it may take to clean up when its --time is over, before it is killed [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = limits::time, requires = "time")]
    grace: Option<Duration>,

    /// Run the job of the job manager whose folder this is
    #[arg(long, value_name = "PATH", hide = true, conflicts_with_all = ["json", "python", "program"])]
    folder: Option<PathBuf>,

    /// Remove what the job of --folder has made outside of itself: all of it is gone, and so is its reaper
    #[arg(long, hide = true, requires = "folder")]
    cleanup: bool,

    /// A Python file or a program, and what it is given
    #[arg(required_unless_present = "folder", trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_names = ["PROGRAM", "ARGUMENTS"])]
    program: Vec<OsString>,
}

/// Whether a program's memory and processes can be bounded by a control group, and why not.
pub(crate) fn may_make_cgroup() -> Result<(), String> {
    cgroup::Cgroup::make(Some(1 << 30), Some(1000)).map(|made| made.remove())
}

pub(crate) fn run(args: &Args, python: Option<&Path>) -> u8 {
    if let Some(folder) = &args.folder {
        return if args.cleanup { clean_job(folder) } else { run_job(folder) };
    }
    let python = args.python.as_deref().or(python);
    let Some((file, arguments)) = args.program.split_first() else { return USAGE };
    let program = match Program::find(Path::new(file), arguments, python) {
        Ok(program) => program,
        Err(error) => {
            say(&error.to_string());
            return USAGE;
        }
    };
    let bounds = Bounds::of(args.limits.limits(), args.grace.unwrap_or(AFTER_TIME));
    match watched(program.clone(), &bounds, &Seat::private()) {
        Ok(ended) => told(&program, &ended, args.json),
        Err(error) => {
            say(&format!("{} could not be run: {error}", program.name()));
            1
        }
    }
}

/// Runs what is to be cleaned outside of the job of this folder, and says what has failed, a line each.
fn clean_job(path: &Path) -> u8 {
    match Seat::job(path).and_then(|seat| seat.clean().map_err(|error| error.to_string())) {
        Ok(failed) => {
            failed.iter().for_each(|line| drop(writeln!(io::stdout(), "{line}")));
            0
        }
        Err(error) => {
            say(&error);
            1
        }
    }
}

/// Runs the job of this folder, whose outcome is there when this returns.
fn run_job(path: &Path) -> u8 {
    if let Some(code) = session::lead() {
        return code;
    }
    let seat = match Seat::job(path) {
        Ok(seat) => seat,
        Err(error) => {
            say(&error);
            return USAGE;
        }
    };
    let Some(folder) = seat.folder() else { return USAGE };
    let read = files::read_json::<JobSpec>(&folder.spec()).map_err(|error| format!("its job.json: {error}"));
    let program = read.and_then(|job| {
        let program = Program::of_job(&job, folder).map_err(|error| error.to_string())?;
        Ok((program, Bounds::of(job.limits, AFTER_TIME)))
    });
    let ended = match program.map(|(program, bounds)| watched(program, &bounds, &seat)) {
        Ok(Ok(ended)) => return ended.exit_code(),
        Ok(Err(error)) => Ended::refused(error.to_string()),
        Err(error) => Ended::refused(error),
    };
    seat.outcome(&ended);
    ended.exit_code()
}

fn watched(mut program: Program, bounds: &Bounds, seat: &Seat) -> io::Result<Ended> {
    program.variables.extend(seat.socket().map(|socket| (sage_api::SOCKET_VARIABLE, socket.into_os_string())));
    reaper::run(&program, bounds, seat).inspect_err(|_| {
        bounds.remove();
        seat.leave();
    })
}

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
