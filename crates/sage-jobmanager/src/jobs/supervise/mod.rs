//! What watches one job: starts its reaper or finds it, listens to it, and says what has become of the job.
//!
//! It waits for events alone: a line of the reaper, its end (by a descriptor of its process), a request, or something
//! new in the job's folder while the reaper does not listen yet.

mod figures;
mod reaped;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use sage_api::home::JobFolder;
use sage_api::message::{FromReaper, ToReaper, VERSION};
use sage_api::outcome::{ProgramEnd, ReaperIs};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::figures::Asking;
use super::Jobs;
use crate::link::Link;
use crate::live::{Live, ToJob};
use crate::process::Opened;
use crate::progress::read_events;
use crate::sweep::processes_of;
use crate::{folder, record, spawn};

/// How long lines of a reaper that is gone are read.
const REST: Duration = Duration::from_secs(2);

/// How many bytes of events are read without letting others have their turn.
const MANY: u64 = 256 << 10;

/// When a reaper that has hung up is dialled again: first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Watches one job.
struct Supervisor<'j> {
    jobs: &'j Jobs,
    live: &'j Live,
    files: JobFolder,
    link: Option<Link>,
    /// What is to be told as soon as there is a link.
    held: Vec<ToReaper>,
    warden: Option<Opened>,
    /// How much of the events is known, in bytes.
    events: u64,
    figures: Asking,
    is_adopting: bool,
}

impl Jobs {
    /// Starts the reaper of a job, and watches the job until it is over.
    pub(super) async fn start(
        self,
        live: Arc<Live>,
        inbox: mpsc::Receiver<ToJob>,
        variables: Result<BTreeMap<String, String>, String>,
    ) {
        let end = match variables {
            Err(name) => record::not_started(sage::Outcome::Failed, gone(&name)),
            Ok(variables) => match self.spawned(&live, variables).await {
                Ok(Some(reaper)) => Supervisor::new(&self, &live, false).watch(reaper, inbox).await,
                Ok(None) => Supervisor::new(&self, &live, false).ended().await,
                Err(error) => {
                    let why = format!("its reaper could not be started: {error}");
                    record::not_started(sage::Outcome::Failed, why)
                }
            },
        };
        self.end(&live, &end).await;
    }

    /// Starts a reaper; `None` if it had to be killed, because it could not be watched.
    async fn spawned(&self, live: &Live, variables: BTreeMap<String, String>) -> io::Result<Option<Opened>> {
        let (files, spec, sage) = (self.files(&live.spec.id), live.spec.clone(), self.0.options.sage.clone());
        let spawn = move || spawn::spawn(&sage, &files, &spec, &variables);
        let pid = tokio::task::spawn_blocking(spawn).await.map_err(io::Error::other)??;
        tracing::info!(job = %live.spec.id, pid, "its reaper is started");
        match Opened::child(pid) {
            Ok(reaper) => Ok(Some(reaper)),
            Err(error) => {
                tracing::error!(job = %live.spec.id, %error, "its reaper cannot be watched, and is killed");
                spawn::kill(pid)?;
                Ok(None)
            }
        }
    }

    /// Watches a job that an earlier job manager has started.
    pub(super) async fn adopt(self, live: Arc<Live>, inbox: mpsc::Receiver<ToJob>) {
        let mut supervisor = Supervisor::new(&self, &live, true);
        let reaper = supervisor.found();
        tracing::info!(job = %live.spec.id, lives = reaper.is_some(), "adopted");
        let end = match reaper {
            Some(reaper) => supervisor.watch(reaper, inbox).await,
            None => supervisor.ended().await,
        };
        self.end(&live, &end).await;
    }
}

/// Why a job is not started whose variable has no value.
pub(super) fn gone(variable: &str) -> String {
    format!(
        "the value of the variable {variable} is gone: values are kept in memory only, and the job manager was \
         restarted; submit the job again"
    )
}

impl<'j> Supervisor<'j> {
    fn new(jobs: &'j Jobs, live: &'j Live, is_adopting: bool) -> Self {
        let files = jobs.files(&live.spec.id);
        Self {
            jobs,
            live,
            files,
            link: None,
            held: Vec::new(),
            warden: None,
            events: 0,
            figures: Asking::default(),
            is_adopting,
        }
    }

    /// The reaper that an earlier job manager has started, if it lives.
    fn found(&mut self) -> Option<Opened> {
        if let Some(is) = self.reaper_is() {
            self.warden = is.warden.as_ref().and_then(|warden| Opened::recorded(warden).ok().flatten());
            return Opened::recorded(&is.process).ok().flatten();
        }
        // It may be about to say who it is.
        processes_of(&self.live.spec.id).into_iter().next().map(|(_, reaper)| reaper)
    }

    fn reaper_is(&self) -> Option<ReaperIs> {
        folder::read_json(&self.files.reaper()).ok().flatten()
    }

    /// Watches until the reaper has ended, and returns what has become of the job.
    async fn watch(mut self, reaper: Opened, mut inbox: mpsc::Receiver<ToJob>) -> ProgramEnd {
        let arrivals = self.jobs.0.arrivals.watch(self.files.path());
        let mut again: Option<(Instant, Duration)> = None;
        // A folder that cannot be watched is looked at from time to time.
        if let Err(error) = &arrivals {
            tracing::warn!(job = %self.live.spec.id, %error, "its folder cannot be watched");
            again = Some((Instant::now() + AGAIN.0, AGAIN.0));
        }
        self.dial().await;
        // It may not listen yet, but it lives.
        self.is_known();
        loop {
            let (has_link, figures) = (self.link.is_some(), self.figures.due());
            tokio::select! {
                line = next(&mut self.link), if has_link => match line {
                    Ok(Some(line)) => self.hear(line),
                    other => {
                        tracing::debug!(job = %self.live.spec.id, ?other, "its reaper has hung up");
                        self.link = None;
                        again = Some((Instant::now() + AGAIN.0, AGAIN.0));
                    }
                },
                () = reaper.ended() => break,
                Some(told) = inbox.recv() => self.obey(told, &reaper).await,
                () = changed(arrivals.as_ref().ok()), if !has_link => self.dial().await,
                () = sleep_until_some(again.map(|(at, _)| at)), if !has_link && again.is_some() => {
                    let waited = again.map_or(AGAIN.0, |(_, waited)| waited);
                    let wait = (waited * 2).min(AGAIN.1);
                    self.dial().await;
                    again = self.link.is_none().then(|| (Instant::now() + wait, wait));
                }
                () = sleep_until_some(figures), if figures.is_some() => self.ask_or_answer().await,
            }
        }
        drop(arrivals);
        self.ended().await
    }

    /// Dials the reaper, if it listens, and takes up what it has written before.
    async fn dial(&mut self) {
        let Ok(mut link) = Link::dial(&self.files).await else { return };
        // The first line says how far the files are.
        match timeout(REST, link.next()).await {
            Ok(Ok(Some(FromReaper::Here { version, events, output }))) => {
                if version != VERSION {
                    tracing::warn!(job = %self.live.spec.id, version, "its reaper is of another version");
                }
                self.catch_up(events).await;
                self.live.seen.send_modify(|seen| seen.output = seen.output.max(output));
            }
            other => {
                tracing::warn!(job = %self.live.spec.id, ?other, "its reaper does not say that it is here");
                return;
            }
        }
        if self.warden.is_none() {
            let warden = self.reaper_is().and_then(|is| is.warden);
            self.warden = warden.and_then(|warden| Opened::recorded(&warden).ok().flatten());
        }
        for told in std::mem::take(&mut self.held) {
            if link.tell(told).await.is_err() {
                self.held.push(told);
            }
        }
        self.link = Some(link);
    }

    /// Its reaper lives, or it is over: what was found at the start is known now.
    fn is_known(&mut self) {
        if std::mem::take(&mut self.is_adopting) {
            self.jobs.0.adopting.send_modify(|count| *count -= 1);
        }
    }

    /// Reads the events of the file up to this length.
    async fn catch_up(&mut self, until: u64) {
        let (path, from) = (self.files.events(), self.events);
        let length = path.metadata().map_or(0, |about| about.len());
        let mut progress = self.live.known().progress.clone();
        let read = move || {
            let read = read_events(&path, from, until, &mut |event, _| {
                progress.note(&event);
                true
            });
            (progress, read)
        };
        // Many take a while, which others are not to wait for.
        let read = match length.min(until).saturating_sub(from) {
            ..MANY => Ok(read()),
            _ => tokio::task::spawn_blocking(read).await,
        };
        match read {
            Ok((progress, Ok(at))) => {
                self.live.known().progress = progress;
                self.events = at;
            }
            Ok((_, Err(error))) => tracing::warn!(job = %self.live.spec.id, %error, "its events cannot be read"),
            Err(error) => tracing::error!(job = %self.live.spec.id, %error, "its events were not read"),
        }
        self.note_progress();
    }

    fn hear(&mut self, line: FromReaper) {
        match line {
            FromReaper::Event { line, events } => {
                // One that no file keeps is told with the length as it was; what is shorter was read there.
                if events < self.events {
                    return;
                }
                self.live.known().progress.note(&line);
                self.events = self.events.max(events);
                self.note_progress();
            }
            FromReaper::Output { output } => self.live.seen.send_modify(|seen| seen.output = seen.output.max(output)),
            FromReaper::Figures { request, job, figures } => self.figures_come(request, job, *figures),
            FromReaper::Here { .. } => {}
        }
    }

    /// Puts what the events say into the record.
    fn note_progress(&mut self) {
        let changed = {
            let mut known = self.live.known();
            let (state, started_ms) = (known.progress.state(), known.progress.started_ms());
            let is_changed = known.record.state != state || known.record.started_ms != started_ms;
            is_changed.then(|| {
                let record = &mut known.record;
                (record.state, record.started_ms) = (state, started_ms);
                record.why = why_not_running(state);
                record.updated_ms = crate::clock::now_ms();
                record.clone()
            })
        };
        if let Some(record) = &changed {
            self.jobs.table().put(record);
            self.jobs.tell_changed();
        }
        let events = self.events;
        self.live.seen.send_modify(|seen| {
            seen.events = events;
            seen.record += u64::from(changed.is_some());
        });
    }

    async fn obey(&mut self, told: ToJob, reaper: &Opened) {
        let told = match told {
            ToJob::Do(command) => ToReaper::Do(command),
            ToJob::Kill => ToReaper::Kill,
            ToJob::KillReaper => {
                // What it has left is ended by its warden, or by a sweep.
                if let Err(error) = reaper.signal(Signal::SIGKILL) {
                    tracing::error!(job = %self.live.spec.id, %error, "its reaper cannot be killed");
                }
                return;
            }
            ToJob::Figures(answer) => return self.ask_for(answer).await,
            ToJob::WatchFigures => return self.figures.watch(),
        };
        let is_told = match &mut self.link {
            Some(link) => link.tell(told).await.is_ok(),
            None => false,
        };
        if !is_told {
            self.held.push(told);
        }
    }
}

/// In a line, why a job that is not over does not run.
fn why_not_running(state: sage_api::job::State) -> Option<String> {
    use sage_api::job::State as S;
    let words = match state {
        S::Starting => "its program has no job of the engine that runs yet",
        S::Paused => "it was paused: resume goes on, drain and cancel end it",
        S::Draining => "it is ending: what is in flight is finished, or dropped",
        S::Stopping => "its services are stopped and cleaned",
        _ => return None,
    };
    Some(words.to_owned())
}

async fn next(link: &mut Option<Link>) -> io::Result<Option<FromReaper>> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

async fn changed(arrivals: Option<&crate::arrivals::Watched>) {
    match arrivals {
        Some(arrivals) => arrivals.changed().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => sleep(Duration::MAX).await,
    }
}
