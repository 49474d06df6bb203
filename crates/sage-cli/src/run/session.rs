//! A session of its own, which no terminal and no parent ends.

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getpid, getsid, setsid};

/// Makes this process the leader of a session, if it is not. If it leads a group of a terminal's, it cannot: a child
/// goes on in its place, whose exit code is returned.
pub(super) fn lead() -> Option<u8> {
    if getsid(None) == Ok(getpid()) || setsid().is_ok() {
        return None;
    }
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            // It leads no group, so it can.
            let _ = setsid();
            None
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => u8::try_from(code).ok().or(Some(1)),
            _ => Some(1),
        },
        // The job can be run in the session of whoever started this.
        Err(_) => None,
    }
}
