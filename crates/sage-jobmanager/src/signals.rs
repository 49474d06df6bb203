//! The signals that end the daemon.
//!
//! They are read from a descriptor of this runtime's. What tokio has for signals is there for all runtimes of the
//! process, those of jobs of the Python package among them, in whose module the daemon is linked as well.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The signals that are read. Of these, SIGHUP ends nothing: the terminal may be closed.
const READ: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Reads signals, which have no other effect on this thread, and those that it begins, until this is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    read: AsyncFd<Descriptor>,
    usual: SigSet,
}

/// As the runtime wants it.
#[derive(Debug)]
struct Descriptor(SignalFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Signals {
    pub(crate) fn read() -> io::Result<Self> {
        let read: SigSet = READ.into_iter().collect();
        let descriptor = SignalFd::with_flags(&read, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // SAFETY: the descriptor stays open, and the same, as long as it is owned.
        let descriptor = unsafe { AsyncFd::register_with_interest(Descriptor(descriptor), Interest::READABLE)? };
        let usual = read.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { read: descriptor, usual })
    }

    /// Waits for SIGTERM or SIGINT: its name.
    pub(crate) async fn end(&self) -> io::Result<&'static str> {
        loop {
            let mut ready = self.read.readable().await?;
            match ready.get_inner().0.read_signal()? {
                Some(info) if info.ssi_signo == Signal::SIGTERM as u32 => return Ok(Signal::SIGTERM.as_str()),
                Some(info) if info.ssi_signo == Signal::SIGINT as u32 => return Ok(Signal::SIGINT.as_str()),
                Some(_) => {}
                None => ready.clear_ready(),
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // It fails for no mask that was there before.
        let _ = self.usual.thread_set_mask();
    }
}
