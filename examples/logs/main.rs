//! Counts the lines of a tree of logs in windows of time, by the times in the lines, and shows each window's most
//! frequent terms.
//!
//! ```text
//! read ─ parse ─ timestamps ─ count ─ top ─ print ─ windows.jsonl
//!          │                    └─ late.jsonl
//!          └─ dead-letters.jsonl ══ read ─ unpack ─ parse-again ─ tally ─ recovered.jsonl
//!                                                      └─ still-bad.jsonl
//! ```
//!
//! Behind the double line is a second job, which reads the dead letters of the first and mends what it can. Every file
//! appears when it is complete, or not at all. All files of the tree are read as one stream, in the order of their
//! times: [`merge`] says how, and why the results depend on the data alone.

#![expect(unreachable_pub, reason = "a program has no interface")]

mod jobs;
mod line;
mod merge;
mod notes;
mod summary;
mod term;
mod time;

use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sage::{BoxError, Environment, JobReport, RunError, SignalPolicy};
use walkdir::{DirEntry, WalkDir};

use jobs::Task;
use line::Reading;
use merge::LogFile;
use notes::{Notes, in_words};
use summary::Summary;
use term::By;

/// Counts the lines of a tree of logs in windows of time, by the times in the lines, and shows each window's most
/// frequent terms.
///
/// Reads every file below FOLDER as one stream, in the order of the times in it; unpacks `.gz` and `.zst`. Skips hidden
/// names, links and files that are not text.
///
/// A line begins with its time: ISO 8601, `2000-10-10 13:55:36,123`, `2000/10/10 13:55:36`, syslog's `Oct 10 13:55:36`,
/// `[Tue Oct 10 13:55:36 2000]`, `Tue, 10 Oct 2000 13:55:36 +0200`, or ten digits of seconds since 1970; or it is a
/// line of an access log. A time without an offset is UTC, see --offset. A time without a year is in the latest year
/// that puts it at most a day after the file's last change, see --year.
///
/// Prints a line for each window: its start in UTC, its lines, its terms. These files appear in the folder given by
/// --out when they are complete:
///
///   windows.jsonl       the windows
///   late.jsonl          lines whose window was already over, see --out-of-order
///   dead-letters.jsonl  lines without a time at their beginning, or not UTF-8
///   recovered.jsonl     dead letters that a second, laxer reading could date: a time anywhere in the line, numbers
///                       finer than seconds, text that is not UTF-8, the further lines of a stack trace
///   still-bad.jsonl     dead letters that it could not date
///
/// Ctrl-C ends the reading and shows the windows of what was read; the files stay as they were before. A second Ctrl-C
/// drops what is in flight. The exit code is 0 when all went well, 1 when something failed, 2 when the arguments are
/// wrong, 130 after SIGINT, 143 after SIGTERM.
#[derive(Parser)]
#[command(
    name = "logs",
    verbatim_doc_comment,
    after_help = "Example: logs /var/log --window 1d --by program --out results"
)]
struct Arguments {
    /// Folder of logs, or a single log file
    #[arg(value_parser = existing)]
    folder: PathBuf,
    /// Term by which lines are counted
    #[arg(long, value_enum, default_value = "auto")]
    by: By,
    /// Length of the windows, such as 30s, 15m, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = window)]
    window: Duration,
    /// Terms to show for each window, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    top: u16,
    /// How much earlier than the lines before it a line may be without being late
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    out_of_order: Duration,
    /// How far times without an offset are ahead of UTC, such as +02:00 or -05:30
    #[arg(long, value_name = "±HH:MM", default_value = "+00:00", value_parser = offset_ms, allow_hyphen_values = true)]
    offset: i64,
    /// The year of times without one, instead of the year that the file's last change suggests
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..=9999))]
    year: Option<i64>,
    /// Folder for the results; made if it is missing, and not read if it is below FOLDER
    #[arg(long, value_name = "DIR", default_value = "logs-out")]
    out: PathBuf,
    /// Write numbers and both jobs' reports to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Log skipped files on standard error; twice: also the engine's log
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// Extensions of compressed files that cannot be read.
const UNREADABLE: [&str; 8] = ["xz", "bz2", "lzma", "lz4", "z", "zip", "7z", "br"];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match arguments.verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).without_time().init();
    run(&arguments).unwrap_or_else(|error| {
        // With standard error gone there is no one left to tell.
        drop(writeln!(io::stderr(), "error: {}", in_words(&*error)));
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode, BoxError> {
    let notes = Notes::new(arguments.verbose > 0);
    std::fs::create_dir_all(&arguments.out).map_err(|error| {
        format!("the folder `{}` cannot be made: {error}; choose another with --out", arguments.out.display())
    })?;
    let files = files(&arguments.folder, &arguments.out, &notes);
    if files.is_empty() {
        return Err(
            format!("there is no file to read in `{}`; give a folder of logs", arguments.folder.display()).into()
        );
    }
    let task = Task {
        files,
        reading: Reading { by: arguments.by, offset_ms: arguments.offset, year: arguments.year },
        window: arguments.window,
        out_of_order: arguments.out_of_order,
        top: arguments.top.into(),
        out: arguments.out.clone(),
    };

    let (counted, failure) = execute("logs", &task, &notes, jobs::count)?;
    let (replayed, failure) = match failure {
        None => {
            let (report, failure) = execute("logs-replay", &task, &notes, jobs::replay)?;
            (Some(report), failure)
        }
        failure => (None, failure),
    };

    let summary = Summary { task: &task, notes: &notes, counted: &counted, replayed: replayed.as_ref() };
    notes.print(&summary.to_string())?;
    if let Some(path) = &arguments.report {
        summary.write(path)?;
    }
    if let Some(signal) = summary.signal() {
        return Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)));
    }
    failure.map_or(Ok(ExitCode::SUCCESS), |failure| Err(failure.into()))
}

/// Runs a job and gives its report, and the error if it did not succeed.
fn execute(
    name: &str,
    task: &Task,
    notes: &Notes,
    declare: impl Fn(&Environment, &Task, &Notes),
) -> Result<(JobReport, Option<RunError>), BoxError> {
    let env = Environment::local(name).signals(SignalPolicy::Exit);
    declare(&env, task, notes);
    let job = env.submit()?;
    match notes.watch(&job) {
        Ok(report) => Ok((report, None)),
        Err(error) => match error.report().cloned() {
            Some(report) => Ok((report, Some(error))),
            None => Err(error.into()),
        },
    }
}

/// The files below a folder, sorted by path, without those in the folder of results.
fn files(folder: &Path, out: &Path, notes: &Notes) -> Vec<LogFile> {
    let out = out.canonicalize().ok();
    let read = |entry: &DirEntry| {
        let is_hidden = entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
        let is_out = entry.file_type().is_dir() && entry.depth() > 0 && entry.path().canonicalize().ok() == out;
        !is_hidden && !is_out
    };
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(read) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(folder).display().to_string();
                notes.passed_over(&path, error.io_error().map_or(&error as &(dyn Error + 'static), |error| error));
                continue;
            }
        };
        // A file that is named may be behind a link.
        let is_file = if entry.depth() == 0 { entry.path().is_file() } else { entry.file_type().is_file() };
        if !is_file {
            continue;
        }
        let below = entry.path().strip_prefix(folder).ok().filter(|below| !below.as_os_str().is_empty());
        let name = below.unwrap_or(Path::new(entry.file_name())).to_string_lossy().into_owned();
        let extension = entry.path().extension().and_then(OsStr::to_str).unwrap_or_default().to_lowercase();
        if UNREADABLE.contains(&&*extension) {
            notes.passed_over(&name, &*BoxError::from(format!("`.{extension}` is not unpacked; `.gz` and `.zst` are")));
            continue;
        }
        files.push(LogFile { path: entry.into_path(), name: name.into() });
    }
    files
}

fn existing(text: &str) -> Result<PathBuf, String> {
    match std::fs::metadata(text) {
        Ok(_) => Ok(text.into()),
        Err(error) => Err(format!("cannot be read: {error}; give a folder of logs, as in `logs /var/log`")),
    }
}

fn window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let longest = Duration::from_secs(100 * 366 * 86_400);
    let fits = (Duration::from_millis(1)..=longest).contains(&window);
    fits.then_some(window).ok_or_else(|| "a window has 1ms to 100 years".to_owned())
}

fn offset_ms(text: &str) -> Result<i64, String> {
    let read = || {
        let (sign, rest) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) = rest.split_once(':')?;
        let part = |text: &str, below| text.parse::<u8>().ok().filter(|&part| part < below && text.len() == 2);
        Some(sign * (i64::from(part(hours, 24)?) * 60 + i64::from(part(minutes, 60)?)) * 60_000)
    };
    read().ok_or_else(|| "not an offset such as +02:00 or -05:30".to_owned())
}
