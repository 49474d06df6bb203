//! The program's side: tells the reaper of a job, and does what the reaper says.
//!
//! Three threads for each job, all joined before its end has been told: one writes its changes of state as they come
//! about, one reads commands, and one answers with figures. Nothing is written otherwise, and the job waits for
//! neither. If the reaper is gone or does not read, the job goes on untold.

use std::env;
use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use sage::{Environment, JobHandle, JobReport, JobView, RunError, SubmitError};
use serde::Serialize;

use crate::message::{self, Begins, Command, Dialled, Figures, FromEngine, ThreadNow, ToEngine};
use crate::{socket, threads};

/// The variable with the path of the reaper's socket.
pub const SOCKET_VARIABLE: &str = "SAGE_JOB_SOCKET";

/// How long the reaper may take to read a message, and to note the end of a job.
const PATIENCE: Duration = Duration::from_secs(2);

/// As [`Environment::run`], and tells the job manager, or `sage run`, if the program runs under one.
///
/// ```
/// let env = sage::Environment::local("told");
/// env.from_iter([1, 2, 3]).sink(|_| {});
/// let report = sage_api::run(&env)?;
/// # Ok::<(), sage::RunError>(())
/// ```
///
/// # Errors
/// Those of [`Environment::run`]. Whether the job can be told of is not one.
pub fn run(env: &Environment) -> Result<JobReport, RunError> {
    match Reporter::find() {
        None => env.run(),
        Some(reporter) => reporter.submit(env)?.wait(),
    }
}

/// As [`Environment::submit`], and tells the job manager, or `sage run`, if the program runs under one.
///
/// # Errors
/// Those of [`Environment::submit`].
pub fn submit(env: &Environment) -> Result<ToldJob, SubmitError> {
    match Reporter::find() {
        None => Ok(ToldJob { handle: env.submit()?, reporting: Mutex::default() }),
        Some(reporter) => reporter.submit(env),
    }
}

/// Where the jobs of this program are to be told of.
#[derive(Debug, Clone)]
pub struct Reporter {
    socket: PathBuf,
}

impl Reporter {
    /// That of `SAGE_JOB_SOCKET`; `None` if the program does not run under a reaper.
    pub fn find() -> Option<Self> {
        let socket = env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty())?;
        Some(Self { socket: socket.into() })
    }

    /// The reaper that listens at this path.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// As [`Environment::submit`], and tells of the job.
    ///
    /// # Errors
    /// Those of [`Environment::submit`].
    pub fn submit(&self, env: &Environment) -> Result<ToldJob, SubmitError> {
        let prepared = env.prepare()?;
        let view = prepared.view();
        let handle = prepared.start()?;
        Ok(ToldJob { handle, reporting: Mutex::new(self.begins(&view).ok()) })
    }

    /// Tells of a job that begins.
    ///
    /// # Errors
    /// Nobody listens, or there are no more threads or descriptors. The job can go on untold.
    pub fn begins(&self, job: &JobView) -> io::Result<Reporting> {
        self.begins_with(job, threads::threads_of_this_process)
    }

    /// As [`Self::begins`], with what tells where the threads of the process are, for figures. It runs on a thread of
    /// its own, which keeps no command waiting, and is waited for at the job's end.
    ///
    /// # Errors
    /// Those of [`Self::begins`].
    pub fn begins_with(
        &self,
        job: &JobView,
        threads: impl Fn() -> Vec<ThreadNow> + Send + 'static,
    ) -> io::Result<Reporting> {
        let link = Arc::new(Link::dial(&self.socket)?);
        link.tell(&Dialled::Job(Begins {
            version: message::VERSION,
            job: job.id().to_owned(),
            environment: job.graph().environment.clone(),
            pid: std::process::id(),
            log_folder: job.log_dir().map(|folder| folder.display().to_string()),
            graph: job.graph().clone(),
        }))?;
        let (noted, is_noted) = mpsc::channel();
        let mut reporting = Reporting { link: link.clone(), threads: Vec::new(), is_noted };
        let (ask, asked) = mpsc::channel();
        let (told, view) = (link.clone(), job.clone());
        let [commands, changing, figures] = threads::OWN;
        reporting.spawn(commands, move || obey(&told, &view, &noted, &ask))?;
        let (told, view) = (link.clone(), job.clone());
        reporting.spawn(figures, move || answer(&told, &view, &asked, threads))?;
        let changes = job.changes();
        reporting.spawn(changing, move || {
            for change in changes {
                if link.tell(&FromEngine::Changed(change)).is_err() {
                    return;
                }
            }
        })?;
        Ok(reporting)
    }
}

/// A job of which the reaper is told, if the program runs under one. It dereferences to the job's handle.
///
/// Dropping it before the job is over cancels the job, and blocks until it is over, as for a [`JobHandle`].
#[derive(Debug)]
#[must_use = "dropping it cancels the job"]
pub struct ToldJob {
    handle: JobHandle,
    /// Until the end is told.
    reporting: Mutex<Option<Reporting>>,
}

impl Deref for ToldJob {
    type Target = JobHandle;

    fn deref(&self) -> &JobHandle {
        &self.handle
    }
}

impl ToldJob {
    /// As [`JobHandle::wait`], and until the reaper has noted the end.
    ///
    /// # Errors
    /// Those of [`JobHandle::wait`].
    pub fn wait(&self) -> Result<JobReport, RunError> {
        let ended = self.handle.wait();
        let reporting = match &ended {
            Err(RunError::WaitsForItself { .. } | RunError::Forked) => None,
            _ => self.reporting.lock().unwrap_or_else(PoisonError::into_inner).take(),
        };
        if let Some(reporting) = reporting {
            reporting.ended(ended.as_ref().ok().or_else(|| ended.as_ref().err().and_then(RunError::report)));
        }
        ended
    }
}

impl Drop for ToldJob {
    fn drop(&mut self) {
        self.handle.cancel();
        // Whoever wants to know has waited.
        drop(self.wait());
    }
}

/// A job that the reaper is being told of. Dropped, it waits until the job is over, and tells nothing of its end.
#[derive(Debug)]
pub struct Reporting {
    link: Arc<Link>,
    threads: Vec<JoinHandle<()>>,
    is_noted: Receiver<()>,
}

impl Reporting {
    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(body);
        self.threads.push(thread.inspect_err(|_| self.link.hang_up())?);
        Ok(())
    }

    /// Tells of the job's end, after which nothing of this is left: the job has to be over. Returns when the reaper has
    /// noted it, or after some seconds.
    pub fn ended(mut self, report: Option<&JobReport>) {
        // All its changes are told before its end is: the last thread tells them.
        if let Some(changes) = self.threads.pop() {
            joined(changes);
        }
        let told = report.map(|report| self.link.tell(&FromEngine::Ended(Box::new(report.clone()))));
        if let Some(Ok(())) = told {
            // It was noted, or the reaper is gone, or has no time.
            let _ = self.is_noted.recv_timeout(PATIENCE);
        }
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.link.hang_up();
        self.threads.drain(..).for_each(joined);
    }
}

/// Neither thread runs code that may panic.
fn joined(thread: JoinHandle<()>) {
    let _ = thread.join();
}

/// Answers those who ask for figures, by the number of the request.
fn answer(link: &Link, job: &JobView, asked: &Receiver<u64>, threads: impl Fn() -> Vec<ThreadNow>) {
    let begun = Instant::now();
    while let Ok(request) = asked.recv() {
        let (elapsed, metrics, unfinished) = (begun.elapsed(), job.metrics(), job.unfinished());
        let figures = Box::new(Figures { elapsed, metrics, unfinished, threads: threads() });
        if link.tell(&FromEngine::Figures { request, figures }).is_err() {
            return;
        }
    }
}

fn obey(link: &Link, job: &JobView, noted: &Sender<()>, ask: &Sender<u64>) {
    let mut lines = BufReader::new(&link.stream);
    while let Ok(Some(told)) = message::next(&mut lines) {
        match told {
            ToEngine::Do(Command::Drain) => job.drain(),
            ToEngine::Do(Command::Cancel) => job.cancel(),
            ToEngine::Do(Command::Pause) => job.pause(),
            ToEngine::Do(Command::Resume) => job.resume(),
            // It fails if that thread is gone, as the reaper is.
            ToEngine::Figures { request } => drop(ask.send(request)),
            // Nobody may wait for it any more.
            ToEngine::Noted => drop(noted.send(())),
        }
    }
}

/// The connection. Of what was written to it once without success, nothing more is.
#[derive(Debug)]
struct Link {
    stream: UnixStream,
    writes: Mutex<()>,
}

impl Link {
    fn dial(path: &std::path::Path) -> io::Result<Self> {
        let stream = socket::connect(path)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, writes: Mutex::new(()) })
    }

    fn tell(&self, message: &impl Serialize) -> io::Result<()> {
        let line = message::line(message)?;
        // A line of one thread is not torn by one of the other.
        let _writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(&line).inspect_err(|_| self.hang_up())
    }

    fn hang_up(&self) {
        // It fails if the reaper is gone.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
