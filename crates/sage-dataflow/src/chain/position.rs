//! The position of a chain (its operator and record), and the state of its task.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::context::CloseContext;
use super::failure::{During, Failure};
use super::fault::{Fault, Stop};
use crate::BoxError;
use crate::control::{Control, JobControl, StopReason};
use crate::error::{AtRecord, Fatal, WaitCancelled, WhileOpening};
use crate::guarded::{What, guard};
use crate::ids::NodeId;
use crate::metrics::{Activity, Blocked, TaskTimes};

const NO_OPERATOR: u32 = u32::MAX;

/// How far a task has got and what it is doing, readable from outside at any moment.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    records: AtomicU64,
    activity: Arc<Activity>,
}

impl Cursor {
    pub(crate) fn new(activity: Arc<Activity>) -> Self {
        Self { records: AtomicU64::new(0), activity }
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// How many records it had taken when its current batch began.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
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

    /// Runs `look` for a record that comes `ahead` further records later: if it panics, that one is told.
    #[inline(always)]
    pub(crate) fn ahead(&mut self, ahead: u64, look: impl FnOnce(&mut Self)) {
        self.record += ahead;
        look(self);
        self.record -= ahead;
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
            let mut kept = WrittenBack { at: self.at, to: &mut self.at };
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

    /// Says which part of the chain's life begins.
    pub(crate) fn begin(&mut self, during: During) {
        self.during = during;
        if during == During::Record {
            self.cursor.records.store(self.at.record, Ordering::Relaxed);
        }
    }

    /// Begins to close the chain, for `reason`.
    pub(crate) fn begin_close(&mut self, reason: StopReason) {
        self.close = Some(CloseContext::new(reason, self.control.clone()));
    }

    /// Whether anything failed, but for what was left behind.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures.iter().any(|failure| failure.left_behind().is_none())
    }

    /// What failed, what the caller is to be told besides, and where the time went.
    pub(crate) fn end(mut self, total: Duration) -> (Vec<Failure>, Vec<String>, TaskTimes) {
        self.times.total = total;
        let notes = self.close.map_or_else(Vec::new, |close| close.take_notes());
        (self.failures, notes, self.times)
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
                if self.control.load() == Control::Cancel && WaitCancelled::is_behind(&*error) {
                    return Stop::Cancelled;
                }
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
    pub(crate) fn dropped(&mut self, operator: Option<NodeId>, what: What) {
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

    pub(crate) fn idle<R>(&mut self, wait: impl FnOnce(&mut Self) -> R) -> R {
        let start = Instant::now();
        self.cursor.activity.idle(start);
        let result = wait(self);
        let end = Instant::now();
        self.cursor.activity.busy(end);
        self.times.idle += end.duration_since(start);
        self.cursor.activity.was_idle(end.duration_since(start));
        result
    }
}

/// Writes the position back when its loop is left.
struct WrittenBack<'a> {
    at: Position,
    to: &'a mut Position,
}

impl Drop for WrittenBack<'_> {
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
