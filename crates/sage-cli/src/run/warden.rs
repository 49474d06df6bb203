//! The warden: starts the program, waits for it, and ends what it leaves, or all when `sage run` is gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::prctl;
use nix::sys::signal::{self, SigSet, Signal};
use nix::unistd::{self, Pid};

use super::below::{self, Children};
use super::bounds::Bounds;
use super::message::{How, Left, Link, Order, Told, Usage};
use super::program::Program;
use super::seat::Seat;

/// What a warden needs.
pub(super) struct Warden<'a> {
    pub(super) program: &'a Program,
    /// Where `sage run` sits, which the warden leaves in order if that is killed.
    pub(super) seat: &'a Seat,
    pub(super) bounds: &'a Bounds,
    pub(super) link: Link,
    /// The mask of signals for the program.
    pub(super) usual: SigSet,
    /// Where the program's output goes, if it does not go where this process's does. Then it reads nothing, either.
    pub(super) output: Option<OwnedFd>,
}

impl Warden<'_> {
    /// Runs it, with all signals blocked that may end it.
    pub(super) fn run(mut self) {
        let Ok(children) = prctl::set_child_subreaper(true).and_then(|()| Children::watch()) else { return };
        if !matches!(self.link.next(), Some(Order::Start)) {
            self.lost(children.end_all(true));
            return;
        }
        let at_once = match self.start() {
            Ok(program) => {
                self.link.tell(&Told::Started(program.as_raw()));
                self.watch(program, &children)
            }
            Err(error) => {
                self.link.tell(&Told::NotStarted(error.to_string()));
                false
            }
        };
        if at_once {
            self.bounds.kill();
        }
        let left = children.end_all(at_once);
        self.link.tell(&Told::Left(left.clone(), Usage::below()));
        loop {
            match self.link.next() {
                Some(Order::Done) => return,
                // There is nothing left to be told.
                Some(_) => {}
                None => return self.lost(left),
            }
        }
    }

    /// Does what `sage run` would have done: that was killed.
    fn lost(&self, left: Left) {
        self.seat.lost(left, Usage::below());
        self.bounds.remove();
    }

    /// Waits until the program has ended, or is to be killed, which is returned.
    fn watch(&self, program: Pid, children: &Children) -> bool {
        loop {
            let mut asked = [
                PollFd::new(children.descriptor().as_fd(), PollFlags::POLLIN),
                PollFd::new(self.link.descriptor().as_fd(), PollFlags::POLLIN),
            ];
            // If it was interrupted, nothing is found below.
            let _ = nix::poll::poll(&mut asked, PollTimeout::NONE);
            let [ended, told] = asked.map(|asked| asked.any().unwrap_or(false));
            if told {
                match self.link.next() {
                    Some(Order::Send(number)) => {
                        if let Ok(signal) = Signal::try_from(number) {
                            // It is not reaped, so that its pid is its own.
                            let _ = signal::kill(program, signal);
                        }
                    }
                    Some(Order::Start) => {}
                    Some(Order::Kill | Order::Done) | None => return true,
                }
            }
            if ended {
                children.heed();
                if let Some(how) = self.ended(program) {
                    self.link.tell(&Told::Ended(how));
                    return false;
                }
            }
        }
    }

    /// Reaps those that have ended, and says how the program has, if it is among them.
    fn ended(&self, program: Pid) -> Option<How> {
        let ended = below::reap().unwrap_or_default();
        ended.into_iter().find(|(pid, _)| *pid == program).map(|(_, how)| how)
    }

    fn start(&mut self) -> io::Result<Pid> {
        let (warden, usual) = (Pid::this(), self.usual);
        let mut command = Command::new(&self.program.file);
        command.args(&self.program.arguments).envs(self.program.variables.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.program.folder {
            command.current_dir(folder);
        }
        if let Some(output) = self.output.take() {
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        }
        let enter = self.bounds.enter()?;
        let before = move || {
            usual.thread_set_mask()?;
            // For when this process and `sage run` are killed at once.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if unistd::getppid() != warden {
                return Err(io::ErrorKind::Interrupted.into());
            }
            enter()
        };
        // SAFETY: it only makes system calls.
        unsafe { command.pre_exec(before) };
        // It is reaped above.
        Ok(Pid::from_raw(command.spawn()?.id().cast_signed()))
    }
}
