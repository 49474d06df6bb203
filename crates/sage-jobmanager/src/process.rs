//! Processes by descriptor: opened first, then compared with what was recorded, so that a number that was given to
//! another process meanwhile is not taken for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use sage_api::outcome::Process;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that lived when it was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    descriptor: AsyncFd<OwnedFd>,
    is_child: bool,
}

impl Opened {
    /// This process; `None` if it is gone.
    pub(crate) fn recorded(process: &Process) -> io::Result<Option<Self>> {
        let Some(descriptor) = open(process.pid)? else { return Ok(None) };
        // Compared after it was opened: what is compared is what is open, or neither lives.
        match Process::of(process.pid) {
            Ok(now) if now == *process => Self::new(descriptor, false).map(Some),
            _ => Ok(None),
        }
    }

    /// The process that has this number now; `None` if there is none.
    pub(crate) fn now(pid: u32) -> io::Result<Option<Self>> {
        open(pid)?.map(|descriptor| Self::new(descriptor, false)).transpose()
    }

    /// A child of this process, which nobody else waits for.
    pub(crate) fn child(pid: u32) -> io::Result<Self> {
        let descriptor = open(pid)?.ok_or_else(|| io::Error::other("a child that nobody waits for is gone"))?;
        Self::new(descriptor, true)
    }

    fn new(descriptor: OwnedFd, is_child: bool) -> io::Result<Self> {
        // SAFETY: the descriptor stays open, and the same, as long as it is owned.
        let descriptor = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE)? };
        Ok(Self { descriptor, is_child })
    }

    /// Waits until it has ended, and reaps it if it is a child.
    pub(crate) async fn ended(&self) {
        // It becomes readable once, when the process ends. It cannot fail but when the runtime is shut down.
        if let Ok(mut guard) = self.descriptor.readable().await {
            guard.retain_ready();
        }
        if self.is_child {
            // Nothing is left to be done if there is none.
            let _ = waitid(Id::PIDFd(self.descriptor.get_ref().as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        }
    }

    /// Sends it a signal. That it is gone is no error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let descriptor = self.descriptor.get_ref().as_raw_fd();
        // SAFETY: the descriptor is open; without a description of the signal, the kernel makes one.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                descriptor,
                signal as i32,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match sent {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }
}

fn open(pid: u32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: it takes two numbers, and returns a descriptor that nobody else has.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.cast_signed(), 0) };
    if opened >= 0 {
        let descriptor = i32::try_from(opened).map_err(io::Error::other)?;
        // SAFETY: it was just opened.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) }));
    }
    match io::Error::last_os_error() {
        // No process, or no number of one.
        error if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => Ok(None),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[expect(clippy::zombie_processes, reason = "it is reaped as an opened child")]
    #[tokio::test]
    async fn a_process_is_opened_only_if_it_is_the_one_that_was_recorded() {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let recorded = Process::of(child.id()).unwrap();
        let opened = Opened::recorded(&recorded).unwrap().unwrap();
        // The number of another one, before this one or in another run of the system.
        let earlier = Process { start_ticks: recorded.start_ticks - 1, ..recorded.clone() };
        let other_run = Process { boot: "another".to_owned(), ..recorded.clone() };
        assert!(Opened::recorded(&earlier).unwrap().is_none() && Opened::recorded(&other_run).unwrap().is_none());
        let as_child = Opened::child(child.id()).unwrap();
        opened.signal(Signal::SIGKILL).unwrap();
        opened.ended().await;
        // It is reaped here, and its number is free.
        as_child.ended().await;
        assert!(Opened::recorded(&recorded).unwrap().is_none() && Opened::now(child.id()).unwrap().is_none());
        // What is gone is no error.
        opened.signal(Signal::SIGKILL).unwrap();
    }
}
