//! `sage run` itself: starts the warden, hands on signals, hears the program's jobs and the daemon, and gathers what
//! has become of the program.
//!
//! One thread, which waits for whatever comes next. The outcome is written when nothing of the program is left, and
//! before those are let go who watch.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{self, ForkResult, Pid};
use sage_api::message::{self, Command, Happened};
use sage_api::outcome::{Process, ReaperIs};

use super::below::{self, Children};
use super::bounds::Bounds;
use super::cleanups::Cleanups;
use super::desk::{Desk, Wish};
use super::ended::Ended;
use super::events::Events;
use super::message::{Link, Order, Told, Usage};
use super::output::Output;
use super::peers::Peers;
use super::program::Program;
use super::seat::Seat;
use super::warden::Warden;

/// What is handed on to the program.
const HANDED_ON: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// So many of the signals that end a program end it at once.
const MOST_SIGNALS: usize = 3;

/// What the kernel says of a signal that a terminal has sent: to this process and to the program alike.
const BY_THE_TERMINAL: i32 = 0x80;

/// How long those who watch may take to read the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs a program, until nothing of it is left and that is noted.
pub(super) fn run(program: &Program, bounds: &Bounds, seat: &Seat) -> io::Result<Ended> {
    let handed_on: SigSet = HANDED_ON.into_iter().collect();
    let mut blocked = handed_on;
    blocked.add(Signal::SIGCHLD);
    let usual = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let signals = SignalFd::with_flags(&handed_on, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    prctl::set_child_subreaper(true)?;
    let children = Children::watch()?;
    let (ours, its) = Link::pair()?;
    let (kept, output) = seat.folder().map(Output::keep).transpose()?.unzip();
    // SAFETY: this process has one thread. The warden makes system calls, takes memory, and ends without running what
    // the process has registered for its end.
    let warden = match unsafe { unistd::fork()? } {
        ForkResult::Child => {
            drop((ours, signals, children, kept));
            Warden { program, seat, bounds, link: its, usual, output }.run();
            // SAFETY: it ends the process.
            unsafe { nix::libc::_exit(0) }
        }
        ForkResult::Parent { child } => child,
    };
    drop((its, output));
    let ended = match begin(seat, bounds, warden) {
        Ok(desk) => Reaper::new(bounds, ours, signals, children, warden, desk, kept).gather(seat),
        Err(error) => {
            let ended = Ended::refused(error.to_string());
            seat.outcome(&ended);
            end(&ours, warden);
            ended
        }
    };
    bounds.remove();
    usual.thread_set_mask()?;
    Ok(ended)
}

/// Listens, and says who the reaper is: all that has to be before the program is started.
fn begin(seat: &Seat, bounds: &Bounds, warden: Pid) -> io::Result<Desk> {
    let peers = seat.socket().map_or_else(|| Ok(Peers::none()), |socket| Peers::listen(&socket))?;
    let events = seat.folder().map_or_else(|| Ok(Events::default()), |folder| Events::of(&folder.events()))?;
    if seat.folder().is_some() {
        let process = Process::of(std::process::id())?;
        let warden = Some(Process::of(warden.as_raw().cast_unsigned())?);
        seat.taken(&ReaperIs { process, warden, limits: bounds.enforced().clone() })?;
    }
    Ok(Desk::new(peers, events, Cleanups::of(seat.cleanups())))
}

/// Lets the warden end, and reaps it.
fn end(link: &Link, warden: Pid) {
    link.tell(&Order::Done);
    while link.next::<Told>().is_some() {}
    // It has closed its end, and is about to end.
    let _ = nix::sys::wait::waitpid(warden, None);
}

struct Reaper<'a> {
    bounds: &'a Bounds,
    link: Link,
    signals: SignalFd,
    children: Children,
    warden: Pid,
    desk: Desk,
    output: Option<Output>,
    ended: Ended,
    /// How many signals have come that end a program.
    count: usize,
    /// When the program's time is over, and when that for its cleanup is.
    cancel_at: Option<Instant>,
    kill_at: Option<Instant>,
    /// Whether the warden has said what came of the start. Nobody is heard before, so that a program's start is noted
    /// before what its jobs tell and what it prints.
    is_started: bool,
    /// All of the program has ended.
    is_over: bool,
}

impl<'a> Reaper<'a> {
    fn new(
        bounds: &'a Bounds,
        link: Link,
        signals: SignalFd,
        children: Children,
        warden: Pid,
        desk: Desk,
        output: Option<Output>,
    ) -> Self {
        let (ended, cancel_at, kill_at) = (Ended::default(), None, None);
        Self {
            bounds,
            link,
            signals,
            children,
            warden,
            desk,
            output,
            ended,
            count: 0,
            cancel_at,
            kill_at,
            is_started: false,
            is_over: false,
        }
    }

    fn gather(mut self, seat: &Seat) -> Ended {
        self.link.tell(&Order::Start);
        while !self.is_over {
            self.turn();
        }
        // 1. What it has told and printed.
        self.desk.end();
        if let Some(output) = &mut self.output {
            output.end();
            self.desk.tell_output(output.length());
        }
        self.ended.asked = self.desk.asked_to_end();
        self.ended.reports = self.desk.take_reports();
        self.ended.take_note_of(self.bounds);
        // 2. What it has made outside of itself.
        let folder = seat.folder_of_program();
        self.ended.not_cleaned = self.desk.clean(&self.children, folder.as_deref());
        // 3. On the disk.
        seat.outcome(&self.ended);
        // 4. Those who watch, and the warden.
        self.desk.farewell(FAREWELL);
        if !self.ended.is_lost {
            end(&self.link, self.warden);
        }
        seat.leave();
        self.ended
    }

    /// Waits for what comes next, and does what it asks for.
    fn turn(&mut self) {
        let (signalled, told, printed, dialled) = self.wait();
        self.heed_clock();
        if signalled {
            self.heed_signals();
        }
        if told {
            self.heed_warden();
        }
        if printed && let Some(output) = &mut self.output {
            output.take();
            self.desk.tell_output(output.length());
        }
        for (number, found) in dialled {
            for wish in self.desk.heed(number, found) {
                match wish {
                    Wish::Terminate => self.send(Signal::SIGTERM as i32),
                    Wish::Kill => self.kill(),
                }
            }
        }
    }

    fn wait(&self) -> (bool, bool, bool, Vec<(u64, PollFlags)>) {
        let wants = PollFlags::POLLIN;
        let mut asked =
            vec![PollFd::new(self.signals.as_fd(), wants), PollFd::new(self.link.descriptor().as_fd(), wants)];
        let output = self.output.as_ref().filter(|_| self.is_started).and_then(Output::descriptor);
        asked.extend(output.map(|output| PollFd::new(output, wants)));
        let first = asked.len();
        let mut numbers = Vec::new();
        for (number, it) in self.desk.asked().filter(|_| self.is_started) {
            numbers.push(number);
            asked.push(it);
        }
        // If it was interrupted, nothing is found below.
        let _ = nix::poll::poll(&mut asked, self.longest());
        let found = |at: usize| asked.get(at).is_some_and(|it| it.any().unwrap_or(false));
        let dialled = numbers.into_iter().zip(&asked[first..]);
        let dialled =
            dialled.filter_map(|(number, it)| Some((number, it.revents().filter(|found| !found.is_empty())?)));
        (found(0), found(1), first > 2 && found(2), dialled.collect())
    }

    fn heed_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = info.ssi_signo as i32;
            let ends = [Signal::SIGINT, Signal::SIGTERM].iter().any(|signal| *signal as i32 == number);
            self.count += usize::from(ends);
            self.ended.is_signalled |= ends;
            if ends && self.count == MOST_SIGNALS {
                self.ended.at_once = Some(number);
                self.kill();
            } else if info.ssi_code != BY_THE_TERMINAL {
                self.send(number);
            }
        }
    }

    /// How long nothing is to be done unless something comes.
    fn longest(&self) -> PollTimeout {
        let Some(next) = [self.cancel_at, self.kill_at].into_iter().flatten().min() else { return PollTimeout::NONE };
        // Not before it: a millisecond more.
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn heed_clock(&mut self) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.cancel_at) {
            self.cancel_at = None;
            let Some((time, after)) = self.bounds.time().filter(|_| self.ended.how.is_none()) else { return };
            self.ended.out_of_time = Some(time);
            self.kill_at = now.checked_add(after);
            if !self.desk.tell_jobs(Command::Cancel, message::Told::OutOfTime) {
                self.desk.note(Happened::Told(message::Told::OutOfTime));
                self.send(Signal::SIGTERM as i32);
            }
        }
        if is_due(self.kill_at) {
            self.kill_at = None;
            self.kill();
        }
    }

    /// Sends the program a signal.
    fn send(&mut self, number: i32) {
        self.desk.note(Happened::Told(message::Told::Signal(number)));
        self.link.tell(&Order::Send(number));
    }

    /// Kills all of the program, unless it has ended.
    fn kill(&mut self) {
        if self.ended.how.is_none() && !self.ended.is_killed {
            self.ended.is_killed = true;
            self.desk.note(Happened::Told(message::Told::Killed));
            self.link.tell(&Order::Kill);
        }
    }

    fn heed_warden(&mut self) {
        match self.link.next() {
            Some(Told::NotStarted(error)) => (self.ended.not_started, self.is_started) = (Some(error), true),
            Some(Told::Started(pid)) => {
                self.is_started = true;
                self.desk.note(Happened::Started { pid: pid.cast_unsigned() });
                self.cancel_at = self.bounds.time().and_then(|(time, _)| Instant::now().checked_add(time));
            }
            Some(Told::Ended(how)) => self.ended.how = Some(how),
            Some(Told::Left(left, usage)) => {
                (self.ended.left, self.ended.usage, self.is_over) = (left, usage, true);
            }
            None => {
                // Of a warden that was killed, this process has all that it had.
                self.bounds.kill();
                self.ended.left = self.children.end_all(true);
                (self.ended.usage, self.ended.is_lost, self.is_over) = (Usage::below(), true, true);
                below::reap();
            }
        }
    }
}
