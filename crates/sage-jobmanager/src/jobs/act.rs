//! What jobs are told, and how they are deleted.

use std::time::Duration;

use sage::Outcome;
use sage_api::api::{MOST_JOBS, Running};
use sage_api::job::{AFTER_TIME, JobRecord, JobSpec, State};
use sage_api::message::Command;
use tokio::time::timeout;

use super::find::blocking;
use super::{JobError, Jobs, Waiting};
use crate::live::{Live, ToJob};
use crate::store::Asked;
use crate::{folder, record};

/// How long jobs may take to drain before they are cancelled, when the job manager ends.
const DRAIN: Duration = Duration::from_secs(300);

/// How long a job may take to be gone when it was killed.
const KILL: Duration = Duration::from_secs(10);

/// What a job is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// To end its sources and finish what is in flight.
    Drain,
    /// To drop what is in flight, and clean up.
    Cancel,
    /// To read nothing for now.
    Pause,
    /// To go on; a job that is over is submitted anew.
    Resume,
    /// To end at once, without cleaning up.
    Kill,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Drain => "drained",
            Self::Cancel => "cancelled",
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Kill => "killed",
        }
    }

    fn message(self) -> ToJob {
        match self {
            Self::Drain => ToJob::Do(Command::Drain),
            Self::Cancel => ToJob::Do(Command::Cancel),
            Self::Pause => ToJob::Do(Command::Pause),
            Self::Resume => ToJob::Do(Command::Resume),
            Self::Kill => ToJob::Kill,
        }
    }
}

impl Jobs {
    /// Tells a job to do something. Returns before it has done it, with its record as it is.
    ///
    /// # Errors
    /// Those of [`Self::record`]; [`JobError::Conflict`] if it cannot do that now; [`JobError::Refused`] if it is to be
    /// started anew and a value of a variable is gone.
    pub(crate) async fn tell(&self, job: &str, action: Action) -> Result<JobRecord, JobError> {
        let record = self.record(job)?;
        if record.state.is_over() && action == Action::Resume {
            return self.restart(&record).await;
        }
        if let Some(live) = self.live(&record.id) {
            tracing::info!(job = %record.id, ?action, "told");
            let told = live.inbox.try_send(action.message());
            return match told {
                Ok(()) => Ok(live.record()),
                Err(_) => Err(JobError::TooMany("the job has too many commands waiting: try again".to_owned())),
            };
        }
        if record.state.is_over() {
            let (state, word) = (record.state.word(), action.word());
            return Err(JobError::Conflict(format!("the job is over ({state}), and cannot be {word} any more")));
        }
        if matches!(action, Action::Pause | Action::Resume) {
            let word = action.word();
            return Err(JobError::Conflict(format!("the job waits for its turn: it can be {word} when it runs")));
        }
        let Some(waiting) = self.take_waiting(&record.id) else { return Err(busy()) };
        tracing::info!(job = %record.id, ?action, "taken off the queue");
        self.end_waiting(&waiting.spec, &record::not_started(Outcome::Cancelled, off_the_queue(action)))
    }

    fn take_waiting(&self, id: &str) -> Option<Waiting> {
        let mut table = self.table();
        let index = table.waiting.iter().position(|waiting| waiting.spec.id == id)?;
        table.waiting.remove(index)
    }

    /// Submits a job that is over anew.
    async fn restart(&self, record: &JobRecord) -> Result<JobRecord, JobError> {
        let id = &record.id;
        let _busy = self.busy(id)?;
        let files = self.files(id);
        let path = files.spec();
        let spec = blocking(move || folder::read_json::<JobSpec>(&path)).await?;
        let mut spec = spec.ok_or_else(|| JobError::NotFound(id.clone()))?;
        if let Err(name) = self.table().values.of(id, &spec.variables) {
            return Err(JobError::Refused(super::supervise::gone(&name)));
        }
        spec.restart_count += 1;
        {
            // That it is not over any more is on the disk before its folder says so.
            let mut queued = record::queued(&spec);
            queued.restart_count -= 1;
            self.table().store.put_lasting(&queued)?;
        }
        let written = spec.clone();
        let restarted = blocking(move || folder::restart(&files, &written)).await;
        if let Err(error) = restarted {
            // What is in the folder counts, at the next start.
            tracing::error!(job = %id, %error, "it cannot be started anew");
            self.table().put(record);
            self.tell_changed();
            return Err(error);
        }
        let queued = self.table().enqueue(spec);
        tracing::info!(job = %id, restart_count = queued.restart_count, "submitted anew");
        self.tell_changed();
        self.start_waiting();
        Ok(self.live(id).map_or(queued, |live| live.record()))
    }

    /// Deletes a job with its folder and its log files. With `force`, one that is not over is cancelled first, and
    /// killed after 30 seconds; returns when it is gone.
    ///
    /// # Errors
    /// Those of [`Self::record`]; [`JobError::Conflict`] if it is not over, without `force`.
    pub(crate) async fn delete(&self, job: &str, force: bool) -> Result<(), JobError> {
        let mut record = self.record(job)?;
        if !record.state.is_over() {
            if !force {
                let state = record.state.word();
                return Err(JobError::Conflict(format!(
                    "the job is {state}: drain, cancel or kill it first, or delete it by force"
                )));
            }
            self.end_by_force(&record.id).await?;
            record = self.record(&record.id)?;
            if !record.state.is_over() {
                return Err(busy());
            }
        }
        let _busy = self.busy(&record.id)?;
        let (files, log_folder) = (self.files(&record.id), self.log_folder(&record.id).await);
        {
            let mut table = self.table();
            table.store.delete(&record.id)?;
            table.values.forget(&record.id);
            let change = table.store.change();
            table.deletions.push_back((change, record.id.clone()));
            if table.deletions.len() > super::MOST_DELETIONS {
                table.deletions.pop_front();
            }
        }
        self.tell_changed();
        tracing::info!(job = %record.id, "deleted");
        let logs = self.0.options.logs.parent().map(std::path::Path::to_owned).unwrap_or_default();
        blocking(move || {
            folder::delete(&files)?;
            match log_folder {
                // It is one that a job manager has made.
                Ok(folder) if folder.starts_with(&logs) => match std::fs::remove_dir_all(folder) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                },
                _ => Ok(()),
            }
        })
        .await
    }

    /// Cancels a job, kills it after 30 seconds, and returns when it is over.
    async fn end_by_force(&self, id: &str) -> Result<(), JobError> {
        match self.tell(id, Action::Cancel).await {
            Ok(_) | Err(JobError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        let Some(live) = self.live(id) else { return Ok(()) };
        self.ends_within(&live, AFTER_TIME).await
    }

    /// Waits until a job is over; kills it after a while.
    async fn ends_within(&self, live: &Live, patience: Duration) -> Result<(), JobError> {
        if timeout(patience, live.is_over()).await.is_ok() {
            return Ok(());
        }
        for told in [ToJob::Kill, ToJob::KillReaper] {
            // If nobody reads it, the job is over.
            let _ = live.inbox.send(told).await;
            if timeout(KILL, live.is_over()).await.is_ok() {
                return Ok(());
            }
        }
        Err(JobError::Conflict(format!("the job {} does not end, even killed: see `jobmanager.log`", live.spec.id)))
    }

    /// Cancels all jobs, and deletes all when they are over. Returns how many.
    ///
    /// # Errors
    /// A job does not end, or cannot be deleted: those before are.
    pub(crate) async fn delete_all(&self) -> Result<u64, JobError> {
        self.end_all(Running::Cancel).await?;
        let mut deleted = 0;
        let states = State::ALL.into_iter().filter(|state| state.is_over()).collect();
        let over = Asked { states, limit: MOST_JOBS, ..Asked::default() };
        loop {
            let jobs = self.page(&over)?.jobs;
            if jobs.is_empty() {
                return Ok(deleted);
            }
            for record in jobs {
                match self.delete(&record.id, false).await {
                    Ok(()) => deleted += 1,
                    // Somebody else has.
                    Err(JobError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Ends all jobs that run or wait, and returns when they are over.
    pub(crate) async fn end_all(&self, how: Running) -> Result<(), JobError> {
        let action = match how {
            Running::Leave => return Ok(()),
            Running::Drain => Action::Drain,
            Running::Cancel => Action::Cancel,
        };
        let waiting = std::mem::take(&mut self.table().waiting);
        for Waiting { spec, .. } in waiting {
            self.end_waiting(&spec, &record::not_started(Outcome::Cancelled, off_the_queue(action)))?;
        }
        let live: Vec<_> = self.table().live.values().cloned().collect();
        for live in &live {
            // If nobody reads it, the job is over.
            let _ = live.inbox.send(action.message()).await;
        }
        if action == Action::Drain {
            let all = async {
                for live in &live {
                    live.is_over().await;
                }
            };
            if timeout(DRAIN, all).await.is_ok() {
                return Ok(());
            }
            for live in &live {
                let _ = live.inbox.send(Action::Cancel.message()).await;
            }
        }
        let until = tokio::time::Instant::now() + AFTER_TIME;
        for live in &live {
            self.ends_within(live, until.saturating_duration_since(tokio::time::Instant::now())).await?;
        }
        Ok(())
    }

    /// From now on no job is started, and none is taken.
    pub(crate) fn close(&self) {
        self.table().is_closing = true;
    }

    /// Keeps others from changing a job that is over.
    fn busy(&self, id: &str) -> Result<Busy<'_>, JobError> {
        if self.table().busy.insert(id.to_owned()) {
            return Ok(Busy { jobs: self, id: id.to_owned() });
        }
        Err(busy())
    }
}

fn busy() -> JobError {
    JobError::Conflict("the job is just being changed: try again".to_owned())
}

fn off_the_queue(action: Action) -> String {
    format!("it was {} while it waited for its turn", action.word())
}

struct Busy<'j> {
    jobs: &'j Jobs,
    id: String,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.jobs.table().busy.remove(&self.id);
    }
}
