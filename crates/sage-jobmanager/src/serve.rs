//! The daemon from its start to its end: [`serve`].

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, fs};

use sage_api::home::{Address, DEFAULT_PORT, Home, ManagerFolder};
use sage_api::socket;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};

use crate::arrivals::Arrivals;
use crate::auth::Auth;
use crate::connections::Server;
use crate::folder;
use crate::http::{App, Hosts, router};
use crate::jobs::{JobError, JobOptions, Jobs};
use crate::lock::{Lock, NoLock};
use crate::log::Log;
use crate::retention::{self, Retention};
use crate::signals::Signals;
use crate::store::{Store, StoreError};

/// How many jobs run at once, if nothing else is said.
const USUAL_LIMIT: usize = 8;

/// Threads for what reads and writes files for a while: at most, and how long one waits for more to do.
const FILE_THREADS: (usize, Duration) = (4, Duration::from_secs(2));

/// What a job manager is started with.
pub struct Options {
    /// Where its folder is.
    pub home: Home,
    /// Where it listens: an address of this machine only. 127.0.0.1, if nothing else is said.
    pub host: IpAddr,
    /// The port; 0 for any that is free, with the folder `jobmanager/0`. 19001, if nothing else is said.
    pub port: u16,
    /// How many jobs run at once, 1 at least. 8, if nothing else is said.
    pub limit: usize,
    /// What starts `sage`, before its arguments.
    pub sage: Vec<OsString>,
    /// How long jobs that are over are kept.
    pub retention: Retention,
    /// Called once, when it listens.
    pub ready: Option<Box<dyn FnOnce(&Address)>>,
}

impl Options {
    /// Those that are usual, for a job manager that starts `sage` so.
    pub fn new(home: Home, sage: Vec<OsString>) -> Self {
        Self {
            home,
            host: Ipv4Addr::LOCALHOST.into(),
            port: DEFAULT_PORT,
            limit: USUAL_LIMIT,
            sage,
            retention: Retention::default(),
            ready: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Why a job manager does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It would be reached from other machines.
    #[error(
        "{0} is reached from other machines, and the job manager does not speak TLS: let it listen at 127.0.0.1, and \
         forward the port, for example with `ssh -L`"
    )]
    NotLoopback(IpAddr),
    /// No job could ever run.
    #[error("a job manager that runs no job at once runs none: the limit is 1 at least")]
    NoJobs,
    /// There is one already.
    #[error(
        "a job manager runs already in {}{}: `sage jobmanager status` tells about it",
        folder.display(), process(*pid)
    )]
    Runs {
        /// Its folder.
        folder: PathBuf,
        /// Its process, if it is known.
        pid: Option<u32>,
    },
    /// The port cannot be had.
    #[error("the job manager cannot listen at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Its folder cannot be used.
    #[error("the folder {} of the job manager cannot be used", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The records of its jobs cannot be used.
    #[error("the records of the jobs cannot be used")]
    Store(#[from] StoreError),
    /// Its jobs cannot be taken up.
    #[error("the jobs of an earlier run cannot be taken up")]
    Jobs(#[from] JobError),
    /// The system gave no descriptors or threads.
    #[error("running a job manager takes what the system does not give")]
    System(#[from] io::Error),
}

fn process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// Runs a job manager in this thread, until SIGINT or SIGTERM or a request ends it. Its jobs run on, unless the request
/// says otherwise: the next job manager of this folder takes them up.
///
/// ```no_run
/// use sage_jobmanager::{Options, serve};
///
/// let home = sage_api::home::Home::find().ok_or("neither SAGE_HOME nor HOME is set")?;
/// let mut options = Options::new(home, vec!["/usr/local/bin/sage".into()]);
/// options.limit = 4;
/// options.ready = Some(Box::new(|address| println!("http://{}", address.http)));
/// serve(options)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// See [`ServeError`]. Nothing is left then.
pub fn serve(options: Options) -> Result<(), ServeError> {
    if !options.host.is_loopback() {
        return Err(ServeError::NotLoopback(options.host));
    }
    if options.limit == 0 {
        return Err(ServeError::NoJobs);
    }
    let manager = options.home.manager(options.port);
    let wrong = |source| ServeError::Folder { folder: manager.path().to_owned(), source };
    folder::make(&manager.jobs()).map_err(wrong)?;
    folder::check_own(&[options.home.path(), manager.path(), &manager.jobs()]).map_err(wrong)?;
    let _lock = Lock::take(&manager).map_err(|error| match error {
        NoLock::Held(pid) => ServeError::Runs { folder: manager.path().to_owned(), pid },
        NoLock::System(source) => wrong(source),
    })?;
    let log = Log::begin(&options.home.logs(), options.retention.age).map_err(wrong)?;
    let (threads, keep) = FILE_THREADS;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(threads)
        .thread_keep_alive(keep)
        .thread_stack_size(512 << 10)
        .build()?;
    let served = runtime.block_on(run(options, &manager, &log));
    // What still reads a file is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match &served {
        Ok(()) => tracing::info!("ended"),
        Err(error) => tracing::error!(error = error as &dyn std::error::Error, "ended"),
    }
    log.end();
    served
}

async fn run(options: Options, manager: &ManagerFolder, log: &Log) -> Result<(), ServeError> {
    let wrong = |source| ServeError::Folder { folder: manager.path().to_owned(), source };
    let signals = Signals::read()?;
    let auth = Auth::open(manager).map_err(wrong)?;
    let store = Store::open(manager)?;
    let arrivals = Arrivals::new()?;
    let (tcp, address) = listen(&options, log).await?;
    let unix = socket::listen(&manager.socket()).map_err(wrong)?;
    unix.set_nonblocking(true)?;
    let unix = UnixListener::from_std(unix)?;
    let Options { limit, sage, retention, ready, host, .. } = options;
    let job_options = JobOptions { folder: manager.clone(), logs: log.folder.clone(), sage, limit, retention };
    let jobs = Jobs::new(job_options, store, arrivals.clone());
    jobs.adopt_all()?;
    let (end, mut ends) = mpsc::channel(1);
    let port = tcp.local_addr()?.port();
    let app = App::new(jobs.clone(), auth, Hosts::at(host, port), address.clone(), log.folder.clone(), end);
    let is_ending = app.is_ending.clone();
    let server = Server { router: router(app.clone()), is_ending: is_ending.subscribe(), open: watch::Sender::new(0) };
    folder::write_json(&manager.address(), &address).map_err(wrong)?;
    tracing::info!(http = %address.http, version = %address.version, "listens");
    if let Some(ready) = ready {
        ready(&address);
    }
    let served = async {
        tokio::join!(server.serve_tcp(tcp), server.serve_socket(unix), retention::run(jobs.clone()));
    };
    let ended = async {
        // Without signals, a request can end it.
        let signalled = async || match signals.end().await {
            Ok(name) => name,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "signals cannot be read");
                std::future::pending().await
            }
        };
        let how = tokio::select! {
            why = signalled() => return why,
            how = ends.recv() => how.unwrap_or_default(),
        };
        tracing::info!(jobs = ?how, "told to end");
        jobs.close();
        tokio::select! {
            // Then those that are left run on.
            why = signalled() => why,
            ended = jobs.end_all(how) => {
                if let Err(error) = ended {
                    tracing::error!(error = &error as &dyn std::error::Error, "not all jobs have ended");
                }
                "a request"
            }
        }
    };
    let (why, result) = tokio::select! {
        () = served => ("no more connections", Ok(())),
        error = arrivals.run() => ("no more events of folders", error.map_err(ServeError::System)),
        why = ended => (why, Ok(())),
    };
    tracing::info!(why, "ends");
    jobs.close();
    is_ending.send_replace(true);
    server.ended().await;
    for path in [manager.socket(), manager.address()] {
        // The next daemon takes their place.
        let _ = fs::remove_file(path);
    }
    result
}

async fn listen(options: &Options, log: &Log) -> Result<(TcpListener, Address), ServeError> {
    let address = SocketAddr::new(options.host, options.port);
    let listened = TcpListener::bind(address).await;
    let listener = listened.map_err(|source| ServeError::Listen { address, source })?;
    let address = Address {
        http: listener.local_addr()?.to_string(),
        pid: std::process::id(),
        session: log.session.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok((listener, address))
}
