//! Wakes a thread that waits for a descriptor in poll(2), which no unpark ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What a descriptor is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    Read,
    Write,
}

/// An eventfd(2), readable from a ring on until the next wait.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes numbers only.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just opened, and is nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    pub(crate) fn ring(&self) {
        let one = 1_u64;
        // It fails only where it rings already as loudly as it can.
        // SAFETY: eight bytes are read.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
    }

    /// Makes it unreadable until the next ring.
    pub(crate) fn silence(&self) {
        let mut count = 0_u64;
        // It fails where nobody has rung.
        // SAFETY: eight bytes are written.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of_val(&count)) };
    }

    /// Waits until `descriptor` is `ready`, or the bell has rung since the last wait, for `limit` at most. Returns
    /// whether the descriptor is. May return early.
    pub(crate) fn wait(&self, descriptor: BorrowedFd<'_>, ready: Ready, limit: Duration) -> io::Result<bool> {
        self.wait_any(&[descriptor], ready, limit)
    }

    /// As [`wait`](Self::wait), for several.
    pub(crate) fn wait_any(&self, those: &[BorrowedFd<'_>], ready: Ready, limit: Duration) -> io::Result<bool> {
        let events = match ready {
            Ready::Read => libc::POLLIN,
            Ready::Write => libc::POLLOUT,
        };
        let those = those.iter().map(|descriptor| (descriptor.as_raw_fd(), events));
        let all = [(self.0.as_raw_fd(), libc::POLLIN)].into_iter().chain(those);
        let mut polled: Vec<_> = all.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 }).collect();
        // Rounded up, so that nobody looks at the clock again and again within the last millisecond.
        let limit = i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        // SAFETY: the vector is as long as is said.
        if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, limit) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) };
        }
        if polled[0].revents != 0 {
            self.silence();
        }
        // A descriptor that is closed or broken is ready as well: whoever uses it is told.
        Ok(polled[1..].iter().any(|other| other.revents != 0))
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
