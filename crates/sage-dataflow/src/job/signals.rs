//! SIGINT and SIGTERM: the first drains every job of the process that listens, the second cancels, the third gives up.
//!
//! The handlers are installed with the first listening job and taken out with the last, when the dispositions found
//! before are put back. A handler counts the signal, posts a semaphore and calls the handler it replaced; everything
//! else happens on a listener thread. The first listening job of a process starts that thread and it then waits on the
//! semaphore for as long as the process lives: starting and joining it took longer than all the rest of a small job.
//!
//! A host whose handler only sets a flag, and which looks at it when the signal has interrupted what it waits in, as CPython does,
//! misses a signal that comes between its last look and its wait. A drain may take a while; nobody sends a second signal to
//! a program that seems to end. So its main thread is nudged a few times: interrupted by SIGURG, which means nothing.
//!
//! Lock order: `SWITCH` before `JOBS`.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::reason::StopReason;
use crate::backend::{Command, Event, EventSender};
use crate::sync::lock;

/// What a job does with SIGINT and SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SignalPolicy {
    /// The first signal drains the job, the second cancels it. The third puts back the disposition that was there before
    /// the job and raises the signal again, which by default ends the process. For a library in a host program.
    #[default]
    Drain,
    /// As `Drain`; and when the last listening job is over, a signal that the host had left at its default, which ends a
    /// process, is raised again. For a host in which nobody may be waiting for the job.
    Defer,
    /// As `Drain`, but the third signal exits at once with 128 plus the signal's number. For binaries of one's own.
    Exit,
    /// Signals are left alone.
    Off,
}

/// How long after a signal, and after one another, the nudges come.
const NUDGES: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(4),
    Duration::from_millis(16),
    Duration::from_millis(64),
    Duration::from_millis(256),
];

const SIGNALS: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

static COUNTS: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
/// The function each of our handlers replaced, to be called by it; null for none.
static CHAINED: [AtomicPtr<libc::c_void>; 2] =
    [AtomicPtr::new(std::ptr::null_mut()), AtomicPtr::new(std::ptr::null_mut())];
static CHAINED_WITH_INFO: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

/// Whether the function that was replaced is to interrupt what its thread waits in.
static INTERRUPTS: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
/// Which signals are to be raised again when the last listening job is over, under [`SignalPolicy::Defer`].
static DEFERRED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

static SWITCH: Mutex<Switch> = Mutex::new(Switch { installed: [None, None], on: false, listening: false });
static JOBS: Mutex<Vec<Job>> = Mutex::new(Vec::new());

struct Switch {
    /// The dispositions that were replaced.
    installed: [Option<libc::sigaction>; 2],
    /// Whether there is a listening job.
    on: bool,
    /// Whether the listener thread has been started.
    listening: bool,
}

struct Job {
    events: EventSender,
    policy: SignalPolicy,
    signals: u32,
    id: u64,
}

struct Semaphore(UnsafeCell<MaybeUninit<libc::sem_t>>);

// SAFETY: a POSIX semaphore is made to be shared between threads and signal handlers.
unsafe impl Sync for Semaphore {}

static PENDING: Semaphore = Semaphore(UnsafeCell::new(MaybeUninit::uninit()));
static PENDING_INIT: Once = Once::new();

impl Semaphore {
    fn init(&self) {
        PENDING_INIT.call_once(|| {
            // SAFETY: runs once, before any use; the semaphore is static and never destroyed.
            let made = unsafe { libc::sem_init((*self.0.get()).as_mut_ptr(), 0, 0) };
            assert_eq!(made, 0, "a process-private semaphore of value 0 can always be made");
        });
    }

    fn post(&self) {
        // SAFETY: initialised before the handlers were installed; `sem_post` may be called in a signal handler.
        unsafe { libc::sem_post((*self.0.get()).as_mut_ptr()) };
    }

    fn wait(&self) {
        // SAFETY: initialised before the listener was started.
        while unsafe { libc::sem_wait((*self.0.get()).as_mut_ptr()) } != 0 {}
    }

    /// Waits for `timeout` at most; says whether the semaphore was posted.
    fn wait_for(&self, timeout: Duration) -> bool {
        let until = (SystemTime::now() + timeout).duration_since(UNIX_EPOCH).unwrap_or_default();
        let until = libc::timespec { tv_sec: until.as_secs().cast_signed(), tv_nsec: until.subsec_nanos().into() };
        // SAFETY: as in `wait`. One that a signal cuts short was long enough.
        unsafe { libc::sem_timedwait((*self.0.get()).as_mut_ptr(), &until) == 0 }
    }
}

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(index) = SIGNALS.iter().position(|&number| number == signal) else { return };
    COUNTS[index].fetch_add(1, Ordering::SeqCst);
    // SAFETY: `errno` is this thread's; the interrupted code must find it as it left it.
    let errno = unsafe { *libc::__errno_location() };
    PENDING.post();
    let chained = CHAINED[index].load(Ordering::SeqCst);
    if !chained.is_null() {
        // SAFETY: the pointer came from a `sigaction` that held a function of the kind `CHAINED_WITH_INFO` tells.
        unsafe {
            if CHAINED_WITH_INFO[index].load(Ordering::SeqCst) {
                type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                std::mem::transmute::<*mut libc::c_void, WithInfo>(chained)(signal, info, context);
            } else {
                std::mem::transmute::<*mut libc::c_void, extern "C" fn(libc::c_int)>(chained)(signal);
            }
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn handler_address() -> libc::sighandler_t {
    on_signal as *const () as libc::sighandler_t
}

fn disposition(signal: libc::c_int, new: Option<&libc::sigaction>) -> libc::sigaction {
    let mut old = MaybeUninit::uninit();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are valid or null; SIGINT and SIGTERM have dispositions, so `old` is filled in.
    unsafe {
        libc::sigaction(signal, new, old.as_mut_ptr());
        old.assume_init()
    }
}

impl Switch {
    fn install(&mut self) -> std::io::Result<()> {
        PENDING.init();
        if !self.listening {
            // Never joined: it ends with the process, and runs no user code.
            drop(std::thread::Builder::new().name("sage-signals".to_owned()).spawn(listen)?);
            self.listening = true;
        }
        self.on = true;
        for (index, &signal) in SIGNALS.iter().enumerate() {
            let old = disposition(signal, None);
            // A process that was told to ignore a signal, as under nohup, goes on ignoring it.
            if old.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            let is_function = old.sa_sigaction != libc::SIG_DFL && old.sa_sigaction != handler_address();
            let chained = if is_function { old.sa_sigaction as *mut libc::c_void } else { std::ptr::null_mut() };
            CHAINED_WITH_INFO[index].store(old.sa_flags & libc::SA_SIGINFO != 0, Ordering::SeqCst);
            CHAINED[index].store(chained, Ordering::SeqCst);
            // SAFETY: all zeroes is a valid `sigaction`; the fields that matter are set below.
            let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
            new.sa_sigaction = handler_address();
            // A host whose handler is to interrupt what its threads wait in goes on interrupting it.
            INTERRUPTS[index].store(is_function && old.sa_flags & libc::SA_RESTART == 0, Ordering::SeqCst);
            let restart = if is_function { old.sa_flags & libc::SA_RESTART } else { libc::SA_RESTART };
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | restart;
            disposition(signal, Some(&new));
            self.installed[index] = Some(old);
        }
        Ok(())
    }

    fn uninstall(&mut self) {
        restore(&mut self.installed);
        self.on = false;
        for (index, &signal) in SIGNALS.iter().enumerate() {
            if DEFERRED[index].swap(false, Ordering::SeqCst) && disposition(signal, None).sa_sigaction == libc::SIG_DFL
            {
                raise(signal);
            }
        }
    }
}

/// Puts back what was replaced, unless someone else has replaced our handlers since.
fn restore(installed: &mut [Option<libc::sigaction>; 2]) {
    for (index, &signal) in SIGNALS.iter().enumerate() {
        if let Some(old) = installed[index].take()
            && disposition(signal, None).sa_sigaction == handler_address()
        {
            disposition(signal, Some(&old));
        }
    }
}

fn listen() -> ! {
    let mut nudges = [].iter();
    loop {
        match nudges.next() {
            None => PENDING.wait(),
            Some(after) if PENDING.wait_for(*after) => {}
            Some(_) => {
                nudge();
                continue;
            }
        }
        for (index, &signal) in SIGNALS.iter().enumerate() {
            for _ in 0..COUNTS[index].swap(0, Ordering::SeqCst) {
                deliver(index, signal);
                if INTERRUPTS[index].load(Ordering::SeqCst) {
                    nudges = NUDGES.iter();
                }
            }
        }
    }
}

/// Interrupts what the main thread waits in, unless the host has a use for SIGURG. By default that is ignored, so the handler that
/// does nothing may stay.
fn nudge() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let nothing = nothing as extern "C" fn(libc::c_int) as *const () as libc::sighandler_t;
    let found = disposition(libc::SIGURG, None).sa_sigaction;
    if found == libc::SIG_DFL {
        // SAFETY: all zeroes is a valid `sigaction`; the fields that matter are set below.
        let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
        (new.sa_sigaction, new.sa_flags) = (nothing, libc::SA_ONSTACK);
        disposition(libc::SIGURG, Some(&new));
    } else if found != nothing {
        return;
    }
    // SAFETY: sends a signal to the first thread of this process, whose number is the process's.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::getpid(), libc::SIGURG) };
}

fn deliver(index: usize, signal: libc::c_int) {
    let reason = || StopReason::Signal(signal);
    let mut give_up = None;
    for job in lock(&JOBS).iter_mut() {
        job.signals += 1;
        if job.policy == SignalPolicy::Defer {
            DEFERRED[index].store(true, Ordering::SeqCst);
        }
        match job.signals {
            1 => job.events.send(Event::Command(Command::Drain(reason()))),
            2 => job.events.send(Event::Command(Command::Cancel(reason()))),
            _ => give_up = Some(job.policy),
        }
    }
    match give_up {
        None => {}
        Some(SignalPolicy::Exit) => exit_now(signal),
        Some(_) => raise_again(signal),
    }
}

#[expect(clippy::disallowed_methods, reason = "the third signal to a binary that asked for this ends it")]
fn exit_now(signal: libc::c_int) {
    std::process::exit(128 + signal);
}

fn raise_again(signal: libc::c_int) {
    // A switch that is being thrown right now puts the dispositions back itself.
    if let Ok(mut switch) = SWITCH.try_lock() {
        restore(&mut switch.installed);
    }
    raise(signal);
}

fn raise(signal: libc::c_int) {
    // SAFETY: sends a signal to this process.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// A job's wish to be told of signals, until it is dropped.
pub(crate) struct Listening(Option<u64>);

impl Listening {
    /// Starts telling the job behind `events`.
    pub(crate) fn start(policy: SignalPolicy, events: &EventSender) -> std::io::Result<Self> {
        if policy == SignalPolicy::Off {
            return Ok(Self(None));
        }
        let mut switch = lock(&SWITCH);
        if !switch.on {
            switch.install()?;
        }
        let mut jobs = lock(&JOBS);
        let id = jobs.iter().map(|job| job.id + 1).max().unwrap_or(0);
        jobs.push(Job { events: events.clone(), policy, signals: 0, id });
        Ok(Self(Some(id)))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some(id) = self.0 else { return };
        let mut switch = lock(&SWITCH);
        let last = {
            let mut jobs = lock(&JOBS);
            jobs.retain(|job| job.id != id);
            jobs.is_empty()
        };
        if last {
            switch.uninstall();
        }
    }
}
