//! A job that is started and not over: what is known of it, and the way to the task that supervises it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sage_api::api::FiguresNow;
use sage_api::job::{JobRecord, JobSpec};
use sage_api::message::Command;
use tokio::sync::{mpsc, oneshot, watch};

use crate::progress::Progress;

/// How much may wait for the task that supervises a job.
const MOST_WAITING: usize = 64;

/// What the supervising task is told.
#[derive(Debug)]
pub(crate) enum ToJob {
    /// To tell the reaper.
    Do(Command),
    /// To have the reaper kill all.
    Kill,
    /// To kill the reaper: its warden ends the job then.
    KillReaper,
    /// To ask the program's jobs for figures.
    Figures(oneshot::Sender<FiguresNow>),
    /// Somebody wants figures from time to time.
    WatchFigures,
}

/// How far a job has come: whoever waits for more is woken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How often its record has changed.
    pub(crate) record: u64,
    /// The length of its events, in bytes.
    pub(crate) events: u64,
    /// The length of its output.
    pub(crate) output: u64,
    /// Whether it is over.
    pub(crate) is_over: bool,
}

/// A job that lives.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) spec: JobSpec,
    state: Mutex<Known>,
    pub(crate) inbox: mpsc::Sender<ToJob>,
    pub(crate) seen: watch::Sender<Seen>,
    pub(crate) figures: watch::Sender<Arc<FiguresNow>>,
}

/// What is known of it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) record: JobRecord,
    pub(crate) progress: Progress,
}

impl Live {
    pub(crate) fn new(spec: JobSpec, record: JobRecord) -> (Arc<Self>, mpsc::Receiver<ToJob>) {
        let (inbox, receiver) = mpsc::channel(MOST_WAITING);
        let state = Mutex::new(Known { record, progress: Progress::default() });
        let (seen, figures) = (watch::Sender::default(), watch::Sender::default());
        (Arc::new(Self { spec, state, inbox, seen, figures }), receiver)
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self) -> JobRecord {
        self.known().record.clone()
    }

    /// Waits until it is over.
    pub(crate) async fn is_over(&self) {
        // It fails if nobody supervises it any more.
        let _ = self.seen.subscribe().wait_for(|seen| seen.is_over).await;
    }
}
