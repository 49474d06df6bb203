//! All jobs of a job manager: [`Jobs`]. It starts them in the order in which they were submitted, so many at once, and
//! answers what is asked about them. HTTP and the page are made of its methods.
//!
//! 1. Everything runs on one thread; its lock is held for moments, and never while something is waited for.
//! 2. A job is in one place: it waits (`waiting`), lives (`live`), is being changed by one request (`busy`), or is
//!    over.
//! 3. A record that says that a job is over is written after its outcome is on the disk.

mod act;
mod adopt;
mod end;
mod files;
mod find;
mod submit;
mod supervise;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sage_api::api::Queue;
use sage_api::home::{JobFolder, ManagerFolder};
use sage_api::job::{JobRecord, JobSpec};
use tokio::sync::{Notify, watch};

pub(crate) use self::act::Action;
pub(crate) use self::files::Piece;
use crate::arrivals::Arrivals;
use crate::live::Live;
use crate::record;
use crate::retention::Retention;
use crate::store::{Store, StoreError};
use crate::values::Values;

/// How many jobs may wait.
const MOST_WAITING: usize = 10_000;

/// How many deletions are remembered for those who watch.
const MOST_DELETIONS: usize = 10_000;

/// Why something cannot be done with a job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// There is no such job.
    #[error("there is no job {0}: `sage job list` shows those there are")]
    NotFound(String),
    /// Several have ids that begin so.
    #[error("several jobs have an id that begins with {prefix}: {}", candidates.join(", "))]
    Ambiguous {
        /// How they begin.
        prefix: String,
        /// Their ids, the newest first.
        candidates: Vec<String>,
    },
    /// It is not the moment.
    #[error("{0}")]
    Conflict(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// It makes sense, and is not done.
    #[error("{0}")]
    Refused(String),
    /// The job manager is at its limits.
    #[error("{0}")]
    TooMany(String),
    /// The records failed.
    #[error("the job manager's records failed")]
    Store(#[from] StoreError),
    /// The system failed.
    #[error("the job manager's files failed")]
    System(#[from] io::Error),
}

/// What a job manager is started with, as far as its jobs go.
#[derive(Debug)]
pub(crate) struct JobOptions {
    pub(crate) folder: ManagerFolder,
    /// The folder of this session's log files.
    pub(crate) logs: PathBuf,
    /// What starts `sage`.
    pub(crate) sage: Vec<OsString>,
    /// How many jobs run at once.
    pub(crate) limit: usize,
    pub(crate) retention: Retention,
}

/// The jobs of a job manager.
#[derive(Debug, Clone)]
pub(crate) struct Jobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: JobOptions,
    arrivals: Arc<Arrivals>,
    table: Mutex<Table>,
    /// The last change of a record.
    changed: watch::Sender<u64>,
    /// How many jobs were found at the start of which it is not known whether they live.
    adopting: watch::Sender<usize>,
    /// A job has ended: something may have to be deleted.
    ended: Notify,
}

#[derive(Debug)]
struct Table {
    store: Store,
    waiting: VecDeque<Waiting>,
    live: BTreeMap<String, Arc<Live>>,
    busy: HashSet<String>,
    values: Values,
    /// The latest deletions, by the number of their change.
    deletions: VecDeque<(u64, String)>,
    /// Whether no job is started any more.
    is_closing: bool,
}

/// A job that waits.
#[derive(Debug)]
struct Waiting {
    spec: JobSpec,
    record: JobRecord,
}

/// What has changed: records that are new or otherwise, and the ids of jobs that were deleted.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The records.
    pub records: Vec<JobRecord>,
    /// The ids.
    pub deleted: Vec<String>,
    /// The number of the last change that this has.
    pub last: u64,
}

impl Jobs {
    pub(crate) fn new(options: JobOptions, store: Store, arrivals: Arc<Arrivals>) -> Self {
        let changed = watch::Sender::new(store.change());
        let table = Table {
            store,
            waiting: VecDeque::new(),
            live: BTreeMap::new(),
            busy: HashSet::new(),
            values: Values::default(),
            deletions: VecDeque::new(),
            is_closing: false,
        };
        let (table, adopting, ended) = (Mutex::new(table), watch::Sender::new(0), Notify::new());
        Self(Arc::new(Inner { options, arrivals, table, changed, adopting, ended }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self, id: &str) -> JobFolder {
        self.0.options.folder.job(id)
    }

    /// How many jobs run at once, do, and wait.
    pub(crate) fn queue(&self) -> Queue {
        let table = self.table();
        let count = |count: usize| count as u64;
        Queue {
            limit: count(self.0.options.limit),
            running: count(table.live.len()),
            queued: count(table.waiting.len()),
        }
    }

    /// Whether it is known of every job that was found at the start whether it lives.
    pub(crate) fn is_ready(&self) -> bool {
        *self.0.adopting.borrow() == 0
    }

    /// The number of the last change of a record: it is told when there is another one.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// What has changed since this change: up to 500 records.
    ///
    /// # Errors
    /// The records failed.
    pub(crate) fn since(&self, change: u64) -> Result<Changes, JobError> {
        const MOST: u64 = 500;
        let mut table = self.table();
        let (records, mut last) = table.store.since(change, MOST)?;
        if (records.len() as u64) < MOST {
            last = last.max(table.store.change());
        }
        let deletions = table.deletions.iter().filter(|(at, _)| *at > change && *at <= last);
        Ok(Changes { records, deleted: deletions.map(|(_, id)| id.clone()).collect(), last })
    }

    /// Waits until some job has ended.
    pub(crate) async fn has_ended(&self) {
        self.0.ended.notified().await;
    }

    pub(crate) fn retention(&self) -> &Retention {
        &self.0.options.retention
    }

    /// Starts the jobs that have waited longest, as many as may run.
    fn start_waiting(&self) {
        loop {
            let (live, inbox, variables) = {
                let mut table = self.table();
                if table.is_closing || table.live.len() >= self.0.options.limit {
                    return;
                }
                let Some(Waiting { spec, mut record }) = table.waiting.pop_front() else { return };
                let variables = table.values.of(&spec.id, &spec.variables);
                record.state = sage_api::job::State::Starting;
                record.why = None;
                record.updated_ms = crate::clock::now_ms();
                table.put(&record);
                let (live, inbox) = Live::new(spec, record);
                table.live.insert(live.spec.id.clone(), live.clone());
                (live, inbox, variables)
            };
            self.tell_changed();
            drop(tokio::spawn(self.clone().start(live, inbox, variables)));
        }
    }

    /// Whoever waits for changes of records looks.
    fn tell_changed(&self) {
        let change = self.table().store.change();
        self.0.changed.send_if_modified(|last| {
            let is_new = *last != change;
            *last = change;
            is_new
        });
    }
}

impl Table {
    /// Writes a record of a job that is not over. What cannot be written is in the folder, and in memory.
    fn put(&mut self, record: &JobRecord) {
        if let Err(error) = self.store.put(record) {
            tracing::error!(job = %record.id, error = &error as &dyn std::error::Error, "its record cannot be written");
        }
        self.put_again();
    }

    /// After the records were made anew from the folders: what is known only here.
    fn put_again(&mut self) {
        if !self.store.take_rebuilt() {
            return;
        }
        let live = self.live.values().map(|live| live.record());
        let known: Vec<_> = live.chain(self.waiting.iter().map(|waiting| waiting.record.clone())).collect();
        for record in known {
            if let Err(error) = self.store.put(&record) {
                tracing::error!(
                    job = %record.id, error = &error as &dyn std::error::Error, "its record cannot be written"
                );
            }
        }
    }

    /// Lets a job wait for its turn.
    fn enqueue(&mut self, spec: JobSpec) -> JobRecord {
        let mut record = record::queued(&spec);
        record.why = Some("it waits until fewer jobs run".to_owned());
        self.put(&record);
        self.waiting.push_back(Waiting { spec, record: record.clone() });
        record
    }
}

impl Jobs {
    pub(crate) fn ended_size(&self) -> Result<(u64, u64), JobError> {
        Ok(self.table().store.ended_size()?)
    }

    pub(crate) fn oldest_ended(&self, limit: u64) -> Result<Vec<crate::store::Ended>, JobError> {
        Ok(self.table().store.oldest_ended(limit)?)
    }
}
