//! Puts a job together: makes tasks, services and a dispatcher over a backend from an environment's declarations.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;

use super::cause::Origin;
use super::dispatcher::Dispatcher;
use super::figures::Figures;
use super::handle::{JobHandle, JobShared};
use super::log::SessionLog;
use super::plan::{Deadlines, TaskRecord};
use super::report::JobReport;
use super::serving::Serving;
use super::signals::{Listening, SignalPolicy};
use super::view::JobView;
use crate::backend::inline::InlineBackend;
use crate::backend::local::LocalBackend;
use crate::backend::{Backend, Command, Event, Ground, StuckProbe, Threads, event_queue, room};
use crate::clock::Clock;
use crate::control::{JobControl, WorksFor};
use crate::graph::{Graph, Index, JobGraph, LaneOptions, SharedGraph, validate, wiring};
use crate::guarded::{Guarded, guard};
use crate::runtime::JobRuntime;
use crate::service::{PauseJob, Registry, ServiceState, StartEnded, order};
use crate::submit_error::SubmitError;
use crate::sync::lock;
use crate::task::{Polling, RouseThread};
use crate::thread::OwnThread;

/// What an environment says of its jobs.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) inline: bool,
    pub(crate) signals: SignalPolicy,
    pub(crate) deadlines: Deadlines,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) log_dir: Option<PathBuf>,
    pub(crate) block_records: Option<usize>,
    pub(crate) queue_blocks: Option<usize>,
    pub(crate) queue_bytes: usize,
    pub(crate) flush_interval: Duration,
    pub(crate) clock: Option<Clock>,
    pub(crate) runtime: Option<Handle>,
    pub(crate) stuck_probe: Option<StuckProbe>,
    pub(crate) threads: Threads,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inline: false,
            signals: SignalPolicy::default(),
            deadlines: Deadlines::default(),
            time_limit: None,
            log_dir: None,
            block_records: None,
            queue_blocks: None,
            queue_bytes: 64 << 20,
            flush_interval: Duration::from_millis(1),
            clock: None,
            runtime: None,
            stuck_probe: None,
            threads: Threads::default(),
        }
    }
}

/// The range of the two sizes of a lane.
const MAX_BLOCK_RECORDS: usize = 1 << 20;
const MAX_QUEUE_BLOCKS: usize = 1 << 16;
/// The range of a thread's stack.
const MIN_STACK_BYTES: usize = 64 << 10;
const MAX_STACK_BYTES: usize = 1 << 40;

impl Options {
    /// Checks the sizes.
    fn check(&self) -> Result<(), SubmitError> {
        let check = |option, value, min: usize, max: usize, range| match value {
            value if (min..=max).contains(&value) => Ok(()),
            value => Err(SubmitError::Option { option, value, range }),
        };
        let block_records = self.block_records.unwrap_or(1);
        check("block_records", block_records, 1, MAX_BLOCK_RECORDS, "it may be 1 to 1048576")?;
        let queue_blocks = self.queue_blocks.unwrap_or(2);
        check("queue_blocks", queue_blocks, 2, MAX_QUEUE_BLOCKS, "it may be 2 to 65536")?;
        check("queue_bytes", self.queue_bytes, 1, usize::MAX, "it may be 1 or more")?;
        let stack_bytes = self.threads.stack_bytes.unwrap_or(MIN_STACK_BYTES);
        check("stack_bytes", stack_bytes, MIN_STACK_BYTES, MAX_STACK_BYTES, "it may be 65536 to 1099511627776")
    }
}

/// What an environment is being used for: shared by it and its jobs.
pub(crate) type Claims = Arc<Mutex<Use>>;

/// What an environment is being used for.
#[derive(Debug, Default)]
pub(crate) enum Use {
    #[default]
    Idle,
    Running,
    LeftBehind(String),
}

/// Checks what was declared in an environment, and makes a job of it. Nothing has started yet when that returns.
pub(crate) fn prepare(
    name: &str,
    options: &Options,
    graph: &SharedGraph,
    registry: &Arc<Registry>,
    claims: &Claims,
) -> Result<PreparedJob, SubmitError> {
    let in_use = InUse::claim(name, claims)?;
    options.check()?;
    let services = registry.all();
    order::check(&services)?;
    let (events, queue) = event_queue();
    let clock = options.clock.clone().unwrap_or_else(Clock::system);
    let control = Arc::new(JobControl::new(clock));
    control.clock().rouses(&control);
    let job = WorksFor::new_job();
    let runtime = Arc::new(JobRuntime::new(options.runtime.clone(), job));
    let lanes = LaneOptions {
        block_records: options.block_records,
        queue_blocks: options.queue_blocks,
        queue_bytes: options.queue_bytes,
        inline: options.inline,
        flush_interval: if options.inline { Duration::ZERO } else { options.flush_interval },
    };
    // Building runs the user's factories, so the graph is not locked meanwhile.
    let graph = graph.take();
    let index = validate(&graph)?;
    if options.inline
        && let Some(serving) = graph.serving.first()
    {
        let message = "inline, no thread could wait for the answer of a pipeline that is a service".to_owned();
        return Err(SubmitError::OperatorOption { operator: graph.node(serving.node).name.clone(), message });
    }
    let serving = Serving::new(&graph, &index);
    let job_graph = Arc::new(JobGraph::new(name, &graph, &index, services.iter().map(|entry| &**entry)));
    if !options.inline {
        // Before the tasks the services start, at first all that come after no other; besides there is the
        // dispatcher's.
        let first_services = services.iter().filter(|entry| entry.after.is_empty()).count();
        room::check(job_graph.tasks.len().max(first_services) + 1)?;
    }
    let log = match options.log_dir.clone().or_else(log_dir_of_process) {
        Some(dir) => SessionLog::open(&dir, name)?,
        None => SessionLog::default(),
    };
    let listening = Listening::start(options.signals, &events).map_err(SubmitError::Threads)?;
    // Last of what can fail: building takes the sources that can be read once.
    let inline = || options.inline.then(|| events.clone());
    let rouse = inline().map(|events| Arc::new(move || events.send(Event::Roused)) as RouseThread);
    let polling = Polling { runtime: runtime.clone(), rouse };
    let (tasks, counters) = build(&graph, &index, &control, &lanes, polling)?;
    let tasks: Vec<_> = tasks.into_iter().map(|(task, activity)| TaskRecord::new(task, activity)).collect();
    let cursors = tasks.iter().map(|task| task.cursor.clone()).collect();
    let figures = Arc::new(Figures::new(job_graph, &graph, counters, services.clone(), cursors));
    drop(graph);
    services.iter().for_each(|entry| entry.reset());
    let started = inline()
        .map(|events| Arc::new(move |service, end| events.send(Event::StartEnded { service, end })) as StartEnded);
    let commands = events.clone();
    let pause: PauseJob = Arc::new(move |pause| commands.send(Event::Command(Command::Outage(pause))));
    registry.begin(&services, serving.services(), &control, &pause, runtime.clone(), started);
    let log_dir = log.environment().map(Path::to_owned);
    let shared = Arc::new(JobShared::new(job_id(), events.clone(), figures, registry.clone(), job, log_dir));
    let (stuck_probe, threads) = (options.stuck_probe.clone(), options.threads.clone());
    let ground = Ground { control, runtime: runtime.clone(), events, queue, stuck_probe, job, threads };
    let backend: Box<dyn Backend + Send> = match options.inline {
        true => Box::new(InlineBackend::new(ground)),
        false => Box::new(LocalBackend::new(ground)),
    };
    let mut dispatcher = Dispatcher::new(backend, options.deadlines, options.time_limit, tasks, runtime, shared, log);
    dispatcher.serve(serving);
    Ok(PreparedJob { dispatcher, in_use, _listening: listening })
}

/// Where the process is told to write log files, for environments that do not say.
fn log_dir_of_process() -> Option<PathBuf> {
    std::env::var_os("SAGE_LOG_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

fn build(
    graph: &Graph,
    index: &Index,
    control: &Arc<JobControl>,
    lanes: &LaneOptions,
    polling: Polling,
) -> Result<wiring::Built, SubmitError> {
    guard(|| wiring::build(graph, index, control, lanes, polling)).unwrap_or_else(|what| {
        let message = format!("a `Drop` panicked: {what}");
        Err(SubmitError::Factory { operator: "pipeline".to_owned(), message })
    })
}

/// A job that is put together and has not started: see [`Environment::prepare`](crate::Environment::prepare). If it is
/// dropped, nothing of it runs.
#[must_use = "nothing runs before `start`"]
pub struct PreparedJob {
    dispatcher: Dispatcher,
    in_use: InUse,
    _listening: Listening,
}

impl fmt::Debug for PreparedJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedJob").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl PreparedJob {
    /// The id that the job will have, unique on this machine.
    pub fn id(&self) -> &str {
        self.dispatcher.shared().id()
    }

    /// What it consists of.
    pub fn graph(&self) -> &JobGraph {
        self.dispatcher.shared().graph()
    }

    /// As [`JobView::log_dir`].
    pub fn log_dir(&self) -> Option<&Path> {
        self.dispatcher.shared().log_dir()
    }

    /// The job, for whoever watches it: from its first change of state on.
    pub fn view(&self) -> JobView {
        JobView::new(self.dispatcher.shared().clone())
    }

    /// The report; `None` if the engine itself panicked.
    pub(crate) fn run(self) -> Option<JobReport> {
        let Self { mut dispatcher, mut in_use, _listening } = self;
        let report = guard(|| dispatcher.run()).ok();
        // It has the last of some users' values, such as those in events that came too late.
        drop(guard(move || drop(dispatcher)));
        in_use.left = report.as_ref().map_or_else(|| Some("the job".to_owned()), still_running);
        report
    }

    /// Starts it, on a thread of its own.
    ///
    /// # Errors
    /// [`SubmitError::Threads`] if there is no thread for it. Nothing has run then.
    pub fn start(self) -> Result<JobHandle, SubmitError> {
        let shared = self.dispatcher.shared().clone();
        let end = shared.clone();
        // Under guard where no thread is to be had: what it dropped then is users' chains.
        let prepared = Guarded::new(self, None);
        let run = move || {
            end.job().enter();
            let report = prepared.into_inner().run();
            end.changes().close();
            end.end().finish(report);
        };
        let runner = OwnThread::spawn("sage-dispatcher", run).map_err(SubmitError::Threads)?;
        shared.end().set_runner(runner);
        Ok(JobHandle::new(shared))
    }
}

/// What may still be using the environment's functions and services after a job.
fn still_running(report: &JobReport) -> Option<String> {
    let is_left = |name: &str| report.left.iter().any(|left| left.what == format!("service `{name}`"));
    let mut services = report.services.iter();
    let abandoned = services.find(|service| service.state == ServiceState::Abandoned && is_left(&service.name));
    let mut causes = report.first_cause.iter().chain(&report.attached);
    let stuck = causes.find_map(|cause| match &cause.origin {
        Origin::Task { name, .. } => Some(format!("task `{name}`")),
        _ => None,
    });
    stuck.or_else(|| abandoned.map(|service| format!("service `{}`", service.name)))
}

/// Keeps an environment from running two jobs at once.
struct InUse {
    claims: Claims,
    left: Option<String>,
}

impl InUse {
    fn claim(environment: &str, claims: &Claims) -> Result<Self, SubmitError> {
        let environment = || environment.to_owned();
        let mut now = lock(claims);
        match &*now {
            Use::Running => Err(SubmitError::AlreadyRunning { environment: environment() }),
            Use::LeftBehind(left) => Err(SubmitError::LeftBehind { environment: environment(), left: left.clone() }),
            Use::Idle => {
                *now = Use::Running;
                Ok(Self { claims: claims.clone(), left: None })
            }
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        *lock(&self.claims) = self.left.take().map_or(Use::Idle, Use::LeftBehind);
    }
}

/// Unique on this machine: the time, the process, and a number within it.
fn job_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{time:x}-{:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
