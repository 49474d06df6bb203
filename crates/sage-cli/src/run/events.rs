//! `events.jsonl`: what has happened to the program and to its jobs, a line each.
//!
//! Invariants:
//!  1. The file holds whole lines only: what could not be written whole is taken back.
//!  2. It is bounded. Once it has [`MOST_BYTES`], only what a job consists of and how it ended is kept; once it has
//!     [`MOST_OF_ALL`], nothing is.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sage_api::message::{self, Event, Happened};

use super::files::created;
use super::say;

const MOST_BYTES: u64 = 64 << 20;
const MOST_OF_ALL: u64 = 1 << 30;

/// Where events are noted: in a file, or nowhere.
#[derive(Debug, Default)]
pub(super) struct Events {
    file: Option<File>,
    length: u64,
    /// A write has failed, which was said.
    is_broken: bool,
}

impl Events {
    /// Notes them in a file, behind what is there.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let file = created(OpenOptions::new().append(true), path)?;
        let length = file.metadata()?.len();
        Ok(Self { file: Some(file), length, is_broken: false })
    }

    /// The length of the file, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Notes what has happened, and returns the event. It is on the disk only after [`sync`](Self::sync).
    pub(super) fn note(&mut self, what: Happened) -> Event {
        let event = Event { at_ms: now_ms(), what };
        let most = match event.what {
            Happened::Begins(_) | Happened::Ended { .. } => MOST_OF_ALL,
            _ => MOST_BYTES,
        };
        let Some(file) = &mut self.file else { return event };
        let written = message::line(&event).and_then(|line| {
            let length = self.length + line.len() as u64;
            if length <= most {
                file.write_all(&line)?;
                self.length = length;
            }
            Ok(())
        });
        if let Err(error) = written {
            // If that fails too, whoever reads finds a line cut off, and the next one behind it.
            let _ = file.set_len(self.length);
            self.complain(&error);
        }
        event
    }

    /// Puts on the disk what was noted, and says whether it is there.
    pub(super) fn sync(&mut self) -> bool {
        let Some(file) = &self.file else { return true };
        match file.sync_data() {
            Ok(()) => !self.is_broken,
            Err(error) => {
                self.complain(&error);
                false
            }
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !self.is_broken {
            say(&format!("the events of the job cannot be written, and some are missing: {error}"));
        }
        self.is_broken = true;
    }
}

/// Now, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_keeps_begins_and_ends_alone() {
        let folder = tempfile::tempdir().expect("a folder is made");
        let path = folder.path().join("events.jsonl");
        let mut events = Events::of(&path).expect("it is made");
        events.note(Happened::Started { pid: 7 });
        let kept = events.length();
        events.length = MOST_BYTES;
        let told = events.note(Happened::Gone { job: "j".into() });
        assert!(matches!(told.what, Happened::Gone { .. }), "it is told all the same");
        assert_eq!((events.length(), std::fs::metadata(&path).expect("it is there").len()), (MOST_BYTES, kept));
        let graph = sage::Environment::local("e").graph();
        let (version, job, environment) = (1, "j".to_owned(), "e".to_owned());
        let begins = message::Begins { version, job, environment, pid: 1, log_folder: None, graph };
        events.note(Happened::Begins(Box::new(begins)));
        assert!(events.length() > MOST_BYTES);
        assert!(events.sync());
    }
}
