//! What the program has made outside of itself, and is removed by commands if it has not done so when it is gone.
//!
//! Invariants:
//!  1. What is answered is on the disk.
//!  2. A command is run until a run of it has succeeded, or failed, and that is on the disk: at least once, if there is
//!     time for all.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;
use sage_api::message::{self, Cleanup};
use serde::{Deserialize, Serialize};

use super::below::Children;
use super::files::{created, sync_folder};

/// So many may be open at a time.
const MOST: usize = 1000;
/// What is read of a file.
const MOST_BYTES: u64 = 64 << 20;
/// How long a command may take, and all together.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(60);

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Journalled { id: u64, cleanup: Cleanup },
    Done { id: u64 },
}

/// The cleanups of a program.
#[derive(Debug, Default)]
pub(super) struct Cleanups {
    path: Option<PathBuf>,
    file: Option<File>,
    last: u64,
    open: BTreeMap<u64, Cleanup>,
}

/// What came of a cleanup: its name, and why it failed.
pub(super) type Cleaned = (String, Option<String>);

impl Cleanups {
    /// Those of this file, which need not be there.
    pub(super) fn of(path: Option<PathBuf>) -> Self {
        let mut cleanups = Self { path, ..Self::default() };
        let read = cleanups.path.as_deref().map(File::open);
        if let Some(Ok(file)) = read {
            // A last line may be cut off: that one was not answered.
            for line in BufReader::new(file.take(MOST_BYTES)).split(b'\n').map_while(Result::ok) {
                match serde_json::from_slice(&line) {
                    Ok(Line::Journalled { id, cleanup }) => {
                        cleanups.open.insert(id, cleanup);
                        cleanups.last = cleanups.last.max(id);
                    }
                    Ok(Line::Done { id }) => drop(cleanups.open.remove(&id)),
                    Err(_) => {}
                }
            }
        }
        cleanups
    }

    /// Writes one down, and returns its number.
    pub(super) fn journal(&mut self, cleanup: Cleanup) -> io::Result<u64> {
        if self.open.len() >= MOST {
            return Err(io::Error::other(format!("{MOST} cleanups are open already")));
        }
        let id = self.last + 1;
        let line = Line::Journalled { id, cleanup };
        self.write(&line)?;
        self.last = id;
        if let Line::Journalled { cleanup, .. } = line {
            self.open.insert(id, cleanup);
        }
        Ok(id)
    }

    /// Writes down that one is done.
    pub(super) fn done(&mut self, id: u64) -> io::Result<()> {
        if !self.open.contains_key(&id) {
            return Err(io::Error::other(format!("no cleanup {id} is open")));
        }
        self.write(&Line::Done { id })?;
        self.open.remove(&id);
        Ok(())
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let Some(path) = &self.path else { return Err(io::Error::other("there is no folder to write it to")) };
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = created(OpenOptions::new().append(true), path)?;
                sync_folder(path)?;
                self.file.insert(file)
            }
        };
        let length = file.metadata()?.len();
        let written = message::line(line).and_then(|line| file.write_all(&line)).and_then(|()| file.sync_data());
        // If that fails too, whoever reads finds a line cut off.
        written.inspect_err(|_| drop(file.set_len(length)))
    }

    /// Runs those that are open, in this folder, what was made last first. All of the program is gone.
    pub(super) fn run(&mut self, children: &Children, folder: Option<&Path>) -> Vec<Cleaned> {
        self.run_within(PATIENCE_FOR_ALL, children, folder)
    }

    fn run_within(&mut self, patience: Duration, children: &Children, folder: Option<&Path>) -> Vec<Cleaned> {
        let mut cleaned = Vec::new();
        let until = Instant::now() + patience;
        while let Some((id, cleanup)) = self.open.last_key_value() {
            let (id, name) = (*id, cleanup.name.clone());
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.open.remove(&id);
                cleaned.push((name, Some(format!("there was no time for it within {} s", patience.as_secs()))));
                continue;
            }
            let ran = command(&cleanup.command, children, folder, left.min(PATIENCE)).err();
            // If that cannot be written, another run of it does no harm.
            let _ = self.done(id);
            self.open.remove(&id);
            cleaned.push((name, ran));
        }
        cleaned
    }
}

fn command(words: &[String], children: &Children, folder: Option<&Path>, patience: Duration) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else { return Err("there is no command".to_owned()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(io::stderr()).process_group(0);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    // SAFETY: it makes a system call.
    unsafe { command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?)) };
    let mut child = command.spawn().map_err(|error| format!("{program} could not be started: {error}"))?;
    let group = Pid::from_raw(child.id().cast_signed());
    let until = Instant::now() + patience;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(format!("{program}: {status}")),
            Err(error) => break Err(format!("{program}: {error}")),
            Ok(None) => {}
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Err(format!("{program} did not end within {} s", patience.as_secs()));
        }
        children.wait(left);
    };
    // What it has left as well. There is none if it has ended with all that it started.
    let _ = killpg(group, Signal::SIGKILL);
    // It has ended, or is about to.
    let _ = child.wait();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_time_for_is_named_and_stays_written_down() {
        let folder = tempfile::tempdir().expect("a folder is made");
        let path = Some(folder.path().join("cleanups.jsonl"));
        let mut cleanups = Cleanups::of(path.clone());
        for name in ["one", "other"] {
            let (name, command) = (name.to_owned(), vec!["false".to_owned()]);
            cleanups.journal(Cleanup { version: message::VERSION, name, command }).expect("it is written");
        }
        let children = Children::watch().expect("it is watched");
        let cleaned = cleanups.run_within(Duration::ZERO, &children, None);
        let why = Some("there was no time for it within 0 s".to_owned());
        assert_eq!(cleaned, [("other".to_owned(), why.clone()), ("one".to_owned(), why)]);
        assert_eq!(Cleanups::of(path).open.len(), 2);
    }
}
