//! Figures of a job: asked for by one request, answered by each job of the engine in its program.

use std::sync::Arc;
use std::time::Duration;

use sage_api::api::{FiguresNow, FiguresOf};
use sage_api::message::{Figures, ToReaper};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Supervisor;

/// How long jobs may take to answer with figures.
const FIGURES: Duration = Duration::from_secs(2);

/// How often figures are asked for while somebody watches them.
const EACH_FIGURES: Duration = Duration::from_millis(250);

/// The figures that are being asked for.
#[derive(Default)]
pub(super) struct Asking {
    request: u64,
    /// How many jobs have not answered.
    missing: usize,
    until: Option<Instant>,
    answers: Vec<FiguresOf>,
    waiting: Vec<oneshot::Sender<FiguresNow>>,
    /// When they are asked for next, if somebody watches.
    next: Option<Instant>,
}

impl Asking {
    /// When something is to be done.
    pub(super) fn due(&self) -> Option<Instant> {
        self.until.or(self.next)
    }

    /// Somebody wants them from time to time.
    pub(super) fn watch(&mut self) {
        self.next.get_or_insert_with(Instant::now);
    }
}

impl Supervisor<'_> {
    /// Asks for them once.
    pub(super) async fn ask_for(&mut self, answer: oneshot::Sender<FiguresNow>) {
        self.figures.waiting.push(answer);
        if self.figures.until.is_none() {
            self.ask().await;
        }
    }

    /// A job has answered.
    pub(super) fn figures_come(&mut self, request: u64, job: String, figures: Figures) {
        let asking = &mut self.figures;
        if request != asking.request {
            return;
        }
        asking.answers.push(FiguresOf { id: job, figures });
        asking.missing = asking.missing.saturating_sub(1);
        if asking.missing == 0 {
            self.answer();
        }
    }

    /// Some time has come: for new figures, or for doing without those that are missing.
    pub(super) async fn ask_or_answer(&mut self) {
        if self.figures.until.is_some() {
            self.answer();
        } else if self.live.figures.receiver_count() > 0 {
            self.ask().await;
        } else {
            self.figures.next = None;
        }
    }

    async fn ask(&mut self) {
        let asking = &mut self.figures;
        asking.request += 1;
        asking.answers.clear();
        asking.missing = self.live.known().progress.live_jobs();
        asking.until = Some(Instant::now() + FIGURES);
        let told = match &mut self.link {
            Some(link) if asking.missing > 0 => link.tell(ToReaper::Figures { request: asking.request }).await.is_ok(),
            _ => false,
        };
        if !told {
            self.answer();
        }
    }

    pub(super) fn answer(&mut self) {
        let asking = &mut self.figures;
        asking.until = None;
        if asking.next.is_some() {
            asking.next = Some(Instant::now() + EACH_FIGURES);
        }
        // What comes later is no answer any more.
        asking.request += 1;
        let mut jobs = std::mem::take(&mut asking.answers);
        let known = self.live.known();
        jobs.sort_by_key(|of| known.progress.jobs().iter().position(|job| job.id == of.id));
        drop(known);
        let now = FiguresNow { jobs };
        for waiting in asking.waiting.drain(..) {
            // Nobody may wait for it any more.
            let _ = waiting.send(now.clone());
        }
        if self.live.figures.receiver_count() > 0 && !now.jobs.is_empty() {
            self.live.figures.send_replace(Arc::new(now));
        }
    }
}
