//! `sage run` itself: starts the warden, hands on signals, and gathers what has become of the program.

use std::io;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{self, ForkResult};

use super::below::Children;
use super::ended::Ended;
use super::message::{Link, Send, Told};
use super::program::Program;
use super::warden;

/// What is handed on to the program.
const HANDED_ON: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// So many of the signals that end a program end it at once.
const MOST_SIGNALS: usize = 3;

/// What the kernel says of a signal that a terminal has sent: to this process and to the program alike.
const BY_THE_TERMINAL: i32 = 0x80;

/// Runs a program, until nothing of it is left.
pub(super) fn run(program: &Program) -> io::Result<Ended> {
    let handed_on: SigSet = HANDED_ON.into_iter().collect();
    let mut blocked = handed_on;
    blocked.add(Signal::SIGCHLD);
    let usual = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let signals = SignalFd::with_flags(&handed_on, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    prctl::set_child_subreaper(true)?;
    let children = Children::watch()?;
    let (ours, its) = Link::pair()?;
    // SAFETY: this process has one thread. The warden makes system calls, takes memory, and ends without running what
    // the process has registered for its end.
    match unsafe { unistd::fork()? } {
        ForkResult::Child => {
            drop((ours, signals, children));
            warden::run(program, &its, usual);
            // SAFETY: it ends the process.
            unsafe { nix::libc::_exit(0) }
        }
        ForkResult::Parent { .. } => drop(its),
    }
    let ended = gathered(&ours, &signals, &children);
    usual.thread_set_mask()?;
    Ok(ended)
}

fn gathered(link: &Link, signals: &SignalFd, children: &Children) -> Ended {
    let (mut ended, mut count, mut is_told) = (Ended::default(), 0, false);
    loop {
        let mut asked = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(link.descriptor().as_fd(), PollFlags::POLLIN),
        ];
        // If it was interrupted, nothing is found below.
        let _ = nix::poll::poll(&mut asked, PollTimeout::NONE);
        let [signalled, told] = asked.map(|asked| asked.any().unwrap_or(false));
        while let (true, Ok(Some(info))) = (signalled, signals.read_signal()) {
            let number = info.ssi_signo as i32;
            let ends = [Signal::SIGINT, Signal::SIGTERM].iter().any(|signal| *signal as i32 == number);
            count += usize::from(ends);
            if ends && count == MOST_SIGNALS {
                ended.at_once = Some(number);
                link.hang_up();
            } else if info.ssi_code != BY_THE_TERMINAL {
                link.tell(&Send(number));
            }
        }
        if !told {
            continue;
        }
        match link.next() {
            Some(Told::NotStarted(error)) => (ended.not_started, is_told) = (Some(error), true),
            Some(Told::Ended(how)) => ended.how = Some(how),
            Some(Told::Left(left)) => (ended.left, is_told) = (left, true),
            None => {
                // Of a warden that was killed, this process has all that it had. Another one is about to end.
                let left = children.end_all(!is_told);
                ended.is_lost = !is_told && ended.at_once.is_none();
                ended.left.ended.extend(left.ended);
                // What the warden could not kill has become this one's.
                ended.left.there.retain(|name| !left.there.contains(name));
                ended.left.there.extend(left.there);
                return ended;
            }
        }
    }
}
