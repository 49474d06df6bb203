//! How the engine replaces the disposition of a signal, and restores it.
//!
//! One handler replaces the earlier dispositions. It first calls the function that it replaced, if there was one, and
//! then tells the engine of the signal. So when the engine acts, the host's function has run.
//!
//! Invariants:
//!  1. What a signal did before is in memory that never changes and is never freed: the handler may read it at any
//!     time.
//!  2. Where the handler is not wanted, it does what was done before: in a forked process, and when somebody who had
//!     found it there has put it back later.
//!  3. A process forked by `fork` has the dispositions of before when that returns.

use std::mem::MaybeUninit;
use std::ptr::{from_ref, null, null_mut};
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_int, c_void, sigaction, siginfo_t};

use super::ProcessSignals;
use crate::sync::lock;

/// Signals are numbered from 1 to 64.
pub(super) const NUMBERS: usize = 65;

static PROCESS: AtomicPtr<ProcessSignals> = AtomicPtr::new(null_mut());

/// What each signal did before it was taken over last; null if it never was.
static BEFORE: [AtomicPtr<sigaction>; NUMBERS] = [const { AtomicPtr::new(null_mut()) }; NUMBERS];

/// Which signals are taken over, for how many.
pub(super) struct Taken {
    users: [u32; NUMBERS],
    /// What signals did before: each thing once, as it is kept for ever.
    known: Vec<&'static sigaction>,
}

impl Taken {
    pub(super) const fn new() -> Self {
        Self { users: [0; NUMBERS], known: Vec::new() }
    }

    fn keep(&mut self, before: sigaction) -> &'static sigaction {
        let known = self.known.iter().find(|known| is_same(known, &before)).copied();
        known.unwrap_or_else(|| {
            let kept: &'static sigaction = Box::leak(Box::new(before));
            self.known.push(kept);
            kept
        })
    }
}

/// What is known of signals in this process. A forked one has neither the threads of the other nor its locks, which may
/// have been held, and gets its own.
pub(super) fn here() -> &'static ProcessSignals {
    // SAFETY: null, or a process's own that is never freed.
    let found = || unsafe { PROCESS.load(Ordering::Acquire).as_ref() };
    loop {
        let current = found();
        if let Some(process) = current
            && process.is_this()
        {
            return process;
        }
        let made = Box::into_raw(ProcessSignals::new());
        let current = current.map_or(null_mut(), |process| from_ref(process).cast_mut());
        if PROCESS.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Another thread was first. SAFETY: nobody else has seen this one.
            drop(unsafe { Box::from_raw(made) });
        }
    }
}

/// A signal's bit in a set of them.
pub(super) fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

fn number(signal: c_int) -> usize {
    signal.unsigned_abs() as usize
}

/// The signals of a set.
pub(super) fn signals_of(set: u64) -> impl Iterator<Item = c_int> {
    (1..NUMBERS as c_int).filter(move |signal| set & bit(*signal) != 0)
}

/// Reads a disposition, and replaces it if there is a new one.
pub(super) fn disposition(signal: c_int, new: Option<&sigaction>) -> sigaction {
    let mut old = MaybeUninit::<sigaction>::zeroed();
    let new = new.map_or(null(), from_ref);
    // SAFETY: both pointers are valid or null; all zeroes is a valid `sigaction`, for a signal that has none.
    unsafe {
        libc::sigaction(signal, new, old.as_mut_ptr());
        old.assume_init()
    }
}

fn is_ours(found: &sigaction) -> bool {
    found.sa_sigaction == on_signal as *const () as libc::sighandler_t
}

pub(super) fn is_function(found: &sigaction) -> bool {
    found.sa_sigaction != libc::SIG_DFL && found.sa_sigaction != libc::SIG_IGN
}

fn is_same(one: &sigaction, other: &sigaction) -> bool {
    // The system fills in a bit for each signal; what is behind those, the C library leaves as it was.
    // SAFETY: a set of signals has 64 bits at least.
    let mask = |of: &sigaction| unsafe { (&raw const of.sa_mask).cast::<u64>().read_unaligned() };
    one.sa_sigaction == other.sa_sigaction && one.sa_flags == other.sa_flags && mask(one) == mask(other)
}

/// What a signal did before it was taken over.
pub(super) fn before(signal: c_int) -> Option<&'static sigaction> {
    // SAFETY: by the first invariant.
    unsafe { BEFORE.get(number(signal))?.load(Ordering::Acquire).as_ref() }
}

impl ProcessSignals {
    /// Has the handler stand in for what a signal does, until it was given back as often; says whether that could be. A
    /// signal that is ignored goes on being ignored. `flags` are the handler's where it replaces no function.
    pub(super) fn take(&self, signal: c_int, flags: c_int) -> bool {
        register_forks();
        let mut taken = lock(&self.taken);
        let old = disposition(signal, None);
        if old.sa_sigaction == libc::SIG_IGN {
            return false;
        }
        // If it is the handler and nobody has taken the signal, somebody has put it back: what was before is what it
        // was.
        if !is_ours(&old) {
            BEFORE[number(signal)].store(from_ref(taken.keep(old)).cast_mut(), Ordering::Release);
        }
        self.handled.fetch_or(bit(signal), Ordering::SeqCst);
        if !is_ours(&old) {
            let mut new = old;
            if !is_function(&old) {
                new.sa_flags = flags;
                // SAFETY: empties a set that is there.
                unsafe { libc::sigemptyset(&mut new.sa_mask) };
            }
            // A host whose function is to interrupt what its threads wait in goes on interrupting it. Unless the host
            // asks for it, the handler runs on the thread's own stack: an exit begun by another thread may already have
            // freed the other one, and the signal would then end the process.
            new.sa_flags = new.sa_flags & !libc::SA_RESETHAND | libc::SA_SIGINFO;
            new.sa_sigaction = on_signal as *const () as libc::sighandler_t;
            disposition(signal, Some(&new));
        }
        taken.users[number(signal)] += 1;
        true
    }

    /// Puts back what a signal did, if nobody else has it taken over, and nobody has replaced the handler since.
    pub(super) fn give_back(&self, signal: c_int) {
        let mut taken = lock(&self.taken);
        let users = &mut taken.users[number(signal)];
        *users = users.saturating_sub(1);
        if *users == 0 {
            put_back(signal);
            self.handled.fetch_and(!bit(signal), Ordering::SeqCst);
        }
    }
}

fn put_back(signal: c_int) {
    if let Some(before) = before(signal)
        && is_ours(&disposition(signal, None))
    {
        disposition(signal, Some(before));
    }
}

fn register_forks() {
    static FORKS: Once = Once::new();
    extern "C" fn in_child() {
        // SAFETY: never freed. Of the other process's, only what is atomic is read.
        let Some(process) = (unsafe { PROCESS.load(Ordering::Acquire).as_ref() }) else { return };
        signals_of(process.handled.load(Ordering::SeqCst)).for_each(put_back);
    }
    FORKS.call_once(|| {
        // It fails for want of memory only; then the handler itself sees that it is in another process.
        // SAFETY: the function does nothing but read atomics and call `sigaction`, which a forked process may do.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// Calls what a disposition says.
///
/// # Safety
/// It is that of a function.
unsafe fn call(function: &sigaction, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    type WithInfo = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
    let address = function.sa_sigaction as *const ();
    // SAFETY: a function of the kind that the flags tell.
    unsafe {
        if function.sa_flags & libc::SA_SIGINFO != 0 {
            std::mem::transmute::<*const (), WithInfo>(address)(signal, info, context);
        } else {
            std::mem::transmute::<*const (), extern "C" fn(c_int)>(address)(signal);
        }
    }
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: `errno` is this thread's; the interrupted code must find it as it left it.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: never freed.
    let process = unsafe { PROCESS.load(Ordering::Acquire).as_ref() };
    let process =
        process.filter(|process| process.is_this() && process.handled.load(Ordering::SeqCst) & bit(signal) != 0);
    if let Some(process) = process {
        process.note(signal);
    }
    match before(signal) {
        // SAFETY: it is one.
        Some(before) if is_function(before) => unsafe { call(before, signal, info, context) },
        // What ends a process by default does so when the handler has returned.
        Some(before) if process.is_none() && before.sa_sigaction == libc::SIG_DFL => {
            disposition(signal, Some(before));
            raise(signal);
        }
        _ => {}
    }
    if let Some(process) = process {
        process.tell(signal);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Sends a signal to the calling thread, which has dealt with it when this returns; to the process where this thread
/// blocks it.
pub(super) fn raise_here(signal: c_int) {
    let mut blocked = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: only reads the mask of the calling thread; all zeroes is a set that is empty.
    let is_blocked = unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, null(), blocked.as_mut_ptr());
        libc::sigismember(blocked.as_ptr(), signal) == 1
    };
    if is_blocked {
        raise(signal);
    } else {
        // SAFETY: calls a function of the system with a number.
        unsafe { libc::raise(signal) };
    }
}

/// Sends a signal to this process.
pub(super) fn raise(signal: c_int) {
    // SAFETY: calls a function of the system with two numbers.
    unsafe { libc::kill(libc::getpid(), signal) };
}
