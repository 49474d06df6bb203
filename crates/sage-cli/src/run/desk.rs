//! Where the program's jobs and the daemon are heard and answered, and all that happens is noted.
//!
//! Invariants:
//!  1. What happens is noted in the file before a watcher is told.
//!  2. A watcher is told everything from its first line on, or is dropped.
//!  3. A job is told only once its end is on the disk.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use sage_api::message::{
    self, Begins, Command, Dialled, FromEngine, FromReaper, Happened, Journalled, ToEngine, ToReaper, Told, VERSION,
};
use serde::Serialize;

use super::below::Children;
use super::cleanups::Cleanups;
use super::events::Events;
use super::peers::{Line, Peers};
use super::reports::Reports;
use super::seat::not_cleaned;

/// The most that may watch at a time.
const MOST_WATCHERS: usize = 32;
/// So much is read of a job once the program is over: a line and what is before it, in chunks.
const MOST_READS_AT_THE_END: usize = 1024;
/// The most requests for figures that wait for answers, of all watchers together.
const MOST_REQUESTS: usize = 256;

/// Who has dialled.
#[derive(Debug, Default)]
pub(super) enum Kind {
    /// It has not said.
    #[default]
    Unknown,
    Job {
        id: String,
        is_over: bool,
        /// It was asked for figures, and has not answered. It is asked once at a time, whoever asks.
        is_asked: bool,
    },
    Watch {
        /// The length of the output that it was told last.
        output: u64,
    },
}

/// What the desk cannot do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To send the program SIGTERM: it has no job that could be told.
    Terminate,
    /// To kill the program.
    Kill,
}

#[derive(Debug)]
struct Request {
    job: u64,
    watcher: u64,
    number: u64,
}

/// The connections of the jobs and the watchers, and what is known by them.
#[derive(Debug)]
pub(super) struct Desk {
    peers: Peers<Kind>,
    events: Events,
    /// The length of the output.
    output: u64,
    /// What jobs that begin later are told as well.
    asked: Option<Command>,
    is_paused: bool,
    /// Who waits for figures of which job, and the number that they gave the request.
    requests: VecDeque<Request>,
    reports: Reports,
    cleanups: Cleanups,
    wishes: Vec<Wish>,
}

impl Desk {
    pub(super) fn new(peers: Peers<Kind>, events: Events, cleanups: Cleanups) -> Self {
        let (requests, reports) = (VecDeque::new(), Reports::default());
        Self {
            peers,
            events,
            output: 0,
            asked: None,
            is_paused: false,
            requests,
            reports,
            cleanups,
            wishes: Vec::new(),
        }
    }

    /// What to wait for, by number.
    pub(super) fn asked(&self) -> impl Iterator<Item = (u64, PollFd<'_>)> {
        self.peers.asked()
    }

    /// What the jobs have been asked to end by: a drain or a cancel.
    pub(super) fn asked_to_end(&self) -> Option<Command> {
        self.asked
    }

    /// What the jobs have reported.
    pub(super) fn take_reports(&mut self) -> Reports {
        std::mem::take(&mut self.reports)
    }

    /// Does what is to be done about a connection that was waited for, and says what it wishes.
    pub(super) fn heed(&mut self, number: u64, found: PollFlags) -> Vec<Wish> {
        if number == 0 {
            self.peers.accept();
            return Vec::new();
        }
        if found.contains(PollFlags::POLLOUT) {
            self.peers.flush(number);
        }
        if found.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.read(number);
        }
        std::mem::take(&mut self.wishes)
    }

    /// Notes what has happened, and tells all that watch.
    pub(super) fn note(&mut self, what: Happened) {
        let line = self.events.note(what);
        let watchers = self.watchers();
        if watchers.is_empty() {
            return;
        }
        let line = line_of(&FromReaper::Event { line, events: self.events.length() });
        for number in watchers {
            self.tell(number, line.clone());
        }
    }

    /// The output of the program has this length: tells those who watch, and have read what they were told before.
    pub(super) fn tell_output(&mut self, length: u64) {
        self.output = length;
        for number in self.watchers() {
            if !self.peers.has_all(number) {
                continue;
            }
            if let Some(Kind::Watch { output }) = self.peers.kind(number)
                && *output < length
            {
                *output = length;
                self.tell(number, line_of(&FromReaper::Output { output: length }));
            }
        }
    }

    /// Tells all jobs, those that begin later too, and says whether there was one.
    pub(super) fn tell_jobs(&mut self, command: Command, why: Told) -> bool {
        match command {
            // A cancel is more than a drain.
            Command::Drain => self.asked = self.asked.or(Some(command)),
            Command::Cancel => self.asked = Some(command),
            Command::Pause => self.is_paused = true,
            Command::Resume => self.is_paused = false,
        }
        let jobs = self.jobs();
        if !jobs.is_empty() {
            self.note(Happened::Told(why));
        }
        let line = line_of(&ToEngine::Do(command));
        for number in &jobs {
            self.tell(*number, line.clone());
        }
        !jobs.is_empty()
    }

    /// The program is over: hears what its jobs have told until then.
    pub(super) fn end(&mut self) {
        self.peers.accept();
        self.peers.close();
        for number in self.peers.numbers() {
            // Whoever still writes is none of its processes.
            for _ in 0..MOST_READS_AT_THE_END {
                if self.is_watcher(number) || !self.read(number) {
                    break;
                }
            }
            if !self.is_watcher(number) {
                self.remove(number);
            }
        }
        self.wishes.clear();
    }

    /// Sends those who watch what they have not read, as long as they take it, but no longer than this.
    pub(super) fn farewell(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        loop {
            self.tell_output(self.output);
            for number in self.watchers() {
                if self.peers.has_all(number) && self.has_output(number) {
                    self.remove(number);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            let (numbers, mut asked): (Vec<_>, Vec<_>) = self.asked().unzip();
            if asked.is_empty() || left.is_zero() {
                return;
            }
            for asked in &mut asked {
                asked.set_events(PollFlags::POLLOUT);
            }
            // If it is interrupted, nothing is found.
            let _ = nix::poll::poll(&mut asked, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
            let found: Vec<_> = asked.iter().map(|asked| asked.any().unwrap_or(false)).collect();
            for (number, found) in numbers.into_iter().zip(found) {
                if found {
                    self.peers.flush(number);
                }
            }
        }
    }

    fn has_output(&mut self, number: u64) -> bool {
        let length = self.output;
        !matches!(self.peers.kind(number), Some(Kind::Watch { output }) if *output < length)
    }

    /// Reads once, and says whether there may be more at once.
    fn read(&mut self, number: u64) -> bool {
        let heard = self.peers.read(number);
        for line in heard.lines.split_inclusive(|byte| *byte == b'\n') {
            if let Err(why) = self.hear(number, line) {
                self.peers.complain(&format!("one was dropped: {why}"));
                self.remove(number);
                return false;
            }
        }
        if heard.is_over {
            self.remove(number);
        }
        heard.is_more && !heard.is_over
    }

    fn hear(&mut self, number: u64, line: &[u8]) -> Result<(), String> {
        let nonsense = |error: serde_json::Error| format!("it said what is no message here: {error}");
        match self.peers.kind(number) {
            None => {}
            Some(Kind::Unknown) => match serde_json::from_slice(line).map_err(nonsense)? {
                Dialled::Job(begins) => self.begins(number, begins)?,
                Dialled::Watch { .. } => self.watches(number)?,
                Dialled::Cleanup(cleanup) => {
                    let journalled = self.cleanups.journal(cleanup);
                    self.journalled(number, journalled)?;
                }
                Dialled::Cleaned { id } => {
                    let journalled = self.cleanups.done(id).map(|()| id);
                    self.journalled(number, journalled)?;
                }
            },
            Some(Kind::Job { id, is_over, is_asked }) => {
                let job = id.clone();
                match serde_json::from_slice(line).map_err(nonsense)? {
                    _ if *is_over => return Err("it went on after the end of its job".into()),
                    FromEngine::Changed(change) => self.note(Happened::Changed { job, change }),
                    FromEngine::Figures { figures, .. } => {
                        *is_asked = false;
                        self.answer(number, &job, &figures);
                    }
                    FromEngine::Ended(report) => {
                        *is_over = true;
                        self.reports.add(&report);
                        self.note(Happened::Ended { job, report });
                        if self.events.sync() {
                            self.tell(number, line_of(&ToEngine::Noted));
                        }
                    }
                }
            }
            Some(Kind::Watch { .. }) => match serde_json::from_slice(line).map_err(nonsense)? {
                ToReaper::Do(command) => {
                    let was_told = self.tell_jobs(command, Told::Do(command));
                    if !was_told && matches!(command, Command::Drain | Command::Cancel) {
                        self.wishes.push(Wish::Terminate);
                    }
                }
                ToReaper::Kill => self.wishes.push(Wish::Kill),
                ToReaper::Figures { request } => self.ask(number, request),
            },
        }
        Ok(())
    }

    fn begins(&mut self, number: u64, begins: Begins) -> Result<(), String> {
        if begins.version != VERSION {
            return Err(format!("a job speaks version {}, and this is version {VERSION}", begins.version));
        }
        if let Some(kind) = self.peers.kind(number) {
            *kind = Kind::Job { id: begins.job.clone(), is_over: false, is_asked: false };
        }
        self.note(Happened::Begins(Box::new(begins)));
        let paused = self.is_paused.then_some(Command::Pause);
        for command in paused.into_iter().chain(self.asked) {
            self.tell(number, line_of(&ToEngine::Do(command)));
        }
        Ok(())
    }

    /// Answers that something is on the disk.
    fn journalled(&mut self, number: u64, id: io::Result<u64>) -> Result<(), String> {
        let id = id.map_err(|error| format!("a cleanup could not be written down: {error}"))?;
        self.tell(number, line_of(&Journalled { id }));
        Ok(())
    }

    /// Runs what is to be cleaned outside of the program, which is gone, and returns what failed, in words.
    pub(super) fn clean(&mut self, children: &Children, folder: Option<&Path>) -> Vec<String> {
        let mut failed = Vec::new();
        for (name, why) in self.cleanups.run(children, folder) {
            failed.extend(why.as_ref().map(|why| not_cleaned(&name, why)));
            self.note(Happened::Cleaned { name, why });
        }
        failed
    }

    fn watches(&mut self, number: u64) -> Result<(), String> {
        if self.watchers().len() >= MOST_WATCHERS {
            return Err(format!("{MOST_WATCHERS} watch already"));
        }
        if let Some(kind) = self.peers.kind(number) {
            *kind = Kind::Watch { output: self.output };
        }
        let (events, output) = (self.events.length(), self.output);
        self.tell(number, line_of(&FromReaper::Here { version: VERSION, events, output }));
        Ok(())
    }

    /// Asks all jobs for figures.
    fn ask(&mut self, watcher: u64, number: u64) {
        let line = line_of(&ToEngine::Figures { request: 0 });
        for job in self.jobs() {
            self.requests.push_back(Request { job, watcher, number });
            if let Some(Kind::Job { is_asked: is_asked @ false, .. }) = self.peers.kind(job) {
                *is_asked = true;
                self.tell(job, line.clone());
            }
        }
        while self.requests.len() > MOST_REQUESTS {
            self.requests.pop_front();
        }
    }

    /// Answers those who wait for figures of this job.
    fn answer(&mut self, from: u64, job: &str, figures: &message::Figures) {
        let (answered, waiting) = self.requests.drain(..).partition(|request| request.job == from);
        self.requests = waiting;
        for Request { watcher, number: request, .. } in answered {
            let (job, figures) = (job.to_owned(), Box::new(figures.clone()));
            self.tell(watcher, line_of(&FromReaper::Figures { request, job, figures }));
        }
    }

    fn is_watcher(&mut self, number: u64) -> bool {
        matches!(self.peers.kind(number), Some(Kind::Watch { .. }))
    }

    fn watchers(&self) -> Vec<u64> {
        self.peers.kinds().filter(|(_, kind)| matches!(kind, Kind::Watch { .. })).map(|(number, _)| number).collect()
    }

    /// Those that are not over, and can be told something.
    fn jobs(&self) -> Vec<u64> {
        let runs = |kind: &Kind| matches!(kind, Kind::Job { is_over: false, .. });
        let jobs = self.peers.kinds().filter(|(number, kind)| runs(kind) && !self.peers.is_deaf(*number));
        jobs.map(|(number, _)| number).collect()
    }

    fn tell(&mut self, number: u64, line: Line) {
        if self.peers.tell(number, line) {
            return;
        }
        match self.peers.kind(number) {
            // What it tells is still of use.
            Some(Kind::Job { .. }) => self.peers.deafen(number),
            _ => self.remove(number),
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some(Kind::Job { id: job, is_over: false, .. }) = self.peers.remove(number) {
            self.reports.miss();
            self.note(Happened::Gone { job });
        }
    }
}

fn line_of(message: &impl Serialize) -> Line {
    message::line(message).expect("these messages can be written as JSON").into()
}
