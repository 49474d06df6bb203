//! The lines of JSON that go between a program's jobs, the reaper and the daemon, over the socket of a job.
//!
//! Who connects says with its first line who it is: [`Dialled`]. A line is [`MOST_BYTES`] long at most. Only processes
//! of the same user are heard.

use std::io::{self, BufRead};
use std::time::Duration;

use sage::{JobGraph, JobMetrics, JobReport, StateChange};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of these messages.
pub const VERSION: u32 = 1;

/// The longest line, in bytes.
pub const MOST_BYTES: usize = 32 << 20;

/// The first line of a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialled {
    /// A job of the program begins: [`FromEngine`] follows, and [`ToEngine`] is expected.
    Job(Begins),
    /// The program has made something outside of it: [`Journalled`] is expected, once that is on the disk.
    Cleanup(Cleanup),
    /// The program has removed it again: [`Journalled`] is expected, once that is on the disk.
    Cleaned {
        /// The number of the cleanup.
        id: u64,
    },
    /// The daemon watches: [`FromReaper`] is expected, and [`ToReaper`] follows.
    Watch {
        /// Its [`VERSION`].
        version: u32,
    },
}

/// What removes something outside of the program: a table, a folder, a virtual machine. The reaper runs it when the
/// program and all that it started are gone and it was not done, at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleanup {
    /// The [`VERSION`] of the messages.
    pub version: u32,
    /// What it removes, for people.
    pub name: String,
    /// What does it: a program and its arguments, in the folder of the program that asks for it.
    pub command: Vec<String>,
}

/// The answer to [`Dialled::Cleanup`] and [`Dialled::Cleaned`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journalled {
    /// The number of the cleanup.
    pub id: u64,
}

/// A job of the program, at its begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begins {
    /// The [`VERSION`] of its messages.
    pub version: u32,
    /// Its id, unique on the machine.
    pub job: String,
    /// The name of its environment.
    pub environment: String,
    /// The process that it runs in.
    pub pid: u32,
    /// Where its log files lie, if it writes some.
    pub log_folder: Option<String>,
    /// What it consists of.
    pub graph: JobGraph,
}

/// What a job of the program tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromEngine {
    /// A state has changed.
    Changed(StateChange),
    /// The answer to [`ToEngine::Figures`].
    Figures {
        /// The number of the request.
        request: u64,
        /// The figures.
        figures: Box<Figures>,
    },
    /// It is over. It waits, a little, for [`ToEngine::Noted`].
    Ended(Box<JobReport>),
}

/// The figures of a job, at a moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How long the job has been running.
    pub elapsed: Duration,
    /// Its operators and services.
    pub metrics: JobMetrics,
    /// The records that have been read and are not finished.
    pub unfinished: u64,
    /// Where the threads of its process are, [`MOST_THREADS`] at most.
    #[serde(default)]
    pub threads: Vec<ThreadNow>,
}

/// So many threads are told of.
pub const MOST_THREADS: usize = 64;

/// Where a thread is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadNow {
    /// Its number in the system.
    pub number: u32,
    /// Its name, 15 bytes at most: the begin of the name of the task that it works for, say.
    pub name: String,
    /// What the system says of it, in words.
    pub state: String,
    /// The stack of its code, the innermost call last, where the language can tell it.
    pub stack: Option<String>,
}

/// What a job of the program is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToEngine {
    /// To do something.
    Do(Command),
    /// To answer with [`FromEngine::Figures`].
    Figures {
        /// The number of the request.
        request: u64,
    },
    /// Its end is on the disk.
    Noted,
}

/// What a job can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// To end its sources, and finish what is in flight.
    Drain,
    /// To drop what is in flight, and clean up.
    Cancel,
    /// To read nothing more for now.
    Pause,
    /// To go on.
    Resume,
}

/// What the reaper tells the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromReaper {
    /// The first line: how much of the events and of the output there is in the files, in bytes. What comes later is
    /// told by the other lines.
    Here {
        /// The [`VERSION`] of its messages.
        version: u32,
        /// The length of `events.jsonl`.
        events: u64,
        /// The length of the output since its begin, whatever of it is still kept.
        output: u64,
    },
    /// There is a new line in `events.jsonl`; or, if its length is as before, that file is full and the line is only
    /// told.
    Event {
        /// The line.
        line: Event,
        /// The length of the file now.
        events: u64,
    },
    /// The program has written: the length of its output now.
    Output {
        /// In bytes, since its begin.
        output: u64,
    },
    /// The answer to [`ToReaper::Figures`], from one of the program's jobs.
    Figures {
        /// The number of the request.
        request: u64,
        /// The job's id.
        job: String,
        /// Its figures.
        figures: Box<Figures>,
    },
}

/// A line of `events.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// When it was written, in milliseconds since 1970.
    pub at_ms: u64,
    /// What has happened.
    #[serde(flatten)]
    pub what: Happened,
}

/// What has happened to a program or one of its jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// The program was started.
    Started {
        /// Its process.
        pid: u32,
    },
    /// One of its jobs begins.
    Begins(Box<Begins>),
    /// A state of one of its jobs has changed.
    Changed {
        /// The job's id.
        job: String,
        /// The change.
        change: StateChange,
    },
    /// One of its jobs is over.
    Ended {
        /// The job's id.
        job: String,
        /// Its report.
        report: Box<JobReport>,
    },
    /// One of its jobs is gone without a report: its process has ended, or nobody waited for it.
    Gone {
        /// The job's id.
        job: String,
    },
    /// Something that the program had made outside of itself was removed by a command, as the program is gone.
    Cleaned {
        /// What it is, for people.
        name: String,
        /// Why the command failed, if it did.
        why: Option<String>,
    },
    /// The program was told to do something.
    Told(Told),
}

/// What the program was told to do, by the daemon or a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Its jobs were told.
    Do(Command),
    /// It was sent a signal of this number: it has no job that could be told.
    Signal(i32),
    /// It was killed, with all that it had started.
    Killed,
    /// Its time was over, and it was told to cancel.
    OutOfTime,
}

/// What the daemon tells the reaper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToReaper {
    /// To tell all jobs of the program. If it has none, a drain and a cancel send it SIGTERM; a pause and a resume do
    /// nothing.
    Do(Command),
    /// To kill the program and all that it has started.
    Kill,
    /// To ask all jobs of the program for figures.
    Figures {
        /// The number of the request.
        request: u64,
    },
}

/// A message as a line.
pub fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The next message; `None` at the end.
///
/// # Errors
/// One of the connection; [`InvalidData`](io::ErrorKind::InvalidData) for a line that is too long, cut off, or no such
/// message.
pub fn next<T: DeserializeOwned>(lines: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    io::Read::take(&mut *lines, MOST_BYTES as u64).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line is cut off, or too long")),
    }
}
