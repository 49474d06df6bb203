//! Asks a job manager: [`Client`].
//!
//! Each request has a connection of its own, over the socket in the job manager's folder if it is this user's on this
//! machine, else over TCP. The calling thread waits for the answer.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};

use crate::api::{
    ApiError, Deleted, EventPage, FiguresNow, Graphs, Health, Info, JobDetail, JobPage, LogFiles, LoginLink, NewToken,
    Reports, Shutdown, Streamed,
};
use crate::home::{Address, Home, ManagerFolder};
use crate::job::{JobRecord, JobRequest};
use crate::socket;

/// The largest answer, in bytes.
const MOST_BYTES: usize = 256 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest line of a stream, in bytes.
const LONGEST_LINE: usize = 64 << 20;

/// Asks one job manager.
#[derive(Debug)]
pub struct Client {
    at: At,
    token: Token,
    runtime: Runtime,
}

#[derive(Debug)]
enum At {
    Socket(PathBuf),
    /// Host and port.
    Tcp(String),
}

struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no job manager runs at port {port}: start one with `sage jobmanager start{}`", option(*port))]
    NotRunning {
        /// The port.
        port: u16,
    },
    /// Nobody listens there.
    #[error("no job manager listens at {at}")]
    NotThere {
        /// Host and port.
        at: String,
        /// What the system says.
        source: io::Error,
    },
    /// The token is not known.
    #[error("the token of the job manager is not known: there is no file {0}, and SAGE_TOKEN is not set")]
    NoToken(PathBuf),
    /// It did not serve the request.
    #[error("{}", answer.error)]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// Its answer.
        answer: ApiError,
    },
    /// The connection broke.
    #[error("the connection to the job manager broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What came is no answer of a job manager.
    #[error("this is no answer of a job manager of this version: {0}")]
    NoAnswer(String),
    /// None came.
    #[error("the job manager did not answer within {} s", PATIENCE.as_secs())]
    Late,
    /// The system gave no descriptors.
    #[error("asking the job manager takes what the system does not give")]
    System(#[from] io::Error),
}

fn option(port: u16) -> String {
    if port == crate::home::DEFAULT_PORT { String::new() } else { format!(" --port {port}") }
}

/// Which jobs are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those in one of these states, separated by commas; all if empty.
    pub states: String,
    /// Those with this in their name.
    pub name: String,
    /// Those with a smaller number.
    pub before: Option<u64>,
    /// So many at most: 1 to 1000, 100 if it is not said.
    pub limit: Option<u64>,
}

/// Some of the output of a job, or of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub from: u64,
    /// Where the next one does.
    pub next: u64,
    /// How long all is.
    pub length: u64,
    /// It.
    pub bytes: Vec<u8>,
}

/// What a job can be told over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
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
    /// Its name in the path.
    pub fn word(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Kill => "kill",
        }
    }
}

impl Client {
    /// Asks the job manager of this user that was started with this port. Does not look whether it lives.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] if none was started there.
    pub fn find(home: &Home, port: u16) -> Result<Self, ClientError> {
        let folder = home.manager(port);
        let Ok(token) = fs::read_to_string(folder.token()) else { return Err(ClientError::NotRunning { port }) };
        Self::new(At::Socket(folder.socket()), token.trim().to_owned())
    }

    /// Asks the job manager that listens at this host and port. Its token is that of `SAGE_TOKEN`, or that of the job
    /// manager of this user that was started with this port.
    ///
    /// # Errors
    /// [`ClientError::NoToken`].
    pub fn at(home: &Home, host: &str, port: u16) -> Result<Self, ClientError> {
        let file = home.manager(port).token();
        let given = env::var("SAGE_TOKEN").ok().filter(|token| !token.is_empty());
        let token = given.or_else(|| fs::read_to_string(&file).ok());
        let token = token.ok_or(ClientError::NoToken(file))?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self::new(At::Tcp(format!("{host}:{port}")), token.trim().to_owned())
    }

    fn new(at: At, token: String) -> Result<Self, ClientError> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Self { at, token: Token(token), runtime })
    }

    /// Submits a job.
    ///
    /// # Errors
    /// See [`ClientError`], as for all that is asked here.
    pub fn submit(&self, request: &JobRequest) -> Result<JobRecord, ClientError> {
        self.ask(Method::POST, "/api/v1/jobs", Some(request))
    }

    /// The jobs, newest first.
    pub fn jobs(&self, filter: &Filter) -> Result<JobPage, ClientError> {
        let Filter { states, name, before, limit } = filter;
        let mut path = format!("/api/v1/jobs?state={}&name={}", quoted(states), quoted(name));
        before.iter().for_each(|before| path.push_str(&format!("&before={before}")));
        limit.iter().for_each(|limit| path.push_str(&format!("&limit={limit}")));
        self.get(&path)
    }

    /// All about a job: of this id, this number, or the only one whose id begins so.
    pub fn job(&self, job: &str) -> Result<JobDetail, ClientError> {
        self.get(&of_job(job, ""))
    }

    /// Tells a job to do something. Returns before it has.
    pub fn tell(&self, job: &str, action: Action) -> Result<JobRecord, ClientError> {
        self.ask(Method::POST, &of_job(job, action.word()), None::<&()>)
    }

    /// Deletes a job that is over, or one that is not `forced`ly.
    pub fn delete(&self, job: &str, force: bool) -> Result<(), ClientError> {
        let path = format!("{}?force={force}", of_job(job, ""));
        self.runtime.block_on(self.answered(Method::DELETE, &path, Vec::new())).map(drop)
    }

    /// The events of a job from this byte of them on.
    pub fn events(&self, job: &str, after: u64) -> Result<EventPage, ClientError> {
        self.get(&format!("{}?after={after}", of_job(job, "events")))
    }

    /// The graphs of a program's jobs.
    pub fn graphs(&self, job: &str) -> Result<Graphs, ClientError> {
        self.get(&of_job(job, "graph"))
    }

    /// The figures of a program's jobs that run.
    pub fn figures(&self, job: &str) -> Result<FiguresNow, ClientError> {
        self.get(&of_job(job, "figures"))
    }

    /// The reports of a program's jobs that are over.
    pub fn reports(&self, job: &str) -> Result<Reports, ClientError> {
        self.get(&of_job(job, "report"))
    }

    /// A piece of a job's output: from this byte on, or from so many before its end if that is negative.
    pub fn output(&self, job: &str, from: i64) -> Result<Piece, ClientError> {
        self.piece(&format!("{}?from={from}", of_job(job, "output")))
    }

    /// The log files of a job.
    pub fn log_files(&self, job: &str) -> Result<LogFiles, ClientError> {
        self.get(&of_job(job, "logs"))
    }

    /// A piece of one of a job's log files.
    pub fn log(&self, job: &str, name: &str, from: i64) -> Result<Piece, ClientError> {
        self.piece(&format!("{}/{}?from={from}", of_job(job, "logs"), quoted(name)))
    }

    /// What becomes of a job from now on: first its record, last that it is over. With `figures`, these too, four times
    /// a second.
    pub fn follow(&self, job: &str, after: u64, figures: bool) -> Result<Stream<'_>, ClientError> {
        let figures = if figures { "&figures=1" } else { "" };
        self.stream(&format!("{}?after={after}{figures}", of_job(job, "stream")))
    }

    /// What becomes of all jobs from now on.
    pub fn follow_all(&self) -> Result<Stream<'_>, ClientError> {
        self.stream("/api/v1/stream")
    }

    /// About the job manager.
    pub fn info(&self) -> Result<Info, ClientError> {
        self.get("/api/v1/info")
    }

    /// Whether it works.
    pub fn health(&self) -> Result<Health, ClientError> {
        self.get("/api/v1/health")
    }

    /// Cancels all jobs that run, and deletes all.
    pub fn cleanup(&self) -> Result<Deleted, ClientError> {
        self.ask(Method::POST, "/api/v1/cleanup", None::<&()>)
    }

    /// Makes a new token: the one of this client is void then, and all sessions are.
    pub fn rotate_token(&self) -> Result<NewToken, ClientError> {
        self.ask(Method::POST, "/api/v1/token/rotate", None::<&()>)
    }

    /// A link that opens the page.
    pub fn login_link(&self) -> Result<LoginLink, ClientError> {
        self.ask(Method::POST, "/api/v1/login-link", None::<&()>)
    }

    /// Ends the job manager. Returns before it has ended.
    pub fn shutdown(&self, how: Shutdown) -> Result<(), ClientError> {
        let body = serde_json::to_vec(&how).map_err(|error| ClientError::NoAnswer(error.to_string()))?;
        self.runtime.block_on(self.answered(Method::POST, "/api/v1/shutdown", body)).map(drop)
    }

    fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.ask(Method::GET, path, None::<&()>)
    }

    fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<A, ClientError> {
        let no_answer = |error: serde_json::Error| ClientError::NoAnswer(error.to_string());
        let body = body.map(serde_json::to_vec).transpose().map_err(no_answer)?.unwrap_or_default();
        let (_, bytes) = self.runtime.block_on(self.answered(method, path, body))?;
        serde_json::from_slice(&bytes).map_err(no_answer)
    }

    fn piece(&self, path: &str) -> Result<Piece, ClientError> {
        let (answer, bytes) = self.runtime.block_on(self.answered(Method::GET, path, Vec::new()))?;
        let number = |name: &str| {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok()?.parse().ok());
            value.ok_or_else(|| ClientError::NoAnswer(format!("it has no {name}")))
        };
        let (from, next, length) = (number("x-sage-from")?, number("x-sage-next")?, number("x-sage-length")?);
        Ok(Piece { from, next, length, bytes: bytes.to_vec() })
    }

    fn stream(&self, path: &str) -> Result<Stream<'_>, ClientError> {
        let body = self.runtime.block_on(async {
            let answer = timely(self.asked(Method::GET, path, Vec::new())).await?;
            Ok::<_, ClientError>(succeeded(answer).await?.into_body())
        })?;
        Ok(Stream { client: self, body, waiting: Vec::new() })
    }

    async fn answered(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(Response<()>, Bytes), ClientError> {
        timely(async {
            let answer = succeeded(self.asked(method, path, body).await?).await?;
            let (head, body) = answer.into_parts();
            let bytes = Limited::new(body, MOST_BYTES).collect().await.map_err(ClientError::Broken)?.to_bytes();
            Ok((Response::from_parts(head, ()), bytes))
        })
        .await
    }

    async fn asked(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Response<Incoming>, ClientError> {
        let (host, mut sender) = match &self.at {
            At::Socket(path) => {
                let stream = socket::connect(path).map_err(|error| self.not_there(error))?;
                stream.set_nonblocking(true)?;
                ("localhost", shaken(TokioIo::new(UnixStream::from_std(stream)?)).await?)
            }
            At::Tcp(at) => {
                let stream = TcpStream::connect(at).await.map_err(|error| self.not_there(error))?;
                (at.as_str(), shaken(TokioIo::new(stream)).await?)
            }
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(AUTHORIZATION, format!("Bearer {}", self.token.0))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::NoAnswer(error.to_string()))?;
        sender.send_request(request).await.map_err(|error| ClientError::Broken(error.into()))
    }

    fn not_there(&self, source: io::Error) -> ClientError {
        match &self.at {
            At::Tcp(at) => ClientError::NotThere { at: at.clone(), source },
            At::Socket(path) => {
                let port = path.parent().and_then(|folder| folder.file_name()?.to_str()?.parse().ok());
                ClientError::NotRunning { port: port.unwrap_or_default() }
            }
        }
    }
}

/// Where the job manager listens that was started with this folder, if it was not killed since.
pub fn address(folder: &ManagerFolder) -> Option<Address> {
    serde_json::from_slice(&fs::read(folder.address()).ok()?).ok()
}

async fn timely<T>(answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(ClientError::Late))
}

async fn shaken<S>(stream: S) -> Result<http1::SendRequest<Full<Bytes>>, ClientError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(|error| ClientError::Broken(error.into()))?;
    // It ends with the answer, and what is wrong with it is told there.
    drop(tokio::spawn(connection));
    Ok(sender)
}

/// The answer, if it is one of success.
async fn succeeded(answer: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let bytes = Limited::new(answer.into_body(), MOST_BYTES).collect().await.map_err(ClientError::Broken)?.to_bytes();
    let answer = serde_json::from_slice(&bytes).map_err(|_| ClientError::NoAnswer(format!("HTTP status {status}")))?;
    Err(ClientError::Refused { status: status.as_u16(), answer })
}

fn of_job(job: &str, what: &str) -> String {
    let slash = if what.is_empty() { "" } else { "/" };
    format!("/api/v1/jobs/{}{slash}{what}", quoted(job))
}

/// The text as a part of a path or of a query.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => quoted.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => drop(write!(quoted, "%{byte:02X}")),
        }
    }
    quoted
}

/// What becomes of a job, or of all: see [`Client::follow`]. It ends when the job is over or the job manager is gone.
#[derive(Debug)]
pub struct Stream<'c> {
    client: &'c Client,
    body: Incoming,
    /// What came of the next event.
    waiting: Vec<u8>,
}

impl Iterator for Stream<'_> {
    type Item = Result<Streamed, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(end) = self.waiting.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.waiting.drain(..end + 2).collect();
                match streamed(&block) {
                    Some(streamed) => return Some(streamed),
                    // A comment, with which the job manager says that it is there.
                    None => continue,
                }
            }
            match self.client.runtime.block_on(self.body.frame())? {
                Ok(frame) => self.waiting.extend(frame.into_data().unwrap_or_default()),
                Err(error) => return Some(Err(ClientError::Broken(error.into()))),
            }
            if self.waiting.len() > LONGEST_LINE {
                return Some(Err(ClientError::NoAnswer("a line of its stream is too long".to_owned())));
            }
        }
    }
}

fn streamed(block: &[u8]) -> Option<Result<Streamed, ClientError>> {
    let text = String::from_utf8_lossy(block);
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
    let (event, data) = (field("event:")?, field("data:")?);
    let parsed = serde_json::from_str(data).and_then(|data: serde_json::Value| {
        serde_json::from_value(serde_json::json!({ "event": event, "data": data }))
    });
    Some(parsed.map_err(|error| ClientError::NoAnswer(error.to_string())))
}
