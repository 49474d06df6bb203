//! `llmock`, a server that plays a provider, misbehaves as it is told, and judges its client.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sage_services::llm::LlmOptions;
use serde_json::{Value, json};

/// A running server; ended when it is dropped.
pub(crate) struct Llmock {
    child: Child,
    port: u16,
}

/// A program of the environment that `make test-llm` makes.
pub(crate) fn program(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv-llm/bin").join(name);
    assert!(program.exists(), "`{}` is missing: it comes with `make test-llm`", program.display());
    program
}

/// A port that nobody listens at.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what} took too long");
        thread::sleep(Duration::from_millis(20));
    }
}

impl Llmock {
    pub(crate) fn serve(arguments: &[&str]) -> Self {
        Self::serve_at(free_port(), arguments)
    }

    pub(crate) fn serve_at(port: u16, arguments: &[&str]) -> Self {
        let mut command = Command::new(program("llmock"));
        command.args(["serve", "--log-level", "critical", "--port", &port.to_string()]).args(arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut served = Self { child, port };
        until("the start of llmock", || {
            assert!(served.child.try_wait().unwrap().is_none(), "llmock has ended");
            http(port, "GET", "/health", None).is_some()
        });
        served
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The options of a client of this server.
    pub(crate) fn options(&self) -> LlmOptions {
        LlmOptions::new("gpt-4o-mini").base_url(self.base_url()).key("sk-secret-of-the-test")
    }

    /// What it is to do with the next requests.
    pub(crate) fn plays(&self, behaviours: Value) {
        let queued = self.post("/_llmock/scenario", &json!({ "behaviors": behaviours }));
        assert!(queued["queued"].as_u64().is_some(), "{queued}");
    }

    /// Forgets what it was told, and what it was asked.
    pub(crate) fn reset(&self) {
        self.post("/_llmock/reset", &json!({}));
    }

    /// The requests that it has had.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let told = http(self.port, "GET", "/_llmock/requests", None).unwrap();
        told["requests"].as_array().unwrap().clone()
    }

    /// How it judges its client.
    pub(crate) fn verdict(&self) -> Value {
        http(self.port, "GET", "/_llmock/verdict", None).unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        http(self.port, "POST", path, Some(body)).unwrap()
    }
}

impl Drop for Llmock {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Asks a server by hand, so that the client under test is not its own witness. `None` if it is not there.
fn http(port: u16, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json");
    write!(stream, "{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}
