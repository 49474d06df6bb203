//! The job manager as its clients have it: the real daemon, real reapers, real jobs.

mod access;
mod adopt;
mod changed;
mod kills;
mod life;
mod records;
mod reused;
mod stream;
mod verbs;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sage_api::api::Streamed;
use sage_api::client::{Client, ClientError};
use sage_api::home::{Home, ManagerFolder};
use sage_api::job::{JobRecord, JobRequest, Limits, Program, State};
use tempfile::TempDir;

use super::job::counting;
use super::marked::Marked;

/// A user's folder, and what was started for that user. All processes of it are gone at its end, or the test fails.
pub(crate) struct User {
    pub(crate) marked: Marked,
    pub(crate) folder: TempDir,
}

impl User {
    pub(crate) fn new() -> Self {
        Self { marked: Marked::new(), folder: tempfile::tempdir().expect("a folder is made") }
    }

    pub(crate) fn home(&self) -> Home {
        Home::at(self.folder.path().join("home"))
    }

    pub(crate) fn manager(&self) -> ManagerFolder {
        self.home().manager(0)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut sage = self.marked.sage(&["jobmanager", "start", "--foreground", "--port", "0"]);
        sage.args(arguments).env("SAGE_HOME", self.home().path());
        sage
    }

    /// Starts a daemon, and waits until it listens.
    pub(crate) fn daemon(&self, arguments: &[&str]) -> Daemon {
        let mut child = self.command(arguments).stderr(Stdio::inherit()).spawn().expect("it starts");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it says where it listens");
        let http = line.trim().rsplit("http://").next().expect("there is one").to_owned();
        assert!(http.starts_with("127.0.0.1:"), "{line}");
        let client = Client::find(&self.home(), 0).expect("there is a token");
        Daemon { child, client, http, _said: said, is_over: false }
    }

    /// The request for a job of this program, whose processes carry the mark.
    pub(crate) fn request(&self, program: &Path, arguments: &[&str]) -> JobRequest {
        let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
        JobRequest {
            name: "a job".to_owned(),
            program: Program::File { path: program.to_owned(), arguments, python: None },
            folder: self.folder.path().to_owned(),
            variables: BTreeMap::from([self.marked.variable()]),
            autostop: false,
            limits: Limits::default(),
        }
    }

    pub(crate) fn counting(&self, arguments: &[&str]) -> JobRequest {
        self.request(&counting(), arguments)
    }

    pub(crate) fn shell(&self, script: &str) -> JobRequest {
        self.request(Path::new("/bin/sh"), &["-c", script])
    }
}

/// A daemon. One that is dropped cancels all jobs first.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) client: Client,
    pub(crate) http: String,
    // It would be told that nobody reads it.
    _said: BufReader<ChildStdout>,
    is_over: bool,
}

impl Daemon {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn submit(&self, request: &JobRequest) -> JobRecord {
        self.client.submit(request).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn record(&self, job: &str) -> JobRecord {
        self.client.job(job).expect("there is one").record
    }

    /// Waits until the record of a job is such, which it is told by the stream of the job.
    pub(crate) fn until(&self, job: &str, wanted: impl Fn(&JobRecord) -> bool) -> JobRecord {
        for streamed in self.client.follow(job, 0, false).expect("it is followed") {
            match streamed.expect("it is an event") {
                Streamed::Record(record) | Streamed::Over(record) if wanted(&record) => return *record,
                Streamed::Over(record) => panic!("it is over: {record:?}"),
                _ => {}
            }
        }
        panic!("the stream of the job {job} has ended");
    }

    pub(crate) fn until_state(&self, job: &str, state: State) -> JobRecord {
        self.until(job, |record| record.state == state)
    }

    pub(crate) fn until_over(&self, job: &str) -> JobRecord {
        self.until(job, |record| record.state.is_over())
    }

    /// The program of a job was started.
    pub(crate) fn until_started(&self, job: &str) -> JobRecord {
        self.until(job, |record| record.started_ms.is_some())
    }

    /// Kills it at once.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it is waited for");
        self.is_over = true;
    }

    /// Sends it SIGTERM, and waits for its end.
    pub(crate) fn stop(mut self) -> ExitStatus {
        kill(self.pid(), Signal::SIGTERM).expect("it is sent");
        self.is_over = true;
        self.child.wait().expect("it ends")
    }

    /// Sends a request as it is, and returns the status and all that was answered.
    pub(crate) fn raw(&self, request: &str) -> (u16, String) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("it is read");
        answer(&mut stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.http).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("it is set");
        stream
    }

    /// A request with the token, and these lines in its head.
    pub(crate) fn ask(&self, user: &User, method: &str, path: &str, head: &str, body: &str) -> (u16, String) {
        let token = fs::read_to_string(user.manager().token()).expect("there is one");
        let (http, length) = (&self.http, body.len());
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {http}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{head}\r\n{body}"
        ))
    }
}

/// The status of an answer, and all of it.
pub(crate) fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut all = Vec::new();
    // Of a stream that does not end, what has come by the limit.
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        all.extend_from_slice(&piece[..count]);
        if String::from_utf8_lossy(&all).contains("text/event-stream") {
            break;
        }
    }
    let text = String::from_utf8_lossy(&all).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {text:?}")), text)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.is_over {
            let cleaned = self.client.cleanup();
            let _ = kill(self.pid(), Signal::SIGTERM);
            let _ = self.child.wait();
            if !std::thread::panicking() {
                cleaned.expect("all jobs are deleted");
            }
        }
    }
}

/// The refusal that a request has got: its status, its code and its words.
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (u16, String, String) {
    match answer {
        Err(ClientError::Refused { status, answer }) => (status, answer.code, answer.error),
        other => panic!("{other:?}"),
    }
}
