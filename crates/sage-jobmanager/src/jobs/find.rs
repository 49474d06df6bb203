//! What is asked about jobs: lists, details, events, graphs, figures and reports.

use std::path::PathBuf;
use std::sync::Arc;

use sage_api::api::{FiguresNow, GraphOf, Graphs, JobDetail, JobPage, MOST_JOBS, Reports, SHORTEST_PREFIX};
use sage_api::home::JobFolder;
use sage_api::job::{JobRecord, JobSpec};
use sage_api::message::{Event, Happened};
use tokio::sync::{oneshot, watch};

use super::{JobError, Jobs};
use crate::folder;
use crate::live::{Live, Seen, ToJob};
use crate::progress::{Progress, read_events};
use crate::store::Asked;

/// The longest name of a job that is looked for.
const LONGEST: usize = 64;

/// Some of the events of a job, each with the offset behind it.
#[derive(Debug, Default)]
pub(crate) struct JobEvents {
    /// The events.
    pub events: Vec<(Event, u64)>,
    /// The offset behind the last one.
    pub next: u64,
}

impl Jobs {
    /// The record of the job with this id or number, or of the only one whose id begins so.
    ///
    /// # Errors
    /// [`JobError::NotFound`]; [`JobError::Ambiguous`].
    pub(crate) fn record(&self, job: &str) -> Result<JobRecord, JobError> {
        let not_found = || JobError::NotFound(shortened(job));
        if job.len() > LONGEST {
            return Err(not_found());
        }
        let mut table = self.table();
        // With a zero or a sign in front it is none.
        let number = job.parse().ok().filter(|number: &u64| number.to_string() == job);
        if let Some(number) = number
            && let Some(record) = table.store.by_number(number)?
        {
            return Ok(record);
        }
        let prefix = job.to_ascii_lowercase();
        if let Some(record) = table.store.by_id(&prefix)? {
            return Ok(record);
        }
        let is_of_id = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
        if prefix.len() < SHORTEST_PREFIX || !prefix.bytes().all(is_of_id) {
            return Err(not_found());
        }
        let mut found = table.store.by_prefix(&prefix)?;
        match (found.pop(), found.len()) {
            (None, _) => Err(not_found()),
            (Some(record), 0) => Ok(record),
            (Some(last), _) => {
                let candidates = found.into_iter().chain([last]).map(|record| record.id).collect();
                Err(JobError::Ambiguous { prefix, candidates })
            }
        }
    }

    /// Some of the jobs, newest first.
    ///
    /// # Errors
    /// [`JobError::Malformed`] if more than 1000 are asked for, or none.
    pub(crate) fn page(&self, asked: &Asked) -> Result<JobPage, JobError> {
        if asked.limit == 0 || asked.limit > MOST_JOBS {
            return Err(JobError::Malformed(format!("`limit` is {}: it has to be 1 to {MOST_JOBS}", asked.limit)));
        }
        // One more says whether there is another page.
        let (mut jobs, total) = self.table().store.page(&Asked { limit: asked.limit + 1, ..asked.clone() })?;
        let is_last = jobs.len() as u64 <= asked.limit;
        jobs.truncate(usize::try_from(asked.limit).unwrap_or(usize::MAX));
        let next = jobs.last().filter(|_| !is_last).map(|record| record.number);
        Ok(JobPage { jobs, total, next })
    }

    /// How many jobs are in which state.
    ///
    /// # Errors
    /// The records failed.
    pub(crate) fn counts(&self) -> Result<std::collections::BTreeMap<String, u64>, JobError> {
        Ok(self.table().store.counts()?)
    }

    /// All about a job but its events, output and figures.
    ///
    /// # Errors
    /// Those of [`Self::record`]; its files cannot be read.
    pub(crate) async fn detail(&self, job: &str) -> Result<JobDetail, JobError> {
        let record = self.record(job)?;
        let (files, live) = (self.files(&record.id), self.live(&record.id));
        let known = live.as_ref().map(|live| live.known().progress.jobs().to_vec());
        let read = move || {
            let spec = folder::read_json::<JobSpec>(&files.spec())?;
            let engine_jobs = match known {
                Some(jobs) => jobs,
                None => Progress::read(&files.events())?.jobs().to_vec(),
            };
            let reaper = folder::read_json(&files.reaper()).unwrap_or_default();
            Ok((spec, reaper, folder::outcome(&files), engine_jobs))
        };
        let (spec, reaper, outcome, engine_jobs) = blocking(read).await?;
        let spec = spec.ok_or_else(|| JobError::NotFound(shortened(job)))?;
        Ok(JobDetail { record, spec, reaper, outcome, engine_jobs })
    }

    /// Up to so many events of a job that begin at this byte of them or behind it, of a few megabytes at most.
    ///
    /// # Errors
    /// Those of [`Self::record`]; they cannot be read.
    pub(crate) async fn events(&self, job: &str, after: u64, limit: u64) -> Result<JobEvents, JobError> {
        let record = self.record(job)?;
        self.events_of(&record.id, after, limit).await
    }

    pub(crate) async fn events_of(&self, id: &str, after: u64, limit: u64) -> Result<JobEvents, JobError> {
        const MOST_BYTES: u64 = 4 << 20;
        let path = self.files(id).events();
        // What is being written is not read yet.
        let until = self.live(id).map_or(u64::MAX, |live| live.seen.borrow().events);
        blocking(move || {
            let mut events = Vec::new();
            let next = read_events(&path, after, until, &mut |event, next| {
                events.push((event, next));
                (events.len() as u64) < limit && next - after < MOST_BYTES
            })?;
            Ok(JobEvents { events, next })
        })
        .await
    }

    /// The graphs of the jobs of the engine in a job.
    ///
    /// # Errors
    /// Those of [`Self::events`].
    pub(crate) async fn graphs(&self, job: &str) -> Result<Graphs, JobError> {
        let files = self.files(&self.record(job)?.id);
        let jobs = gathered(files, |event| match event.what {
            Happened::Begins(begins) => Some(GraphOf { id: begins.job, graph: begins.graph }),
            _ => None,
        });
        Ok(Graphs { jobs: jobs.await? })
    }

    /// The reports of the jobs of the engine in a job that have ended.
    ///
    /// # Errors
    /// Those of [`Self::events`].
    pub(crate) async fn reports(&self, job: &str) -> Result<Reports, JobError> {
        let files = self.files(&self.record(job)?.id);
        let jobs = gathered(files, |event| match event.what {
            Happened::Ended { report, .. } => Some(*report),
            _ => None,
        });
        Ok(Reports { jobs: jobs.await? })
    }

    /// The figures of the jobs of the engine in a job, as they are now. Those that do not answer within two seconds are
    /// missing.
    ///
    /// # Errors
    /// Those of [`Self::record`]; [`JobError::Conflict`] if the job does not run.
    pub(crate) async fn figures(&self, job: &str) -> Result<FiguresNow, JobError> {
        let record = self.record(job)?;
        let over = || {
            let state = record.state.word();
            JobError::Conflict(format!(
                "the job is {state}: only one that runs has figures; its report has the last ones"
            ))
        };
        let live = self.live(&record.id).ok_or_else(over)?;
        let (answer, answered) = oneshot::channel();
        live.inbox.send(ToJob::Figures(answer)).await.map_err(|_| over())?;
        answered.await.map_err(|_| over())
    }

    pub(super) fn live(&self, id: &str) -> Option<Arc<Live>> {
        self.table().live.get(id).cloned()
    }

    /// How far a job has come, and its record; `None` if it does not live.
    pub(crate) fn watch(&self, id: &str) -> Option<(watch::Receiver<Seen>, Arc<Live>)> {
        let live = self.live(id)?;
        Some((live.seen.subscribe(), live))
    }

    /// The folder of the log files of a job.
    pub(super) async fn log_folder(&self, job: &str) -> Result<PathBuf, JobError> {
        let path = self.files(&self.record(job)?.id).spec();
        let spec = blocking(move || folder::read_json::<JobSpec>(&path)).await?;
        Ok(spec.ok_or_else(|| JobError::NotFound(shortened(job)))?.log_folder)
    }
}

/// What of the events of a job is wanted.
async fn gathered<T: Send + 'static>(
    files: JobFolder,
    wanted: impl Fn(Event) -> Option<T> + Send + 'static,
) -> Result<Vec<T>, JobError> {
    blocking(move || {
        let mut found = Vec::new();
        read_events(&files.events(), 0, u64::MAX, &mut |event, _| {
            found.extend(wanted(event));
            true
        })?;
        Ok(found)
    })
    .await
}

/// Runs what reads files for a while.
pub(super) async fn blocking<T: Send + 'static>(
    action: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, JobError> {
    Ok(tokio::task::spawn_blocking(action).await.map_err(std::io::Error::other)??)
}

/// What a client has called a job, for a message.
fn shortened(job: &str) -> String {
    job.chars().take(LONGEST).map(|character| if character.is_control() { '?' } else { character }).collect()
}
