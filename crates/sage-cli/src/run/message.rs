//! What `sage run` and its warden tell each other, a line of JSON a message.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, Shutdown, SockFlag, SockType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the warden tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// The program could not be started, and why.
    NotStarted(String),
    /// It has ended.
    Ended(How),
    /// What it left.
    Left(Left),
}

/// What a program left, by names of processes.
#[derive(Debug, Default, Serialize, Deserialize)]
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

/// A signal that the program is to be sent, by its number.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Send(pub(super) i32);

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

    /// Tells the other side nothing more: it finds that this one is gone, and what it tells is heard.
    pub(super) fn hang_up(&self) {
        // It fails if the other side is gone.
        let _ = socket::shutdown(self.0.as_raw_fd(), Shutdown::Write);
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
