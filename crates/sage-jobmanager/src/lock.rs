//! One daemon for each folder: it holds a lock on a file as long as it lives.
//!
//! A child of the daemon holds it as well from its fork to its exec. So once the next daemon has it, whatever was being
//! started is a process that carries the job's id in its environment.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sage_api::home::ManagerFolder;
use sage_api::outcome::Process;

/// How long a child of a daemon that is gone may hold the lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lock; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

/// Why there is no lock.
#[derive(Debug)]
pub(crate) enum NoLock {
    /// Another daemon has it, this process if it is known.
    Held(Option<u32>),
    System(io::Error),
}

impl From<io::Error> for NoLock {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl Lock {
    /// Takes the lock of this folder, and notes this process.
    pub(crate) fn take(folder: &ManagerFolder) -> Result<Self, NoLock> {
        let path = folder.lock();
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, Errno::EWOULDBLOCK)) => match holder(&mut file) {
                Some(pid) if Process::of(pid).is_ok() => return Err(NoLock::Held(Some(pid))),
                _ => patiently(file).ok_or_else(|| NoLock::Held(open().ok().and_then(|mut file| holder(&mut file))))?,
            },
            Err((_, error)) => return Err(NoLock::System(error.into())),
        };
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(std::process::id().to_string().as_bytes())?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Waits for the lock, a while. The thread that waits ends with this process, which cannot do its work then.
fn patiently(file: File) -> Option<Flock<File>> {
    let (taken, is_taken) = mpsc::channel();
    thread::spawn(move || {
        if let Ok(file) = Flock::lock(file, FlockArg::LockExclusive) {
            // Nobody may wait for it any more: then it is given back.
            drop(taken.send(file));
        }
    });
    is_taken.recv_timeout(PATIENCE).ok()
}
