//! SIGINT and SIGTERM: the first drains every job of the process that listens, the second cancels, the third gives up.
//!
//! The signals are taken over with the first listening job and given back with the last (`dispositions.rs`). The
//! handler counts the signal and posts a semaphore; everything else happens on a listener thread. The first listening
//! job of a process starts that thread and it then waits on the semaphore for as long as the process lives: starting
//! and joining it took longer than all the rest of a small job.
//!
//! A host whose handler only sets a flag, such as CPython, looks at the flag when the signal has interrupted its wait.
//! So it misses a signal that comes between its last look and its wait. A drain may take a while, and a user does not
//! send a second signal to a program that seems to end. So the host's first thread is nudged a few times: interrupted
//! by SIGURG, which has no other effect. When that thread returns from waiting for a job it needs no more nudges, and
//! SIGURG is put back; else SIGURG is put back after the last nudge has had its time.
//!
//! All of this belongs to one process. A process forked from it begins anew with its first job.
//!
//! Lock order: `switch` before `jobs` and before `taken`.

mod dispositions;
mod semaphore;
mod watch;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use self::dispositions::{Taken, before, bit, disposition, here, is_function, raise, raise_here};
use self::semaphore::Semaphore;
pub use self::watch::SignalWatch;
use crate::backend::{Command, Event, EventSender};
use crate::control::StopReason;
use crate::sync::lock;

/// What a job does with SIGINT and SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SignalPolicy {
    /// The first signal drains the job, and the second cancels it. The third restores the handling of signals from
    /// before the job and raises the signal again, which by default ends the process. For a library in a host program.
    #[default]
    Drain,
    /// As `Drain`, but the first signal acts as [`JobView::drain`](crate::JobView::drain): sinks make their records
    /// final, and the job succeeds. For endless jobs that a signal ends, as in a container.
    Finish,
    /// As `Drain`. In addition, when the last listening job is over, the signal is raised again if the host had left it
    /// at its default, which ends the process. For a host that may not be waiting for the job.
    Defer,
    /// As `Finish`, and the signal is raised again as for `Defer`.
    FinishAndDefer,
    /// As `Drain`, but the third signal exits the process at once, with 128 plus the signal's number. For your own
    /// binaries.
    Exit,
    /// The job leaves signals alone.
    Off,
}

impl SignalPolicy {
    fn defers(self) -> bool {
        matches!(self, Self::Defer | Self::FinishAndDefer)
    }

    fn finishes(self) -> bool {
        matches!(self, Self::Finish | Self::FinishAndDefer)
    }
}

/// How long after a signal, and after one another, the nudges come; and how long the last has to arrive.
const NUDGES: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(4),
    Duration::from_millis(16),
    Duration::from_millis(64),
    Duration::from_millis(256),
    Duration::from_millis(64),
];

const SIGNALS: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// What is known of signals in one process. Never freed.
struct ProcessSignals {
    id: libc::pid_t,
    /// The signals that the handler stands in for, a bit each.
    handled: AtomicU64,
    taken: Mutex<Taken>,
    /// Which of [`SIGNALS`] came that the listener has not seen: two bits each, that of the latest lowest. There is
    /// room for 32.
    unseen: AtomicU64,
    /// Posted for the listener.
    pending: Semaphore,
    /// The signals that came since a [`SignalWatch`] was asked last, a bit each.
    came: AtomicU64,
    watches: AtomicU32,
    /// Posted for the thread that has such a watch.
    host: Semaphore,
    switch: Mutex<Switch>,
    jobs: Mutex<Vec<Job>>,
    /// Which of [`SIGNALS`] are to be raised again when the last listening job is over, under [`SignalPolicy::Defer`].
    deferred: [AtomicBool; 2],
    /// Whether the host's first thread is being nudged. Changes while `switch` is locked.
    nudges: AtomicBool,
    /// Whether a third signal has come to the jobs that listen.
    gave_up: AtomicBool,
}

struct Switch {
    /// Which of [`SIGNALS`] are taken over.
    taken: [bool; 2],
    /// Whether there is a listening job.
    on: bool,
    /// Whether the listener thread has been started.
    listening: bool,
    /// Whether SIGURG is taken over.
    urges: bool,
}

struct Job {
    events: EventSender,
    policy: SignalPolicy,
    signals: u32,
    id: u64,
}

impl fmt::Debug for ProcessSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSignals").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ProcessSignals {
    fn new() -> Box<Self> {
        let switch = Switch { taken: [false; 2], on: false, listening: false, urges: false };
        let mut made = Box::new(Self {
            // SAFETY: asks for a number.
            id: unsafe { libc::getpid() },
            handled: AtomicU64::new(0),
            taken: Mutex::new(Taken::new()),
            unseen: AtomicU64::new(0),
            pending: Semaphore::new(),
            came: AtomicU64::new(0),
            watches: AtomicU32::new(0),
            host: Semaphore::new(),
            switch: Mutex::new(switch),
            jobs: Mutex::new(Vec::new()),
            deferred: [AtomicBool::new(false), AtomicBool::new(false)],
            nudges: AtomicBool::new(false),
            gave_up: AtomicBool::new(false),
        });
        made.pending.init();
        made.host.init();
        made
    }

    /// Whether it is that of the calling process, which may be forked.
    fn is_this(&self) -> bool {
        // SAFETY: asks for a number.
        self.id == unsafe { libc::getpid() }
    }

    /// A signal has come: called by the handler before the host's function, so that whoever sees what that does finds
    /// it here.
    fn note(&self, signal: libc::c_int) {
        self.came.fetch_or(bit(signal), Ordering::SeqCst);
    }

    /// The host's function was called: wakes whoever is to act.
    fn tell(&self, signal: libc::c_int) {
        if let Some(index) = SIGNALS.iter().position(|&number| number == signal) {
            let add = |unseen| Some(unseen << 2 | (index as u64 + 1));
            // It never refuses.
            let _ = self.unseen.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
            self.pending.post();
        }
        if self.watches.load(Ordering::SeqCst) > 0 && signal != libc::SIGURG {
            self.host.post();
        }
    }

    fn install(&'static self, switch: &mut Switch) -> std::io::Result<()> {
        if !switch.listening {
            // Never joined: it ends with the process, and runs no user code.
            let begun = Arc::new(Barrier::new(2));
            let begins = begun.clone();
            let run = move || {
                begins.wait();
                listen(self);
            };
            drop(std::thread::Builder::new().name("sage-signals".to_owned()).spawn(run)?);
            // Until it runs it has no name of its own, and whoever counts threads tells it from others by that.
            begun.wait();
            switch.listening = true;
        }
        switch.on = true;
        self.came.store(0, Ordering::SeqCst);
        self.gave_up.store(false, Ordering::SeqCst);
        switch.taken = SIGNALS.map(|signal| self.take(signal, libc::SA_RESTART));
        Ok(())
    }

    fn give_all_back(&self, switch: &mut Switch) {
        for (taken, signal) in std::mem::take(&mut switch.taken).into_iter().zip(SIGNALS) {
            if taken {
                self.give_back(signal);
            }
        }
    }

    fn uninstall(&self, switch: &mut Switch) {
        self.give_all_back(switch);
        switch.on = false;
        for (deferred, signal) in self.deferred.iter().zip(SIGNALS) {
            if deferred.swap(false, Ordering::SeqCst) {
                raise_by_default(signal);
            }
        }
    }

    /// Tells the jobs of a signal; says whether the first thread is to be nudged.
    fn deliver(&self, index: usize, signal: libc::c_int) -> bool {
        let mut give_up = None;
        let mut jobs = lock(&self.jobs);
        if jobs.is_empty() {
            drop(jobs);
            // The last job has ended meanwhile: the signal does what it would have done without it. A function of the
            // host's was called when it came. That the host has none by now, as CPython at its end, changes nothing.
            if !before(signal).is_some_and(is_function) {
                raise_by_default(signal);
            }
            return false;
        }
        let is_flag =
            before(signal).is_some_and(|before| is_function(before) && before.sa_flags & libc::SA_RESTART == 0);
        // Both before any job is told, as it may end at once.
        if is_flag {
            self.nudges.store(true, Ordering::SeqCst);
        }
        if jobs.iter().any(|job| job.policy.defers()) {
            self.deferred[index].store(true, Ordering::SeqCst);
        }
        for job in jobs.iter_mut() {
            job.signals += 1;
            let reason = StopReason::Signal(signal);
            match job.signals {
                1 if job.policy.finishes() => job.events.send(Event::Command(Command::Drain(StopReason::Drain))),
                1 => job.events.send(Event::Command(Command::Drain(reason))),
                2 => job.events.send(Event::Command(Command::Cancel(reason))),
                _ => give_up = Some(job.policy),
            }
        }
        drop(jobs);
        match give_up {
            None => {}
            Some(SignalPolicy::Exit) => exit_now(signal),
            Some(_) => self.raise_again(signal),
        }
        is_flag
    }

    fn raise_again(&self, signal: libc::c_int) {
        // A switch that is being thrown right now puts the dispositions back itself.
        if let Ok(mut switch) = self.switch.try_lock() {
            self.give_all_back(&mut switch);
        }
        // First what the host does with it, so that whoever finds that this gave up has that before them.
        raise_here(signal);
        self.gave_up.store(true, Ordering::SeqCst);
        // The signal came to this thread, or to whichever took it.
        self.host.post();
    }

    /// Interrupts what the first thread waits in; says whether that can be. Not where the host has a use for SIGURG.
    fn nudge(&self) -> bool {
        let mut switch = lock(&self.switch);
        if !self.nudges.load(Ordering::SeqCst) {
            return false;
        }
        if !switch.urges {
            if disposition(libc::SIGURG, None).sa_sigaction != libc::SIG_DFL {
                return false;
            }
            switch.urges = self.take(libc::SIGURG, 0);
        }
        // SAFETY: sends a signal to the first thread of this process, whose number is the process's.
        unsafe { libc::syscall(libc::SYS_tgkill, self.id, self.id, libc::SIGURG) };
        true
    }

    /// The first thread needs no nudge any more.
    fn settle(&self) {
        let mut switch = lock(&self.switch);
        self.nudges.store(false, Ordering::SeqCst);
        if std::mem::take(&mut switch.urges) {
            self.give_back(libc::SIGURG);
        }
    }
}

fn listen(process: &'static ProcessSignals) -> ! {
    let mut nudges = [].iter();
    loop {
        match nudges.next() {
            None => process.pending.wait(),
            Some(after) if process.pending.wait_for(*after) => {}
            Some(_) if nudges.as_slice().is_empty() => process.settle(),
            Some(_) => {
                if !process.nudge() {
                    nudges = [].iter();
                }
                continue;
            }
        }
        let unseen = process.unseen.swap(0, Ordering::SeqCst);
        for at in (0..32).rev() {
            let index = match unseen >> (2 * at) & 3 {
                0 => continue,
                index => index as usize - 1,
            };
            if process.deliver(index, SIGNALS[index]) {
                nudges = NUDGES.iter();
            }
        }
    }
}

/// Raises a signal that the host has left at its default.
fn raise_by_default(signal: libc::c_int) {
    if disposition(signal, None).sa_sigaction == libc::SIG_DFL {
        raise(signal);
    }
}

#[expect(clippy::disallowed_methods, reason = "the third signal to a binary that asked for this ends it")]
fn exit_now(signal: libc::c_int) {
    std::process::exit(128 + signal);
}

/// To be called when a wait for a job ends: a thread that returns from it looks at its signals itself.
pub(crate) fn settle() {
    let process = here();
    // SAFETY: asks for a number.
    if process.nudges.load(Ordering::SeqCst) && process.id == unsafe { libc::gettid() } {
        process.settle();
    }
}

/// A job's wish to be told of signals, until it is dropped.
pub(crate) struct Listening(Option<(&'static ProcessSignals, u64)>);

impl Listening {
    /// Starts telling the job behind `events`.
    pub(crate) fn start(policy: SignalPolicy, events: &EventSender) -> std::io::Result<Self> {
        if policy == SignalPolicy::Off {
            return Ok(Self(None));
        }
        let process = here();
        let mut switch = lock(&process.switch);
        if !switch.on {
            process.install(&mut switch)?;
        }
        let mut jobs = lock(&process.jobs);
        let id = jobs.iter().map(|job| job.id + 1).max().unwrap_or(0);
        jobs.push(Job { events: events.clone(), policy, signals: 0, id });
        Ok(Self(Some((process, id))))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some((process, id)) = self.0.filter(|(process, _)| process.is_this()) else { return };
        let mut switch = lock(&process.switch);
        let last = {
            let mut jobs = lock(&process.jobs);
            jobs.retain(|job| job.id != id);
            jobs.is_empty()
        };
        if last {
            process.uninstall(&mut switch);
        }
    }
}
