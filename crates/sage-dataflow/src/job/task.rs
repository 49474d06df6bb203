//! A task: one parallel instance of a chain, and the loop that runs it.
//!
//! A chain is a source or an inbox followed by operators and a sink or routers, each a [`Push`] that owns the next.
//! The whole chain is one concrete type, erased once, as a `Box<dyn Task>`.
//!
//! Invariants:
//!  1. User code runs under [`guard`]: a panic is a failure with an operator and a record, like an error.
//!  2. Every operator and sink that was opened, or whose opening failed, is closed exactly once, after the last record,
//!     whatever happened; one that panics in `close` does not keep the next from closing.
//!  3. `finish` runs only at the end of input: never after a failure or a cancel. It reaches the sink last.
//!
//! Knows nothing of threads, services and the dispatcher.

use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::control::{Control, JobControl};
use super::reason::StopReason;
use crate::BoxError;
use crate::clock::Clock;
use crate::exchange::lane::{BlockedBy, Mark, Wait};
use crate::graph::NodeId;
use crate::guarded::{What, guard, take_dropped};
use crate::operator::policy::Passed;
use crate::sync::lock;
use crate::time::Timestamp;

/// Why a record was not taken further.
///
/// Operators pass it on with `?`; the engine acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// Nothing downstream wants another record. Not a failure: the chain finishes as at the end of its input.
    Satisfied,
    /// The job is being cancelled.
    Cancelled,
    /// An operator of this chain failed; the failure is recorded.
    Failed,
    /// The record was taken; the end of the chain wants the loop left, to wait for room or wake a reader. Seen by the
    /// engine alone.
    #[doc(hidden)]
    Attend,
}

/// What ends a call into an operator early: the engine's [`Stop`], or an error of the operator's own.
///
/// `?` turns a [`Stop`] and any `std::error::Error` into it.
#[derive(Debug)]
pub enum Fault {
    /// Passed on from [`Emit::emit`](crate::Emit::emit).
    Stop(Stop),
    /// The operator's own error.
    Error(BoxError),
}

impl From<Stop> for Fault {
    #[inline]
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Fault {
    #[cold]
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// An error of an operator or sink that works on several records at a time, with the record that it is about: the
/// engine knows which one it handed over last, and no more.
///
/// A failure is then reported at that record, and the error inside is its cause.
#[derive(Debug, thiserror::Error)]
#[error("record {record}")]
pub struct AtRecord {
    record: u64,
    #[source]
    error: BoxError,
}

impl AtRecord {
    /// The error, at this one of the records that the operator or sink has taken, from 1.
    pub fn new(record: u64, error: impl Into<BoxError>) -> Self {
        Self { record, error: error.into() }
    }
}

/// An error of a source or sink that opens something later than in `open`: a connection, or the next of several files.
///
/// The failure is then reported as one of opening, not as one at a record, and the error inside is its cause.
#[derive(Debug, thiserror::Error)]
#[error("while opening")]
pub struct WhileOpening {
    #[source]
    error: BoxError,
}

impl WhileOpening {
    /// The error, of something that was to be opened.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { error: error.into() }
    }

    pub(crate) fn into_inner(self) -> BoxError {
        self.error
    }
}

/// An error that fails the job whatever the error policy, dead letters and retries say, as a panic does.
///
/// The error inside is the failure's cause.
///
/// ```
/// use sage::{BoxError, Environment, ErrorPolicy, Fatal};
///
/// let env = Environment::local("numbers");
/// env.from_iter(["1", "two", "quit", "3"])
///     .try_map(|text| match text {
///         "quit" => Err(Fatal::new("told to quit").into()),
///         text => text.parse::<i32>().map_err(BoxError::from),
///     })
///     .on_error(ErrorPolicy::skip())
///     .sink(|_| {});
/// let error = env.run().unwrap_err();
/// assert_eq!(error.report().unwrap().first_cause.as_ref().unwrap().message, "told to quit");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("no policy lets this pass")]
pub struct Fatal {
    #[source]
    error: BoxError,
}

impl Fatal {
    /// The error, which nothing is to let pass.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { error: error.into() }
    }

    /// Whether an error is one, perhaps with the record it is about.
    pub(crate) fn is(error: &BoxError) -> bool {
        let error = error.downcast_ref::<AtRecord>().map_or(error, |at| &at.error);
        error.is::<Self>()
    }
}

/// A failure in a chain.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The operator that was running; `None` where the engine's own code was.
    pub(crate) operator: Option<NodeId>,
    /// Which record of the chain's input was being processed, from 1; 0 before the first.
    pub(crate) record: u64,
    pub(crate) during: During,
    pub(crate) what: What,
}

impl Failure {
    /// What was left behind, where that is all it is.
    pub(crate) fn left_behind(&self) -> Option<&LeftBehind> {
        match &self.what {
            What::Error { error, .. } if self.during == During::Close => error.downcast_ref(),
            _ => None,
        }
    }
}

/// The part of a chain's life a failure fell into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum During {
    Open,
    Record,
    Finish,
    Close,
    /// The chain was closed, and what it consisted of is dropped.
    Drop,
}

const NO_OPERATOR: u32 = u32::MAX;

/// How far a task has got, readable from outside at any moment.
#[derive(Debug, Default)]
pub(crate) struct Cursor(AtomicU64);

impl Cursor {
    /// How many records it had taken when its current batch began.
    pub(crate) fn records(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where a task's time went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TaskTimes {
    pub(crate) total: Duration,
    /// Waiting for room in a lane.
    pub(crate) blocked: Blocked,
    /// Waiting for records or completions, or paused.
    pub(crate) idle: Duration,
}

/// How long a task waited for room, by what bound it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Blocked([Duration; 3]);

impl Blocked {
    pub(crate) fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(time, other)| *time += other);
    }

    pub(crate) fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// What bound it longest, if it waited at all.
    pub(crate) fn mostly(&self) -> Option<BlockedBy> {
        let all = [BlockedBy::Batches, BlockedBy::Pace, BlockedBy::Bytes];
        let longest = all.into_iter().max_by_key(|bound| self.0[*bound as usize])?;
        (!self.total().is_zero()).then_some(longest)
    }
}

/// Where a chain is: what is handed along it with each record.
///
/// A small value in its loop's own stack frame, so that the compiler can keep it in registers, and out of a
/// loop that cannot panic altogether. It goes back to the [`TaskContext`] when the loop is left, also by a panic.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    operator: u32,
    record: u64,
}

impl Position {
    /// Marks `operator` as the one that runs user code from here on.
    #[inline(always)]
    pub(crate) fn enter(&mut self, operator: NodeId) {
        self.operator = operator.0;
    }

    /// Whether `operator` is the one that runs, or that has failed.
    #[inline(always)]
    pub(crate) fn is_at(&self, operator: NodeId) -> bool {
        self.operator == operator.0
    }

    /// Which record of the chain's input is being processed, from 1; 0 before the first. Exact once a run of records is
    /// left; within one, how many there were before it.
    #[inline(always)]
    pub(crate) fn record(&self) -> u64 {
        self.record
    }

    /// Counts further records of the chain's input.
    #[inline(always)]
    pub(crate) fn count(&mut self, records: u64) {
        self.record += records;
    }

    /// Marks `operator` as running for a record that was taken earlier.
    #[inline(always)]
    pub(crate) fn resume(&mut self, operator: NodeId, record: u64) {
        *self = Self { operator: operator.0, record };
    }
}

/// What a task knows of itself.
#[derive(Debug)]
pub struct TaskContext {
    at: Position,
    cursor: Arc<Cursor>,
    control: Arc<JobControl>,
    during: During,
    /// What failed, the first cause first.
    failures: Vec<Failure>,
    times: TaskTimes,
    close: Option<CloseContext>,
}

impl TaskContext {
    pub(crate) fn new(control: Arc<JobControl>, cursor: Arc<Cursor>) -> Self {
        Self {
            at: Position { operator: NO_OPERATOR, record: 0 },
            cursor,
            control,
            during: During::Open,
            failures: Vec::new(),
            times: TaskTimes::default(),
            close: None,
        }
    }

    /// Runs a part of the chain, with its position and `chain` on the stack.
    #[inline(always)]
    pub(crate) fn run<C, R>(
        &mut self,
        chain: &mut C,
        part: impl FnOnce(&mut C, &mut Position) -> Result<R, Fault>,
    ) -> Result<R, Stop> {
        let result = {
            let mut kept = Kept { at: self.at, to: &mut self.at };
            on_stack(chain, |chain| part(chain, &mut kept.at))
        };
        result.map_err(|fault| self.fault(fault))
    }

    /// Runs a part of the chain where it lies: for what is done once a batch, and is little.
    pub(crate) fn run_in_place(&mut self, part: impl FnOnce(&mut Position) -> Result<(), Fault>) -> Result<(), Stop> {
        part(&mut self.at).map_err(|fault| self.fault(fault))
    }

    pub(crate) fn add_blocked(&mut self, blocked: Blocked) {
        self.times.blocked.add(blocked);
    }

    pub(crate) fn records(&self) -> u64 {
        self.at.record
    }

    pub(crate) fn control(&self) -> &JobControl {
        &self.control
    }

    #[cold]
    pub(crate) fn fault(&mut self, fault: Fault) -> Stop {
        match fault {
            Fault::Stop(stop) => stop,
            Fault::Error(error) => {
                let (error, record, during) = match error.downcast::<AtRecord>() {
                    Ok(at) => (at.error, at.record, During::Record),
                    Err(error) => match error.downcast::<WhileOpening>() {
                        Ok(opening) => (opening.error, self.at.record, During::Open),
                        Err(error) => (error, self.at.record, self.during),
                    },
                };
                let error = error.downcast::<Fatal>().map_or_else(|error| error, |fatal| fatal.error);
                self.push(What::error(error), record, during);
                Stop::Failed
            }
        }
    }

    pub(crate) fn failed(&mut self, what: What) {
        self.push(what, self.at.record, self.during);
    }

    fn push(&mut self, what: What, record: u64, during: During) {
        let operator = self.at.operator;
        let operator = (operator != NO_OPERATOR).then_some(NodeId(operator));
        self.failures.push(Failure { operator, record, during, what });
    }

    /// A `Drop` of the operator at `node`, or of a record that nobody took, has panicked.
    fn dropped(&mut self, operator: Option<NodeId>, what: What) {
        let what = What::Panic(format!("a `Drop` panicked: {what}"));
        self.failures.push(Failure { operator, record: 0, during: During::Drop, what });
    }

    /// Runs one hook of the closing chain, attributing what goes wrong to `operator`.
    pub(crate) fn closing(&mut self, operator: NodeId, hook: impl FnOnce(&CloseContext) -> Result<(), BoxError>) {
        let Some(cx) = self.close.clone() else {
            debug_assert!(false, "`close` runs only while a chain closes");
            return;
        };
        self.at.enter(operator);
        match guard(|| hook(&cx)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(What::error(error)),
            Err(panic) => self.failed(panic),
        }
    }

    /// Says which operator runs user code from here on, outside of [`run`](Self::run), and for which record.
    pub(crate) fn resume(&mut self, operator: NodeId, record: u64) {
        self.at.resume(operator, record);
    }

    fn idle<R>(&mut self, wait: impl FnOnce(&mut Self) -> R) -> R {
        let start = Instant::now();
        let result = wait(self);
        self.times.idle += start.elapsed();
        result
    }
}

/// Writes the position back when its loop is left.
struct Kept<'a> {
    at: Position,
    to: &'a mut Position,
}

impl Drop for Kept<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.to = self.at;
    }
}

/// Runs `act` on a value moved to the stack, and moves it back, also after a panic. State in a stack frame that
/// nobody else can see may live in registers; in the heap it may not.
#[inline(always)]
fn on_stack<T, R>(slot: &mut T, act: impl FnOnce(&mut T) -> R) -> R {
    struct Back<'a, T> {
        value: ManuallyDrop<T>,
        slot: &'a mut T,
    }
    impl<T> Drop for Back<'_, T> {
        #[inline(always)]
        fn drop(&mut self) {
            // SAFETY: the slot's value was moved out below, and `value` is not used after this.
            unsafe { std::ptr::write(self.slot, ManuallyDrop::take(&mut self.value)) };
        }
    }
    // SAFETY: `Back` writes the value back before anyone can see the slot again.
    let value = ManuallyDrop::new(unsafe { std::ptr::read(slot) });
    let mut back = Back { value, slot };
    act(&mut back.value)
}

thread_local! {
    static EXCUSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Says that the calling thread has waited so long for others, for a lock that one of them had: taking fewer records at
/// a time would not spare it that, so the time is no part of its pace.
#[doc(hidden)]
#[inline]
pub fn excuse(time: Duration) {
    EXCUSED.set(EXCUSED.get() + time);
}

/// How long the calling thread was [excused](excuse) so far.
#[doc(hidden)]
#[inline]
pub fn excused() -> Duration {
    EXCUSED.get()
}

/// Measures how long a task works.
pub(crate) struct Work {
    began: Instant,
    excused: Duration,
}

impl Work {
    #[inline(always)]
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), excused: excused() }
    }

    /// Without what it was excused for.
    pub(crate) fn time(&self) -> Duration {
        self.began.elapsed().saturating_sub(excused() - self.excused)
    }
}

/// How the end of a chain waits for room in its lanes.
#[derive(Debug)]
pub(crate) struct Waiting {
    control: Arc<JobControl>,
    blocked: Blocked,
}

impl Waiting {
    pub(crate) fn new(control: Arc<JobControl>) -> Self {
        Self { control, blocked: Blocked::default() }
    }

    pub(crate) fn take_blocked(&mut self) -> Blocked {
        std::mem::take(&mut self.blocked)
    }
}

impl Wait for Waiting {
    fn interrupted(&self) -> bool {
        self.control.load() == Control::Cancel
    }

    fn park_blocked(&mut self) {
        std::thread::park();
    }

    fn was_blocked(&mut self, bound: BlockedBy, time: Duration) {
        self.blocked.0[bound as usize] += time;
    }
}

/// What an operator or sink is told when it is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenContext {
    /// Which replica this is, from 0.
    pub replica: usize,
    /// How many replicas there are.
    pub parallelism: usize,
    /// The name of the operator or sink.
    pub name: String,
    pub(crate) control: Arc<JobControl>,
    pub(crate) passed: Arc<Passed>,
}

impl OpenContext {
    /// The clock of the job's processing time.
    pub fn clock(&self) -> &Clock {
        self.control.clock()
    }

    /// Tells whether the job is being cancelled, for as long as the operator or sink lives.
    pub fn cancelling(&self) -> Cancelling {
        Cancelling(self.control.clone())
    }
}

/// Tells an operator or sink that works for long in one call whether its job is being cancelled: it then returns soon,
/// and what it has not done is dropped.
#[derive(Debug, Clone)]
pub struct Cancelling(Arc<JobControl>);

impl Cancelling {
    /// Whether it is, from now on.
    pub fn has_begun(&self) -> bool {
        self.0.load() == Control::Cancel
    }
}

/// What an operator or sink is told when it is closed.
#[derive(Debug, Clone)]
pub struct CloseContext {
    reason: StopReason,
    control: Arc<JobControl>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl CloseContext {
    fn new(reason: StopReason, control: Arc<JobControl>) -> Self {
        Self { reason, control, notes: Arc::default() }
    }

    /// Has the report tell the caller something, as one of its [`notes`](crate::JobReport::notes): for example where to
    /// find what a job that was stopped has written.
    pub fn note(&self, text: impl Into<String>) {
        lock(&self.notes).push(text.into());
    }

    /// Why the task ends.
    pub fn reason(&self) -> &StopReason {
        &self.reason
    }

    /// When the task will be given up as abandoned, as of now: a cancel sets another. `None` while nothing limits the
    /// run.
    pub fn deadline(&self) -> Option<Instant> {
        self.control.deadline()
    }

    /// Waits until `limit`, or until the thread is unparked, or a drain or a cancel sets another deadline. May return
    /// early; what it waits for is to be looked at again.
    pub fn wait(&self, limit: Instant) {
        std::thread::park_timeout(limit.saturating_duration_since(Instant::now()));
    }
}

/// What an operator, source or sink gives from `close` when something of it has not ended in time, such as a thread of
/// its own.
///
/// The rest of the job goes on. The job is then not clean, and its report tells this among what is left; it is no
/// failure otherwise.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LeftBehind(pub String);

/// What a sink is told when it is to make what it wrote final.
#[derive(Debug)]
pub struct FinishContext {
    reason: StopReason,
    control: Arc<JobControl>,
}

impl FinishContext {
    /// The context, if the task ends well as far as is known now; why it does not otherwise.
    pub(crate) fn new(control: &Arc<JobControl>) -> Result<Self, StopReason> {
        match control.reason() {
            reason @ (StopReason::EndOfInput | StopReason::Drain) => Ok(Self { reason, control: control.clone() }),
            reason => Err(reason),
        }
    }

    /// Why the task ends: [`StopReason::EndOfInput`] or [`StopReason::Drain`].
    pub fn reason(&self) -> &StopReason {
        &self.reason
    }

    /// When the task will be given up as abandoned, as of now: a cancel sets another. `None` while nothing limits the
    /// run.
    pub fn deadline(&self) -> Option<Instant> {
        self.control.deadline()
    }

    /// Whether the job is being cancelled by now. A hook that waits looks at this now and then, and ends with an error.
    pub fn is_cancelled(&self) -> bool {
        self.control.load() == Control::Cancel
    }
}

/// The rest of a chain, seen from the operator before it.
pub trait Push<T>: Send {
    /// Opens every operator from here on.
    fn open(&mut self, at: &mut Position) -> Result<(), Fault>;
    /// Takes one record.
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault>;
    /// Does what a push that ended in [`Stop::Attend`] asked for. To be called before the next push.
    fn attend(&mut self, at: &mut Position) -> Result<(), Fault>;
    /// Whether anyone still wants a record: false once every reader of the chain's lanes has ended; with `outside`,
    /// every reader that is not in a loop with this task.
    fn wanted(&self, outside: bool) -> bool;
    /// Makes the counters visible; called once a batch.
    fn publish(&mut self);
    /// Writes out what is buffered: the input has run dry for now.
    fn flush(&mut self, at: &mut Position) -> Result<(), Fault>;
    /// Takes the end of input.
    fn finish(&mut self, at: &mut Position) -> Result<(), Fault>;
    /// Closes every operator from here on; what fails is recorded.
    fn close(&mut self, cx: &mut TaskContext);
    /// Tells the first operator of a chain that an input of its inbox has ended: every record of it was pushed. Inputs
    /// are numbered from 0, and each is told once, the last one before [`finish`](Self::finish).
    fn input_ended(&mut self, input: usize, at: &mut Position) -> Result<(), Fault> {
        let (_, _) = (input, at);
        Ok(())
    }
    /// Takes a watermark, which holds behind the last record. Leaves nothing to attend to.
    fn watermark(&mut self, mark: Mark, at: &mut Position) -> Result<(), Fault>;
    /// Takes a probe of a loop: every record before it was pushed. Leaves nothing to attend to.
    fn probe(&mut self, round: u64, at: &mut Position) -> Result<(), Fault>;
    /// Is called between two batches, and when there was nothing to make one of: the time to send watermarks.
    fn between(&mut self, at: &mut Position) -> Result<(), Fault> {
        let _ = at;
        Ok(())
    }
    /// When, by the job's clock, [`Push::between`] is to be called again though no record has come; `None` for when one
    /// has.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }
}

/// What a call of [`Task::step`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There may be more to do at once.
    Again,
    /// Nothing to do until [`Task::wait`] returns.
    Idle,
    /// The input has ended.
    End,
}

/// A chain, erased.
pub trait Task: Send {
    /// Opens the source and every operator.
    fn open(&mut self, cx: &mut TaskContext) -> Result<(), Stop>;
    /// Processes one batch, or finds that there is none.
    fn step(&mut self, cx: &mut TaskContext) -> Result<Step, Stop>;
    /// Waits until a step may find something.
    fn wait(&mut self, cx: &mut TaskContext);
    /// Makes the counters visible.
    fn publish(&mut self, cx: &TaskContext);
    /// Writes out what is buffered.
    fn flush(&mut self, cx: &mut TaskContext) -> Result<(), Stop>;
    /// Takes the end of input through the chain.
    fn finish(&mut self, cx: &mut TaskContext) -> Result<(), Stop>;
    /// Closes the source and every operator.
    fn close(&mut self, cx: &mut TaskContext);
    /// Whether the chain begins with a source.
    fn is_source(&self) -> bool;
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    Cancelled,
    Failed,
}

/// A task's last word.
#[derive(Debug)]
pub(crate) struct TaskOutcome {
    pub(crate) ending: Ending,
    pub(crate) failures: Vec<Failure>,
    /// What the caller is to be told besides.
    pub(crate) notes: Vec<String>,
    pub(crate) times: TaskTimes,
}

impl TaskOutcome {
    /// The outcome of a task that was built and not started.
    pub(crate) fn never_ran() -> Self {
        Self { ending: Ending::Cancelled, failures: Vec::new(), notes: Vec::new(), times: TaskTimes::default() }
    }
}

/// Runs a task one piece at a time, so that a thread can run one and the inline backend several.
pub(crate) struct Runner {
    task: Option<Box<dyn Task>>,
    cx: TaskContext,
    started: Instant,
    ending: Option<Ending>,
    opened: bool,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("ending", &self.ending).finish_non_exhaustive()
    }
}

impl Runner {
    pub(crate) fn new(task: Box<dyn Task>, control: Arc<JobControl>, cursor: Arc<Cursor>) -> Self {
        let cx = TaskContext::new(control, cursor);
        Self { task: Some(task), cx, started: Instant::now(), ending: None, opened: false }
    }

    /// Runs to the end on the calling thread.
    pub(crate) fn run(mut self) -> TaskOutcome {
        while let Some(step) = self.turn() {
            if step == Step::Idle {
                self.wait();
            }
        }
        self.end()
    }

    /// One piece of work; `None` once the task has nothing more to do but [`Runner::end`].
    pub(crate) fn turn(&mut self) -> Option<Step> {
        if self.ending.is_some() {
            return None;
        }
        let stepped = if self.opened {
            self.cx.during = During::Record;
            self.cx.cursor.0.store(self.cx.at.record, Ordering::Relaxed);
            self.guarded(|task, cx| task.step(cx))
        } else {
            self.opened = true;
            self.guarded(|task, cx| task.open(cx)).map(|()| Step::Again)
        };
        let stepped = match stepped {
            Ok(_) | Err(Stop::Satisfied) if self.cx.control.load() == Control::Cancel => Err(Stop::Cancelled),
            Ok(Step::Idle) => self.guarded(|task, cx| task.flush(cx)).map(|()| Step::Idle),
            other => other,
        };
        if let Some(task) = &mut self.task {
            task.publish(&self.cx);
        }
        self.ending = match stepped {
            Ok(Step::End) | Err(Stop::Satisfied) => Some(self.finish()),
            Ok(step) => return Some(step),
            // What is left of a failing chain: it was attended to, or has failed since.
            Err(Stop::Cancelled | Stop::Attend) => Some(Ending::Cancelled),
            Err(Stop::Failed) => Some(Ending::Failed),
        };
        None
    }

    pub(crate) fn is_source(&self) -> bool {
        self.task.as_ref().is_some_and(|task| task.is_source())
    }

    fn wait(&mut self) {
        if let Some(task) = &mut self.task {
            self.cx.idle(|cx| task.wait(cx));
        }
    }

    fn finish(&mut self) -> Ending {
        self.cx.during = During::Finish;
        let finished = self.guarded(|task, cx| task.finish(cx));
        if let Some(task) = &mut self.task {
            task.publish(&self.cx);
        }
        match finished {
            Ok(()) | Err(Stop::Satisfied) => Ending::Finished,
            Err(Stop::Cancelled | Stop::Attend) => Ending::Cancelled,
            Err(Stop::Failed) => Ending::Failed,
        }
    }

    /// Closes the chain, releases it and reports.
    pub(crate) fn end(mut self) -> TaskOutcome {
        let mut ending = self.ending.unwrap_or(Ending::Cancelled);
        self.cx.during = During::Close;
        if let Some(mut task) = self.task.take() {
            let reason = match ending {
                Ending::Finished => self.cx.control.reason(),
                Ending::Cancelled if self.cx.control.load() == Control::Cancel => self.cx.control.reason(),
                // It has noticed that a task beside it failed before the job was cancelled for it.
                Ending::Cancelled | Ending::Failed => StopReason::Failure,
            };
            self.cx.close = Some(CloseContext::new(reason, self.cx.control.clone()));
            if self.opened {
                // Each hook is guarded on its own; this guards what is between them.
                if let Err(panic) = guard(|| task.close(&mut self.cx)) {
                    self.cx.failed(panic);
                }
            }
            task.publish(&self.cx);
            self.cx.during = During::Drop;
            if let Err(panic) = guard(move || drop(task)) {
                self.cx.dropped(None, panic);
            }
            take_dropped().into_iter().for_each(|(node, panic)| self.cx.dropped(node, panic));
        }
        if ending == Ending::Finished && self.cx.failures.iter().any(|failure| failure.left_behind().is_none()) {
            ending = Ending::Failed;
        }
        self.cx.times.total = self.started.elapsed();
        let notes = self.cx.close.take().map_or_else(Vec::new, |close| std::mem::take(&mut *lock(&close.notes)));
        TaskOutcome { ending, failures: std::mem::take(&mut self.cx.failures), notes, times: self.cx.times }
    }

    fn guarded<R>(&mut self, code: impl FnOnce(&mut dyn Task, &mut TaskContext) -> Result<R, Stop>) -> Result<R, Stop> {
        let Some(task) = &mut self.task else { return Err(Stop::Cancelled) };
        let cx = &mut self.cx;
        guard(|| code(task.as_mut(), cx)).unwrap_or_else(|panic| {
            self.cx.failed(panic);
            Err(Stop::Failed)
        })
    }
}
