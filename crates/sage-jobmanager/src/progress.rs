//! What is known of a job from its events: which jobs of the engine have begun in its program, and what they are doing.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use sage::{Cleanliness, JobState, Outcome, Transition};
use sage_api::api::EngineJob;
use sage_api::job::State;
use sage_api::message::{Command, Event, Happened, MOST_BYTES, Told};

/// How many jobs of the engine that have ended are kept.
const MOST_ENDED: usize = 1000;

/// What has happened to a program so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    jobs: Vec<EngineJob>,
    started_ms: Option<u64>,
    /// What it is doing while it has no job of the engine that says so.
    alone: Option<State>,
}

impl Progress {
    /// Takes note of an event.
    pub(crate) fn note(&mut self, event: &Event) {
        match &event.what {
            Happened::Started { .. } => self.started_ms = Some(event.at_ms),
            Happened::Begins(begins) => {
                self.make_room();
                self.jobs.push(EngineJob {
                    id: begins.job.clone(),
                    environment: begins.environment.clone(),
                    state: State::Starting,
                    begun_ms: event.at_ms,
                    ended_ms: None,
                    clean: None,
                });
            }
            Happened::Changed { job, change } => {
                let Transition::Job { to, .. } = change.transition else { return };
                let Some(state) = state_of(to) else { return };
                if let Some(job) = self.live(job) {
                    job.state = state;
                    self.alone = Some(state);
                }
            }
            Happened::Ended { job, report } => {
                if let Some(job) = self.live(job) {
                    job.state = ended_as(report.outcome);
                    job.clean = Some(report.cleanliness == Cleanliness::Clean);
                    job.ended_ms = Some(event.at_ms);
                }
            }
            Happened::Gone { job } => {
                if let Some(job) = self.live(job) {
                    (job.state, job.ended_ms) = (State::Lost, Some(event.at_ms));
                }
            }
            // Its jobs say themselves what they do then; a program without jobs does not.
            Happened::Told(Told::Do(Command::Drain | Command::Cancel) | Told::Signal(_) | Told::OutOfTime) => {
                self.alone = Some(State::Draining);
            }
            Happened::Told(Told::Killed) => self.alone = Some(State::Stopping),
            Happened::Told(Told::Do(Command::Pause | Command::Resume)) | Happened::Cleaned { .. } => {}
        }
    }

    fn live(&mut self, id: &str) -> Option<&mut EngineJob> {
        self.jobs.iter_mut().rev().find(|job| job.id == id && job.ended_ms.is_none())
    }

    fn make_room(&mut self) {
        let ended = self.jobs.iter().filter(|job| job.ended_ms.is_some()).count();
        if ended >= MOST_ENDED
            && let Some(oldest) = self.jobs.iter().position(|job| job.ended_ms.is_some())
        {
            self.jobs.remove(oldest);
        }
    }

    /// What the program is doing: what most concerns its jobs that live.
    pub(crate) fn state(&self) -> State {
        let live = self.jobs.iter().filter(|job| job.ended_ms.is_none()).map(|job| job.state);
        // While one runs, the program does.
        let order = [State::Running, State::Draining, State::Paused, State::Stopping, State::Starting];
        let first = live.min_by_key(|state| order.iter().position(|other| other == state));
        first.or(self.alone).unwrap_or(State::Starting)
    }

    /// When the program was started, in milliseconds since 1970.
    pub(crate) fn started_ms(&self) -> Option<u64> {
        self.started_ms
    }

    /// The jobs of the engine, in the order in which they began.
    pub(crate) fn jobs(&self) -> &[EngineJob] {
        &self.jobs
    }

    /// How many of them live.
    pub(crate) fn live_jobs(&self) -> usize {
        self.jobs.iter().filter(|job| job.ended_ms.is_none()).count()
    }

    /// What the file of the events of a job says.
    pub(crate) fn read(events: &Path) -> io::Result<Self> {
        let mut progress = Self::default();
        read_events(events, 0, u64::MAX, &mut |event, _| {
            progress.note(&event);
            true
        })?;
        Ok(progress)
    }
}

fn state_of(state: JobState) -> Option<State> {
    Some(match state {
        JobState::Created | JobState::Starting => State::Starting,
        JobState::Running => State::Running,
        JobState::Paused => State::Paused,
        JobState::Draining => State::Draining,
        JobState::Stopping => State::Stopping,
        // The report says how.
        _ => return None,
    })
}

/// The state of what has ended so.
pub(crate) fn ended_as(outcome: Outcome) -> State {
    match outcome {
        Outcome::Succeeded => State::Succeeded,
        Outcome::Cancelled => State::Cancelled,
        Outcome::TimedOut => State::TimedOut,
        Outcome::Lost => State::Lost,
        // And what a later version may add.
        _ => State::Failed,
    }
}

/// Calls `each` with every event of the file from `from` up to `until` and the offset behind it, until that says no.
/// Returns the offset behind the last one that was read. A line that is no event is passed over: what a crash of the
/// system has left is a block of zeros, or half a line at the end.
pub(crate) fn read_events(
    path: &Path,
    from: u64,
    until: u64,
    each: &mut dyn FnMut(Event, u64) -> bool,
) -> io::Result<u64> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(from),
        Err(error) => return Err(error),
    };
    if from >= file.metadata()?.len() {
        return Ok(from);
    }
    let mut at = from;
    let mut lines = BufReader::new(file);
    io::Seek::seek(&mut lines, io::SeekFrom::Start(from))?;
    let mut line = Vec::new();
    while at < until {
        line.clear();
        Read::take(&mut lines, MOST_BYTES as u64).read_until(b'\n', &mut line)?;
        let length = line.len() as u64;
        if line.pop() != Some(b'\n') || at + length > until {
            return Ok(at);
        }
        at += length;
        if let Ok(event) = serde_json::from_slice(&line)
            && !each(event, at)
        {
            return Ok(at);
        }
    }
    Ok(at)
}
