//! `sage jobmanager`: starts the daemon, ends it, and tells about it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};
use sage_api::api::{Running, Shutdown};
use sage_api::client::{Client, ClientError, address};
use sage_api::home::{DEFAULT_PORT, Home, ManagerFolder};
use sage_jobmanager::{Options, ServeError, serve};
use serde_json::{Map, Value, json};

use crate::place::home;
use crate::{Host, output};

/// Start and stop the job manager, which runs jobs that outlive whoever submits them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address that it listens at, one of this machine only
    #[arg(long, global = true, default_value_t = Ipv4Addr::LOCALHOST.into())]
    host: IpAddr,

    /// The port that it listens at, 0 for any that is free
    #[arg(long, global = true, default_value_t = DEFAULT_PORT)]
    port: u16,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start it, and print a link that opens its page once
    Start(Start),
    /// Stop it
    Stop(Stop),
    /// Stop it, and start it: jobs go on meanwhile
    Restart(Start),
    /// Tell how it is
    Status,
    /// Kill it: jobs go on, and the next one takes them up
    Kill,
    /// Print a link that opens the page, once and within ten minutes
    Link,
    /// Make a new token: the old one and all sessions of browsers are void
    RotateToken,
    /// Print the version
    Version,
}

#[derive(Debug, Clone, clap::Args)]
struct Start {
    /// Run in this terminal, until SIGINT or SIGTERM
    #[arg(long)]
    foreground: bool,

    /// Do not wait until it listens
    #[arg(long, conflicts_with = "foreground")]
    no_wait: bool,

    /// As SAGE has it: what is in the way is never killed here, so it does nothing
    #[arg(short, long, hide = true)]
    force: bool,

    /// How many jobs may run at once; others wait
    #[arg(long, value_name = "JOBS", default_value_t = 8)]
    limit: u16,
}

#[derive(Debug, Clone, clap::Args)]
struct Stop {
    /// What becomes of the jobs that run
    #[arg(long, default_value = "leave")]
    jobs: Jobs,

    /// As SAGE has it; it does nothing
    #[arg(short, long, hide = true)]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Jobs {
    /// They go on, and the next job manager takes them up
    Leave,
    /// They finish what is in flight first
    Drain,
    /// They are cancelled first
    Cancel,
}

impl From<Jobs> for Running {
    fn from(jobs: Jobs) -> Self {
        match jobs {
            Jobs::Leave => Self::Leave,
            Jobs::Drain => Self::Drain,
            Jobs::Cancel => Self::Cancel,
        }
    }
}

/// How long it may take to listen, and to end when its jobs are left.
const BEGIN: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(60);
/// How long its jobs may take to end before it.
const JOBS_END: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
enum ManagerError {
    #[error(transparent)]
    Asking(#[from] ClientError),
    #[error(transparent)]
    Serving(#[from] ServeError),
    #[error("it could not be started")]
    Starting(#[source] io::Error),
    #[error("it did not begin to listen: {0}")]
    NotBegun(String),
    #[error("it has not ended within {} s: `sage jobmanager kill` kills it; jobs go on", .0.as_secs())]
    NotEnded(Duration),
    #[error("it could not be killed")]
    Killing(#[source] io::Error),
}

pub(crate) fn run(args: &Args, host: &Host) -> u8 {
    let verb = match &args.verb {
        Verb::Start(_) => "start",
        Verb::Stop(_) => "stop",
        Verb::Restart(_) => "restart",
        Verb::Kill => "kill",
        _ => "",
    };
    match done(args, host) {
        Ok(told) => {
            if args.json {
                told.iter().for_each(|facts| output::object(&object(facts)));
            } else if !verb.is_empty() && told.is_some() {
                output::done(format_args!("Operation '{verb}' completed successfully"));
            }
            told.iter().filter(|_| !args.json).for_each(lines);
            0
        }
        Err(error) => {
            if !verb.is_empty() && !args.json {
                let _ = writeln!(io::stderr(), "❌ Operation '{verb}' failed");
            }
            output::failed(&error, args.json)
        }
    }
}

/// What there is to be told, thing by thing.
type Facts = Vec<(&'static str, Value)>;

/// Prints a line for each thing.
fn lines(facts: &Facts) {
    for (name, value) in facts {
        match value {
            Value::String(value) => output::line(format_args!("{name}: {value}")),
            value => output::line(format_args!("{name}: {value}")),
        }
    }
}

/// As JSON, by names as programs write them.
fn object(facts: &Facts) -> Map<String, Value> {
    facts.iter().map(|(name, value)| (name.to_lowercase().replace(' ', "_"), value.clone())).collect()
}

/// Does it, and returns what there is to be told.
fn done(args: &Args, host: &Host) -> Result<Option<Facts>, ManagerError> {
    let home = home()?;
    let folder = home.manager(args.port);
    match &args.verb {
        Verb::Start(start) if start.foreground => foreground(args, start, home, host).map(|()| None),
        Verb::Start(start) => started(args, start, &home, host),
        Verb::Stop(stop) => stopped(args, &home, stop.jobs.into()),
        Verb::Restart(start) => {
            if is_held(&folder) {
                stopped(args, &home, Running::Leave)?;
            }
            match start.foreground {
                true => foreground(args, start, home, host).map(|()| None),
                false => started(args, start, &home, host),
            }
        }
        Verb::Status => status(args, &home),
        Verb::Kill => killed(args, &folder),
        Verb::Link => Ok(Some(vec![("Page", json!(Client::find(&home, args.port)?.login_link()?.url))])),
        Verb::RotateToken => {
            Client::find(&home, args.port)?.rotate_token()?;
            Ok(Some(vec![("Token", json!(format!("a new one is in {}", folder.token().display())))]))
        }
        Verb::Version => Ok(Some(vec![("SAGE", json!(env!("CARGO_PKG_VERSION")))])),
    }
}

fn foreground(args: &Args, start: &Start, home: Home, host: &Host) -> Result<(), ManagerError> {
    let mut options = Options::new(home, host.itself.clone());
    (options.host, options.port, options.limit) = (args.host, args.port, usize::from(start.limit));
    options.ready = Some(Box::new(|address| {
        // Nobody reads what cannot be written.
        let _ = writeln!(io::stdout(), "the job manager listens at http://{}", address.http);
        let _ = io::stdout().flush();
    }));
    Ok(serve(options)?)
}

/// Starts it as a session of its own, whose errors are in a file.
fn started(args: &Args, start: &Start, home: &Home, host: &Host) -> Result<Option<Facts>, ManagerError> {
    if let Ok(client) = Client::find(home, args.port)
        && client.health().is_ok()
    {
        return told(&client, "it runs already").map(Some);
    }
    let folder = home.manager(args.port);
    let errors = folder.path().join("stderr.log");
    let mut child = spawn(args, start, &folder, &errors, host).map_err(ManagerError::Starting)?;
    if start.no_wait {
        return Ok(Some(vec![("Process", json!(child.id()))]));
    }
    let lines = child.stdout.take().map(BufReader::new);
    let (tell, begins) = mpsc::channel();
    // It ends with the first line, or with the daemon.
    let reader = thread::spawn(move || {
        let line = lines.and_then(|lines| lines.lines().next()?.ok());
        // Nobody may wait any more.
        let _ = tell.send(line);
    });
    match begins.recv_timeout(BEGIN) {
        Ok(Some(_)) => drop(reader.join()),
        Ok(None) => {
            let words = fs::read_to_string(&errors).unwrap_or_default();
            return Err(ManagerError::NotBegun(words.trim().trim_start_matches("❌ ").to_owned()));
        }
        Err(_) => return Err(ManagerError::NotBegun(format!("see {}", errors.display()))),
    }
    told(&Client::find(home, args.port)?, "it was started").map(Some)
}

fn spawn(
    args: &Args,
    start: &Start,
    folder: &ManagerFolder,
    errors: &std::path::Path,
    host: &Host,
) -> io::Result<std::process::Child> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.path())?;
    let errors = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(errors)?;
    let (program, first) = host.itself.split_first().ok_or_else(|| io::Error::other("no `sage` is known"))?;
    let mut command = Command::new(program);
    command.args(first).args(["jobmanager", "start", "--foreground"]);
    command.args(["--host", &args.host.to_string(), "--port", &args.port.to_string()]);
    command.args(["--limit", &start.limit.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    // SAFETY: it makes a system call.
    unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
    command.spawn()
}

/// Where it is, and a link.
fn told(client: &Client, what: &str) -> Result<Facts, ManagerError> {
    let info = client.info()?;
    Ok(vec![
        ("Job manager", json!(what)),
        ("Daemon", json!(info.http)),
        ("Process", json!(info.pid)),
        ("Page", json!(client.login_link()?.url)),
    ])
}

fn stopped(args: &Args, home: &Home, jobs: Running) -> Result<Option<Facts>, ManagerError> {
    let client = Client::find(home, args.port)?;
    let running = client.info()?.queue.running;
    client.shutdown(Shutdown { jobs })?;
    let limit = if jobs == Running::Leave { END } else { JOBS_END };
    wait_for_end(&home.manager(args.port), limit)?;
    let goes_on = if jobs == Running::Leave { running } else { 0 };
    Ok(Some(vec![("Jobs that go on", json!(goes_on))]))
}

/// Whether a daemon lives: it holds the lock.
fn is_held(folder: &ManagerFolder) -> bool {
    File::open(folder.lock()).is_ok_and(|lock| lock.try_lock_shared().is_err())
}

/// Waits until no daemon holds the lock.
fn wait_for_end(folder: &ManagerFolder, limit: Duration) -> Result<(), ManagerError> {
    let Ok(lock) = File::open(folder.lock()) else { return Ok(()) };
    let (tell, ended) = mpsc::channel();
    // It ends with the daemon, or with this process.
    drop(thread::spawn(move || {
        let _ = tell.send(lock.lock_shared());
    }));
    match ended.recv_timeout(limit) {
        Ok(_) => Ok(()),
        Err(_) => Err(ManagerError::NotEnded(limit)),
    }
}

fn status(args: &Args, home: &Home) -> Result<Option<Facts>, ManagerError> {
    let client = Client::find(home, args.port)?;
    let (health, info) = (client.health()?, client.info()?);
    let queue = info.queue;
    Ok(Some(vec![
        ("Health Status", json!(health.status)),
        ("Jobs", json!(health.jobs_count)),
        ("Running", json!(format!("{} of {} at a time, {} queued", queue.running, queue.limit, queue.queued))),
        ("Session", json!(info.session)),
        ("Process", json!(info.pid)),
        ("Daemon", json!(info.http)),
        ("Log folder", json!(info.log_folder)),
        ("Version", json!(info.version)),
        ("Page", json!(client.login_link()?.url)),
    ]))
}

fn killed(args: &Args, folder: &ManagerFolder) -> Result<Option<Facts>, ManagerError> {
    let address = address(folder).filter(|_| is_held(folder)).ok_or(ClientError::NotRunning { port: args.port })?;
    // The daemon that holds the lock has written this, so the process is that one.
    let pid = Pid::from_raw(address.pid.cast_signed());
    kill(pid, Signal::SIGKILL).map_err(|error| ManagerError::Killing(error.into()))?;
    wait_for_end(folder, END)?;
    Ok(Some(vec![("Killed", json!(address.pid))]))
}
