//! What `sage run` and its warden tell each other, a line of JSON a message.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the warden tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// The program could not be started, and why.
    NotStarted(String),
    /// It was started, as this process.
    Started(i32),
    /// It has ended.
    Ended(How),
    /// What it left, and what all its processes have used.
    Left(Left, Usage),
}

/// What the warden is told. When it finds the other side gone without [`Done`](Self::Done), it ends the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// To start the program.
    Start,
    /// To send the program the signal of this number.
    Send(i32),
    /// To kill the program and all that it has started.
    Kill,
    /// To end: all is noted.
    Done,
}

/// What a program left, by names of processes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Left {
    /// Those had to be ended.
    pub(super) ended: Vec<String>,
    /// Those could not be: of another user, or inside a call of the system that does not return.
    pub(super) there: Vec<String>,
}

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    /// By itself, with this exit code.
    Exited(i32),
    /// By the signal of this number.
    Signalled(i32),
}

/// What the processes of a program have used that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Usage {
    /// The most memory that one of them had at a time, in bytes.
    pub(super) peak_bytes: u64,
    /// The time of processors, in milliseconds.
    pub(super) cpu_ms: u64,
}

impl Usage {
    /// That of all that was below this process and has ended.
    pub(super) fn below() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Self::default() };
        let milliseconds = |time: TimeVal| u64::try_from(time.num_milliseconds()).unwrap_or(0);
        // The system says it in KiB.
        let peak_bytes = u64::try_from(usage.max_rss()).unwrap_or(0) << 10;
        Self { peak_bytes, cpu_ms: milliseconds(usage.user_time()) + milliseconds(usage.system_time()) }
    }
}

/// One end of a connection that keeps messages apart.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

/// The names of what is left may be many: no more of them are told than a message holds.
const MOST_BYTES: usize = 64 << 10;

impl Link {
    /// Both ends of one.
    pub(super) fn pair() -> Result<(Self, Self), Errno> {
        let kept = SockFlag::SOCK_CLOEXEC;
        let (one, other) = socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, kept)?;
        Ok((Self(one), Self(other)))
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// Tells the other side, if it is there.
    pub(super) fn tell(&self, message: &impl Serialize) {
        let Ok(text) = serde_json::to_vec(message) else { return };
        // Who is gone need not be told.
        let _ = socket::send(self.0.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL);
    }

    /// The next message; `None` when the other side is gone.
    pub(super) fn next<T: DeserializeOwned>(&self) -> Option<T> {
        let mut text = vec![0; MOST_BYTES];
        loop {
            match socket::recv(self.0.as_raw_fd(), &mut text, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(_) | Ok(0) => return None,
                Ok(count) => return serde_json::from_slice(&text[..count]).ok(),
            }
        }
    }
}
