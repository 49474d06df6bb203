//! The engine's threads, and the exact end of each: joined, and gone from the system's list.
//!
//! A thread can be joined a moment before the system has let go of it: whoever counts threads then still sees it. So
//! the end of a thread is awaited in two steps. The first is an event and may take as long as the thread does, as a
//! user's thread-local values are dropped there. In the second the thread runs no code any more; the system tells
//! nobody of its end, so this one yields to it, which takes microseconds.

use std::mem::MaybeUninit;
use std::os::unix::thread::{JoinHandleExt, RawPthread};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::Builder;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use crate::guarded::guard;

/// A thread of this process, by its number in the system.
///
/// A thread can be joined a moment before the system takes it off its list. Code that counts threads there, or has to
/// leave none, waits for that too. The engine does so for its own threads; a host that adds threads to a job can.
///
/// ```
/// use std::time::Duration;
/// use sage::OsThread;
///
/// let its_number = std::thread::spawn(OsThread::current).join().expect("it does not panic");
/// assert!(its_number.await_end(Duration::from_secs(1)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OsThread(libc::pid_t);

impl OsThread {
    /// How long to wait for the system to remove a thread that has run its last instruction. More than enough; after
    /// that, its number may belong to another thread.
    pub const LINGER: Duration = Duration::from_secs(1);

    /// The calling thread.
    pub fn current() -> Self {
        // SAFETY: it takes nothing and returns a number.
        Self(unsafe { libc::gettid() })
    }

    /// The thread with this number, as `gettid` returns it.
    pub fn of_number(number: i32) -> Self {
        Self(number)
    }

    /// Waits until a thread that has done its last work is gone, for `limit` at most. Returns whether it is gone. It
    /// yields in a loop while it waits, so do not use it for a thread that may go on for long.
    pub fn await_end(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// Waits until the threads of this process that are exiting are gone, one second at most. Every joined thread is
    /// among them. For threads that a foreign library has joined, whose numbers are unknown.
    pub fn await_exiting() {
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
        let numbers = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
        let exiting: Vec<_> = numbers.map(Self).filter(|thread| thread.is_exiting()).collect();
        let deadline = Instant::now() + Self::LINGER;
        for thread in exiting {
            thread.await_end(deadline.saturating_duration_since(Instant::now()));
        }
    }

    fn is_exiting(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/self/task/{}/stat", self.0)).unwrap_or_default();
        // Behind the name, which may have spaces and brackets: the state, five numbers, the flags.
        let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6));
        flags.and_then(|flags| flags.parse::<u32>().ok()).is_some_and(|flags| flags & PF_EXITING != 0)
    }

    /// Whether the system still has it.
    pub(crate) fn is_alive(self) -> bool {
        // SAFETY: signal 0 is sent to nobody; the system says whether there is somebody.
        let found = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, 0) };
        found == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
    }
}

/// The system's flag of a thread that exits, from the kernel's `include/linux/sched.h`. It is set before a joiner
/// wakes.
const PF_EXITING: u32 = 4;

/// A thread that the engine started and awaits. Dropped before that, it is left to itself.
#[derive(Debug)]
pub(crate) struct OwnThread {
    thread: RawPthread,
    id: Arc<AtomicI32>,
    is_joined: bool,
}

impl OwnThread {
    pub(crate) fn spawn(name: &str, code: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Self::spawn_with(name, None, code)
    }

    /// As `spawn`, with a stack of so many bytes.
    pub(crate) fn spawn_with(
        name: &str,
        stack_bytes: Option<usize>,
        code: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let id = Arc::new(AtomicI32::new(0));
        let its_id = id.clone();
        let builder = stack_bytes.into_iter().fold(Builder::new().name(thread_name(name)), Builder::stack_size);
        let handle = builder.spawn(move || {
            its_id.store(OsThread::current().0, Ordering::Release);
            // What is left to panic in it is the engine; its waiters see that nothing came of it.
            drop(guard(code));
        })?;
        Ok(Self { thread: handle.into_pthread_t(), id, is_joined: false })
    }

    pub(crate) fn pthread(&self) -> RawPthread {
        self.thread
    }

    /// Waits for its end, for as long as it takes.
    pub(crate) fn join(mut self) {
        // SAFETY: as in `try_join`.
        self.joined_by(|thread| unsafe { libc::pthread_join(thread, null_mut()) });
    }

    /// Whether it has ended; does not wait for it.
    pub(crate) fn try_join(&mut self) -> bool {
        // SAFETY: the thread is not joined or detached before that is noted.
        self.joined_by(|thread| unsafe { libc::pthread_tryjoin_np(thread, null_mut()) })
    }

    /// Waits for its end, until `deadline` at most; says whether it has ended.
    pub(crate) fn join_by(&mut self, deadline: Instant) -> bool {
        if self.try_join() {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let until = (SystemTime::now() + left).duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut time = MaybeUninit::<libc::timespec>::zeroed();
        // SAFETY: all zeroes are a time; only its two fields are set.
        let time = unsafe {
            let time = time.assume_init_mut();
            time.tv_sec = until.as_secs().try_into().unwrap_or(libc::time_t::MAX);
            time.tv_nsec = until.subsec_nanos().into();
            time
        };
        // SAFETY: as in `try_join`; the time lives as long as the call.
        self.joined_by(|thread| unsafe { libc::pthread_timedjoin_np(thread, null_mut(), time) })
    }

    fn joined_by(&mut self, join: impl FnOnce(RawPthread) -> libc::c_int) -> bool {
        if !self.is_joined && join(self.thread) == 0 {
            self.is_joined = true;
            OsThread(self.id.load(Ordering::Acquire)).await_end(OsThread::LINGER);
        }
        self.is_joined
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        if !self.is_joined {
            // SAFETY: the thread was not joined.
            unsafe { libc::pthread_detach(self.thread) };
        }
    }
}

/// How much of a name a thread is given: Linux keeps 15 bytes of it.
const NAME_CHARS: usize = 64;

/// A name with a NUL byte is refused by the system.
fn thread_name(name: &str) -> String {
    name.chars().take(NAME_CHARS).map(|letter| if letter == '\0' { ' ' } else { letter }).collect()
}

/// Why a probe told nothing: it is still at it, on a thread that is left.
#[derive(Debug)]
pub(crate) struct ProbeHangs;

/// How long a user's probe may take.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks a user's probe where something is stuck, on a thread of its own.
pub(crate) fn ask(probe: impl FnOnce() -> Option<String> + Send + 'static) -> Result<Option<String>, ProbeHangs> {
    let (answer, answered) = mpsc::channel();
    let deadline = Instant::now() + PROBE_TIMEOUT;
    let thread = OwnThread::spawn("sage-probe", move || {
        let told = guard(probe).unwrap_or_else(|what| Some(format!("  (the probe panicked: {what})")));
        // Whoever asked may have given up.
        let _ = answer.send(told);
    });
    let Ok(mut thread) = thread else { return Ok(None) };
    let told = answered.recv_timeout(PROBE_TIMEOUT).map_err(|_| ProbeHangs)?;
    if thread.join_by(deadline) { Ok(told) } else { Err(ProbeHangs) }
}
