//! A server of a store, in a folder and at a port of its own.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running server; it and its folder are gone when it is dropped, also if the test panics or its process is killed.
pub(crate) struct Server {
    arguments: fn(&Path, u16) -> Command,
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts the server that these arguments make, for a folder and a port.
    pub(crate) fn start(arguments: fn(&Path, u16) -> Command) -> Self {
        let mut server = Self { arguments, folder: tempfile::tempdir().unwrap(), port: free_port(), child: None };
        server.restart();
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts it at the same port, on the same folder.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = (self.arguments)(self.folder.path(), self.port);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec it makes one system call, and touches no memory.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = self.child.insert(command.spawn().unwrap());
        let begin = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the server has ended");
            assert!(begin.elapsed() < Duration::from_secs(60), "the start of the server took too long");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it, so that it can do nothing more.
    pub(crate) fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Has it answer nothing, while its connections stay.
    pub(crate) fn stand_still(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        if let Some(child) = &self.child {
            // SAFETY: it only sends a signal, to the group of a child that has not been waited for.
            unsafe { libc::kill(-child.id().cast_signed(), signal) };
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The Python of an environment that `make test-stores` makes.
pub(crate) fn python(environment: &str) -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(environment).join("bin/python");
    assert!(python.exists(), "`{}` is missing: it comes with `make test-stores`", python.display());
    python
}

/// A port that nobody listens at.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
