//! The warden: starts the program, waits for it, and ends what it leaves, or all when `sage run` is gone.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::prctl;
use nix::sys::signal::{self, SigSet, Signal};
use nix::unistd::{self, Pid};

use super::below::{self, Children};
use super::message::{Link, Send, Told};
use super::program::Program;

/// Runs the warden, with all signals blocked that may end it; `usual` is the mask for the program.
pub(super) fn run(program: &Program, link: &Link, usual: SigSet) {
    if let Err(error) = watched(program, link, usual) {
        link.tell(&Told::NotStarted(error.to_string()));
    }
}

fn watched(program: &Program, link: &Link, usual: SigSet) -> io::Result<()> {
    prctl::set_child_subreaper(true)?;
    let children = Children::watch()?;
    let job = start(program, usual)?;
    let mut is_running = true;
    while is_running {
        let mut asked = [
            PollFd::new(children.descriptor().as_fd(), PollFlags::POLLIN),
            PollFd::new(link.descriptor().as_fd(), PollFlags::POLLIN),
        ];
        // If it was interrupted, nothing is found below.
        let _ = nix::poll::poll(&mut asked, PollTimeout::NONE);
        let [ended, told] = asked.map(|asked| asked.any().unwrap_or(false));
        if told {
            match link.next() {
                Some(Send(number)) => {
                    if let Ok(signal) = Signal::try_from(number) {
                        // It is not reaped, so that its pid is its own.
                        let _ = signal::kill(job, signal);
                    }
                }
                None => {
                    children.end_all(true);
                    return Ok(());
                }
            }
        }
        if ended {
            children.heed();
            for (pid, how) in below::reap().unwrap_or_default() {
                if pid == job {
                    is_running = false;
                    link.tell(&Told::Ended(how));
                }
            }
        }
    }
    link.tell(&Told::Left(children.end_all(false)));
    Ok(())
}

fn start(program: &Program, usual: SigSet) -> io::Result<Pid> {
    let warden = Pid::this();
    let mut command = Command::new(&program.file);
    command.args(&program.arguments);
    let before = move || {
        usual.thread_set_mask()?;
        // For when this process and `sage run` are killed at once.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if unistd::getppid() != warden {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    };
    // SAFETY: it only makes system calls.
    unsafe { command.pre_exec(before) };
    // It is reaped below.
    Ok(Pid::from_raw(command.spawn()?.id().cast_signed()))
}
