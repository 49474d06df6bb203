//! The meeting point of a task's thread and the threads that call its function: the thread of an event loop, or several
//! threads, each with one record. In a worker process there is no task: records come from its job, and answers go there
//! by way of an [`Outbox`].
//!
//! The task's thread attaches at no time while it hands records over and takes results: neither waits for the
//! interpreter because of the other.
//!
//! Invariants, for threads:
//!  1. While records wait and another call may be under way, a thread waits for the next record or is being started:
//!     whoever takes one and leaves no thread waiting has another one started, unless there are as many as may be.
//!  2. A call that is given up after it has begun keeps its thread until it returns, and counts no more: another takes
//!     its place.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyList;
use tokio::sync::oneshot;

use crate::Record;
use crate::error::Raised;
use crate::remote::{Crossing, News, Outbox};
use crate::spec::Seconds;
use crate::thread::lock;
use crate::value::Value;

/// What a call came to: the records that go on, or why there are none.
pub(crate) type Answer = Result<Vec<Record>, Refused>;

/// Why a record has no result.
pub(crate) enum Refused {
    /// The function raised.
    Raised(Raised),
    /// No further record can be worked on.
    Stuck(String),
}

/// How many calls of a replica that were given up may still have their threads.
const MOST_GIVEN_UP: usize = 256;

/// A record that somebody waits for.
struct Awaited {
    asker: Asker,
    begun: Arc<OnceLock<Instant>>,
}

/// Who waits for an answer.
enum Asker {
    Task(oneshot::Sender<Answer>),
    /// The job of this worker, which is also told when a call begins if its time is limited.
    Job {
        is_timed: bool,
    },
}

#[derive(Default)]
struct Waiting {
    next: u64,
    begin: VecDeque<(u64, Value)>,
    answers: HashMap<u64, Awaited>,
    /// For a loop: what was given up and it has not been told of.
    cancel: Vec<u64>,
    /// For a loop: answers that were not sent on.
    answered: Vec<(u64, Asker, Answer)>,
    threads: Threads,
    /// Why nothing is begun any more.
    stuck: Option<String>,
    is_closed: bool,
    is_ended: bool,
    /// The task's thread, when it waits for the end.
    closer: Option<Thread>,
}

/// The threads of a function that is called on some; those of calls that were given up are not counted.
#[derive(Default)]
struct Threads {
    /// How many calls may be under way.
    most: usize,
    there: usize,
    idle: usize,
    calling: usize,
    given_up: HashSet<u64>,
}

/// The meeting place of one replica.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Bridge {
    waiting: Mutex<Waiting>,
    /// Wakes threads.
    ready: Condvar,
    /// Wakes a loop: readable while something waits.
    pipe: Option<(PipeReader, PipeWriter)>,
    /// A byte is in the pipe while this is set, or about to be: the loop has been told that something waits.
    told: AtomicBool,
    outbox: Outbox,
    /// Whether this process was forked off by a call of the function.
    is_copy: AtomicBool,
}

impl Bridge {
    /// Ends a process that was forked off by a call, when that is over: what waits here is its parent's.
    fn unless_copy(&self, status: i32) {
        if self.is_copy.load(Ordering::Relaxed) {
            // SAFETY: it ends this process, as its parent's hooks are not its own.
            unsafe { libc::_exit(status) };
        }
    }

    /// Gives an answer to whoever waits for it. Nothing is locked.
    fn reply(&self, number: u64, asker: Asker, answer: Answer) {
        match asker {
            // Whoever gave it up in this moment has no use for it.
            Asker::Task(sender) => drop(sender.send(answer)),
            Asker::Job { .. } => self.outbox.post(number, News::Answer(answer)),
        }
    }

    /// The call for a record begins.
    fn begun(&self, waiting: &Waiting, number: u64) {
        let Some(awaited) = waiting.answers.get(&number) else { return };
        let is_first = awaited.begun.set(Instant::now()).is_ok();
        if is_first && matches!(awaited.asker, Asker::Job { is_timed: true }) {
            self.outbox.post(number, News::Begun);
        }
    }

    fn end(&self, waiting: &mut Waiting) {
        waiting.is_ended = true;
        if let Some(closer) = waiting.closer.take() {
            closer.unpark();
        }
        self.outbox.end();
    }

    /// Answers all that is waited for, now and from now on, with why it cannot be.
    fn refuse_all(&self, mut waiting: MutexGuard<'_, Waiting>, why: &str) {
        waiting.stuck.get_or_insert_with(|| why.to_owned());
        let (begin, answers) = (std::mem::take(&mut waiting.begin), std::mem::take(&mut waiting.answers));
        let unbegun: HashSet<u64> = begin.iter().map(|(number, _)| *number).collect();
        let begun: Vec<u64> = answers.keys().copied().filter(|number| !unbegun.contains(number)).collect();
        let threads = &mut waiting.threads;
        if threads.most > 0 {
            threads.there -= begun.len();
            threads.calling -= begun.len();
            threads.given_up.extend(begun);
        } else {
            waiting.cancel.extend(begun);
        }
        drop(waiting);
        drop(begin);
        for (number, awaited) in answers {
            self.reply(number, awaited.asker, Err(Refused::Stuck(why.to_owned())));
        }
    }

    /// Tells the loop, or a thread, that something waits.
    fn tell(&self) {
        match &self.pipe {
            None => self.ready.notify_one(),
            Some((_, writer)) => {
                if !self.told.swap(true, Ordering::AcqRel) {
                    // It cannot be full, and its other end is open as long as this one.
                    let _ = { writer }.write_all(&[0]);
                }
            }
        }
    }

    /// Hands a record over; gives its number, its answer, and when its call begins.
    pub(crate) fn ask(
        &self,
        value: Value,
    ) -> Result<(u64, oneshot::Receiver<Answer>, Arc<OnceLock<Instant>>), Refused> {
        let (sender, answer) = oneshot::channel();
        let begun = Arc::<OnceLock<Instant>>::default();
        let mut waiting = lock(&self.waiting);
        if let Some(stuck) = &waiting.stuck {
            return Err(Refused::Stuck(stuck.clone()));
        }
        waiting.next += 1;
        let number = waiting.next;
        waiting.begin.push_back((number, value));
        waiting.answers.insert(number, Awaited { asker: Asker::Task(sender), begun: begun.clone() });
        drop(waiting);
        self.tell();
        Ok((number, answer, begun))
    }

    /// Nobody waits for a record any more. Says whether it was begun.
    pub(crate) fn give_up(&self, number: u64) -> bool {
        let mut waiting = lock(&self.waiting);
        if waiting.answers.remove(&number).is_none() {
            return false;
        }
        if let Some(place) = waiting.begin.iter().position(|(waits, _)| *waits == number) {
            let unwanted = waiting.begin.remove(place);
            drop(waiting);
            drop(unwanted);
            return false;
        }
        if self.pipe.is_some() {
            waiting.cancel.push(number);
        } else {
            let threads = &mut waiting.threads;
            threads.given_up.insert(number);
            threads.calling -= 1;
            threads.there -= 1;
            if threads.given_up.len() >= MOST_GIVEN_UP && !waiting.is_closed {
                let message = format!(
                    "{MOST_GIVEN_UP} calls that took longer than their timeout have not returned; \
                     no more of them may keep a thread, so give the operation they wait for a timeout of its own"
                );
                self.refuse_all(waiting, &message);
            }
        }
        self.tell();
        true
    }

    /// Whether the loop has not been told by now that this record was given up.
    pub(crate) fn is_untold(&self, number: u64) -> bool {
        lock(&self.waiting).cancel.contains(&number)
    }

    /// Nothing is begun any more, and nothing that was begun is waited for.
    pub(crate) fn is_stuck(&self, why: &str) {
        self.refuse_all(lock(&self.waiting), why);
    }

    /// Waits until all calls have ended, for as long as `wait` has the thread wait; it says when no longer.
    pub(crate) fn await_end(&self, mut wait: impl FnMut() -> bool) -> bool {
        loop {
            let mut waiting = lock(&self.waiting);
            if waiting.is_ended {
                return true;
            }
            waiting.closer = Some(std::thread::current());
            drop(waiting);
            if !wait() {
                return lock(&self.waiting).is_ended;
            }
        }
    }

    fn end_if_over(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let threads = &waiting.threads;
        if waiting.is_closed && threads.calling == 0 && threads.given_up.is_empty() {
            self.end(&mut waiting);
        }
    }

    /// A thread's call has ended.
    fn answer_now(&self, number: u64, answer: Answer) {
        let mut waiting = lock(&self.waiting);
        let threads = &mut waiting.threads;
        if threads.given_up.remove(&number) {
            threads.there += 1;
        } else {
            threads.calling -= 1;
        }
        match waiting.answers.remove(&number).map(|awaited| awaited.asker) {
            Some(Asker::Job { .. }) => {
                // Before the end is told, behind which no answer comes.
                self.outbox.post(number, News::Answer(answer));
                self.end_if_over(waiting);
            }
            asker => {
                self.end_if_over(waiting);
                if let Some(asker) = asker {
                    self.reply(number, asker, answer);
                }
            }
        }
    }

    /// Keeps the answer of a loop until `send`; returns how many are kept.
    fn keep(&self, number: u64, answer: Answer) -> usize {
        let mut waiting = lock(&self.waiting);
        // Nobody waits for the answer of a record that was given up.
        if let Some(awaited) = waiting.answers.remove(&number) {
            waiting.answered.push((number, awaited.asker, answer));
        }
        waiting.answered.len()
    }

    fn answer(&self, number: u64, answer: Answer) -> usize {
        if self.pipe.is_some() {
            return self.keep(number, answer);
        }
        self.answer_now(number, answer);
        0
    }

    /// Waits for the next record, for a thread; `None` when the thread is to end.
    fn next_waiting(&self) -> Option<(u64, Value, bool)> {
        let mut waiting = lock(&self.waiting);
        // One whose call was given up, and returned after all, may be one too many.
        let is_wanted = waiting.threads.there <= waiting.threads.most + 1;
        waiting.threads.idle += 1;
        let taken = loop {
            if waiting.is_closed || !is_wanted {
                break None;
            }
            if waiting.threads.calling < waiting.threads.most
                && let Some(taken) = waiting.begin.pop_front()
            {
                break Some(taken);
            }
            waiting = self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        };
        waiting.threads.idle -= 1;
        let Some((number, value)) = taken else {
            waiting.threads.there -= 1;
            return None;
        };
        waiting.threads.calling += 1;
        self.begun(&waiting, number);
        let threads = &mut waiting.threads;
        let is_last = threads.idle == 0 && threads.there < threads.most + 1;
        threads.there += usize::from(is_last);
        Some((number, value, is_last))
    }
}

#[pymethods]
impl Bridge {
    /// For `threads` calls at a time on threads; with none, for an event loop.
    #[new]
    #[pyo3(signature = (threads=0))]
    fn new(threads: usize) -> PyResult<Self> {
        let pipe = if threads == 0 { Some(pipe()?) } else { None };
        let threads = Threads { most: threads, there: 1, ..Threads::default() };
        let waiting = Mutex::new(Waiting { threads, ..Waiting::default() });
        Ok(Self {
            waiting,
            ready: Condvar::new(),
            told: AtomicBool::new(false),
            pipe,
            outbox: Outbox::default(),
            is_copy: AtomicBool::new(false),
        })
    }

    /// The descriptor that is readable while something waits for a loop.
    fn fileno(&self) -> i32 {
        self.pipe.as_ref().map_or(-1, |(reader, _)| reader.as_raw_fd())
    }

    /// The records that a loop is to begin with, each with a number, and the numbers of those that were given up. Waits
    /// for nothing.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<(Vec<(u64, Bound<'py, PyAny>)>, Vec<u64>)> {
        self.unless_copy(0);
        let Some((reader, _)) = &self.pipe else { return Ok((Vec::new(), Vec::new())) };
        if !self.told.load(Ordering::Acquire) {
            return Ok((Vec::new(), Vec::new()));
        }
        { reader }.read_exact(&mut [0])?;
        self.told.store(false, Ordering::Release);
        let (begin, cancel) = {
            let mut waiting = lock(&self.waiting);
            (std::mem::take(&mut waiting.begin), std::mem::take(&mut waiting.cancel))
        };
        let begin = begin.into_iter().map(|(number, value)| Ok((number, value.into_object(py)?)));
        Ok((begin.collect::<PyResult<_>>()?, cancel))
    }

    /// The call for a record begins on the loop.
    fn begins(&self, number: u64) {
        self.begun(&lock(&self.waiting), number);
    }

    /// The next record that a thread is to work on, with its number, and whether another thread is to be started;
    /// `None` when the thread is to end.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<(u64, Bound<'py, PyAny>, bool)>> {
        self.unless_copy(0);
        let taken = py.detach(|| self.next_waiting());
        taken.map(|(number, value, is_last)| Ok((number, value.into_object(py)?, is_last))).transpose()
    }

    /// A thread that was to be started cannot be.
    fn not_started(&self) {
        lock(&self.waiting).threads.there -= 1;
    }

    /// Answers for a record with what goes on. Returns, as `failed` does, how many answers of a loop are to be sent on.
    fn done(&self, number: u64, results: &Bound<'_, PyList>) -> usize {
        self.unless_copy(0);
        self.answer(number, Ok(results.iter().map(Record::of).collect()))
    }

    /// Answers for a record with an exception.
    fn failed(&self, py: Python<'_>, number: u64, exception: Bound<'_, PyAny>) -> usize {
        self.unless_copy(1);
        self.answer(number, Err(Refused::Raised(Raised::new(py, PyErr::from_value(exception)))))
    }

    /// Sends the answers of a loop on to the task. Several at a time, as it is woken for them. Says whether something
    /// waits to be taken.
    fn send(&self) -> bool {
        let answered = std::mem::take(&mut lock(&self.waiting).answered);
        for (number, asker, answer) in answered {
            self.reply(number, asker, answer);
        }
        self.told.load(Ordering::Acquire)
    }

    /// Threads end when they have ended their calls.
    fn close(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.is_closed = true;
        let unwanted = std::mem::take(&mut waiting.begin);
        self.end_if_over(waiting);
        self.ready.notify_all();
        drop(unwanted);
    }

    /// This process was forked off by a call: it ends when that is over.
    fn forked(&self) {
        self.is_copy.store(true, Ordering::Relaxed);
    }

    /// All that ran on a loop has ended.
    fn ended(&self) {
        self.end(&mut lock(&self.waiting));
    }

    /// Wakes whoever waits by the descriptor, as a record does.
    fn wake(&self) {
        self.tell();
    }

    /// Nothing is begun any more, and nothing that was begun is waited for.
    fn refuse(&self, why: &str) {
        self.is_stuck(why);
    }

    /// In a worker: records of its job, each with the job's number for it.
    fn hand_over(&self, records: Vec<(u64, Bound<'_, PyAny>)>, is_timed: bool) {
        for (number, record) in records {
            let value = Value::of(&record);
            let mut waiting = lock(&self.waiting);
            if let Some(stuck) = &waiting.stuck {
                let answer = Err(Refused::Stuck(stuck.clone()));
                drop(waiting);
                self.outbox.post(number, News::Answer(answer));
                continue;
            }
            waiting.begin.push_back((number, value));
            waiting.answers.insert(number, Awaited { asker: Asker::Job { is_timed }, begun: Arc::default() });
            drop(waiting);
            self.tell();
        }
    }

    /// In a worker: its job does not wait for a record any more. Says whether that was begun.
    fn cancel(&self, number: u64) -> bool {
        self.give_up(number)
    }

    /// Whether a loop has not taken notice that this record was given up.
    fn is_unnoticed(&self, number: u64) -> bool {
        self.is_untold(number)
    }

    /// In a worker: waits for what its job is to be told of, each with the number of the record, a word for what it is,
    /// and the results, the exception or the text. `None` when nothing more comes.
    fn answers<'py>(&self, py: Python<'py>) -> PyResult<Option<Vec<Crossing<'py>>>> {
        self.outbox.take(py)
    }

    /// Waits until all calls have ended, for so many seconds at most. Says whether they have.
    fn wait_ended(&self, py: Python<'_>, seconds: Seconds) -> bool {
        let until = Instant::now().checked_add(seconds.0);
        py.detach(|| {
            self.await_end(|| {
                let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
                std::thread::park_timeout(left);
                !left.is_zero()
            })
        })
    }
}

/// How long before its deadline a close gives up itself, so that it can still tell what is left.
pub(crate) fn in_time(now: Instant, deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(now);
    deadline - (left / 4).min(Duration::from_millis(250))
}
