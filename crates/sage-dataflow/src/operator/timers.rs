//! `process`: a state for each key, and timers that call a function when event time or the clock reaches a moment.
//!
//! Each key has a slot, with its state and the timers that are set. A heap for each kind of time has an entry for every
//! timer that was set, even if it was cancelled since: only the slot counts. A slot is used again once its key is
//! forgotten. An old entry then finds its timer not set, or finds a timer of the new key that is due too.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::convert::Infallible;
use std::marker::PhantomData;

use foldhash::fast::RandomState;

use super::Output;
use super::function::ProcessFunction;
use crate::BoxError;
use crate::chain::{CloseContext, Emit, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::clock::Clock;
use crate::key::KeySelector;
use crate::time::Timestamp;

/// The moment at which a key's timer function is called, by event time or by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// When the watermark reaches this moment: every earlier record has been seen, but for late ones.
    Event(Timestamp),
    /// When the job's clock reaches this moment.
    Clock(Timestamp),
}

impl Timer {
    /// The moment at which the timer is due.
    pub fn moment(self) -> Timestamp {
        match self {
            Self::Event(at) | Self::Clock(at) => at,
        }
    }

    /// Whether it is of the kind of `other`, and not due after it.
    fn is_not_behind(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other) && self <= other
    }
}

/// The context of a function of `process`: its key, the time, its timers, and its output.
pub struct KeyContext<'a, 'o, K, O> {
    key: &'a K,
    clock: &'a Clock,
    watermark: Timestamp,
    ending: bool,
    timers: &'a mut Timers,
    forgotten: &'a mut bool,
    output: &'a mut Output<'o, O>,
}

impl<K, O> KeyContext<'_, '_, K, O> {
    /// The key of the record or the timer.
    pub fn key(&self) -> &K {
        self.key
    }

    /// The time now, by the job's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The watermark: no earlier record will come, but for late ones.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Sends a record on.
    pub fn push(&mut self, record: O) {
        self.output.push(record);
    }

    /// Whether more records are wanted, see [`Output::wanted`].
    pub fn wanted(&self) -> bool {
        self.output.wanted()
    }

    /// Sets a timer of this key. Setting the same timer twice has no effect. A timer whose time has passed fires at the
    /// next watermark, or the next look at the clock. After the last watermark, [`Timestamp::MAX`], which comes at the
    /// end of input, timers of event time cannot be set; once the input has ended, no timer can. Otherwise timers that
    /// set timers might never end.
    pub fn set(&mut self, timer: Timer) {
        let over = match timer {
            Timer::Event(_) => self.watermark == Timestamp::MAX,
            Timer::Clock(_) => self.ending,
        };
        if !over {
            self.timers.set(timer);
        }
    }

    /// Cancels a timer of this key. Returns whether it was set.
    pub fn cancel(&mut self, timer: Timer) -> bool {
        self.timers.by_key.remove(&timer)
    }

    /// Forgets this key's state and timers when the function returns.
    pub fn forget(&mut self) {
        *self.forgotten = true;
    }
}

impl<K: std::fmt::Debug, O> std::fmt::Debug for KeyContext<'_, '_, K, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, watermark, .. } = self;
        f.debug_struct("KeyContext").field("key", key).field("watermark", watermark).finish_non_exhaustive()
    }
}

/// The timers of a key.
#[derive(Default)]
struct Timers {
    by_key: BTreeSet<Timer>,
    /// Those set since the heaps were told.
    new: Vec<Timer>,
}

impl Timers {
    fn set(&mut self, timer: Timer) {
        if self.by_key.insert(timer) {
            self.new.push(timer);
        }
    }
}

/// A key, its state and its timers. A slot without a key is free.
struct KeyState<K, A> {
    kept: Option<(K, A)>,
    timers: Timers,
}

/// A time to come of some slot, the earliest first.
type Queue = BinaryHeap<Reverse<(i64, usize)>>;

/// `process`: a function of each record, one of each timer, and the state of their key.
pub(crate) struct Process<S: KeySelector<I>, F, I, A, O> {
    key: S,
    initial: A,
    function: F,
    slot_of: HashMap<S::Key, usize, RandomState>,
    slots: Vec<KeyState<S::Key, A>>,
    free: Vec<usize>,
    event: Queue,
    clocked: Queue,
    /// Timers set for a time that has passed, by one that was called.
    waiting: Queue,
    clock: Clock,
    watermark: i64,
    ending: bool,
    types: PhantomData<fn(I) -> O>,
}

impl<S: KeySelector<I>, F, I, A, O> Process<S, F, I, A, O> {
    pub(crate) fn new(key: S, initial: A, function: F) -> Self {
        Self {
            key,
            initial,
            function,
            slot_of: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            event: Queue::new(),
            clocked: Queue::new(),
            waiting: Queue::new(),
            clock: Clock::system(),
            watermark: i64::MIN,
            ending: false,
            types: PhantomData,
        }
    }
}

impl<S: KeySelector<I>, F: Clone, I, A: Clone, O> Clone for Process<S, F, I, A, O> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.initial.clone(), self.function.clone())
    }
}

impl<S, F, I, A, O> Process<S, F, I, A, O>
where
    S: KeySelector<I>,
    S::Key: Clone,
    A: Clone,
    F: ProcessFunction<I, S::Key, A, O>,
{
    /// The slot of a record's key.
    fn slot(&mut self, record: &I) -> usize {
        let key = self.key.select(record);
        if let Some(&slot) = self.slot_of.get(S::lookup(&key)) {
            return slot;
        }
        let key = S::into_key(key);
        let kept = Some((key.clone(), self.initial.clone()));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot].kept = kept;
                slot
            }
            None => {
                self.slots.push(KeyState { kept, timers: Timers::default() });
                self.slots.len() - 1
            }
        };
        self.slot_of.insert(key, slot);
        slot
    }

    /// Calls `function` for the key of a slot, and does what it asked for. `fired` is the timer that is the reason.
    fn call<E: Emit<O>>(
        &mut self,
        slot: usize,
        fired: Option<Timer>,
        out: &mut E,
        act: impl FnOnce(&mut F, &mut A, &mut KeyContext<'_, '_, S::Key, O>) -> Result<(), BoxError>,
    ) -> Result<(), Fault> {
        let Self { slots, function, clock, watermark, ending, .. } = self;
        let KeyState { kept, timers } = &mut slots[slot];
        let Some((key, state)) = kept else { return Ok(()) };
        let (mut forgotten, mut done) = (false, Ok(()));
        let (watermark, ending) = (Timestamp::from_millis(*watermark), *ending);
        let sent = Output::over(out, |output| {
            let mut cx = KeyContext { key, clock, watermark, ending, timers, forgotten: &mut forgotten, output };
            done = act(function, state, &mut cx);
        });
        for timer in timers.new.drain(..) {
            let queue = match timer {
                _ if fired.is_some_and(|fired| timer.is_not_behind(fired)) => &mut self.waiting,
                Timer::Event(_) => &mut self.event,
                Timer::Clock(_) => &mut self.clocked,
            };
            queue.push(Reverse((timer.moment().millis(), slot)));
        }
        if forgotten {
            timers.by_key.clear();
            self.slot_of.remove(std::borrow::Borrow::borrow(key));
            *kept = None;
            self.free.push(slot);
        }
        sent.and(done.map_err(Fault::Error))
    }

    /// Calls the timers that are due by `until`, in the order of their times; also those set meanwhile, if they are
    /// later than the one that set them. The others wait for the next time, so that this ends.
    fn fire<E: Emit<O>>(&mut self, kind: fn(Timestamp) -> Timer, until: i64, out: &mut E) -> Result<(), Fault> {
        let is_event = matches!(kind(Timestamp::MIN), Timer::Event(_));
        loop {
            let queue = if is_event { &mut self.event } else { &mut self.clocked };
            let due = queue.peek().copied().filter(|Reverse((at, _))| *at <= until);
            let Some(Reverse((at, slot))) = due else {
                queue.append(&mut self.waiting);
                return Ok(());
            };
            queue.pop();
            let timer = kind(Timestamp::from_millis(at));
            if self.slots[slot].timers.by_key.remove(&timer) {
                self.call(slot, Some(timer), out, |function, state, cx| function.on_timer(state, timer, cx))?;
                // Timers that set further ones may go on for long, and emit nothing.
                out.look()?;
            }
        }
    }

    /// Calls the timers of the clock that are due.
    fn tick<E: Emit<O>>(&mut self, out: &mut E) -> Result<(), Fault> {
        if self.clocked.is_empty() {
            return Ok(());
        }
        let now = self.clock.now().millis();
        self.fire(Timer::Clock, now, out)
    }

    fn advance<E: Emit<O>>(&mut self, watermark: i64, out: &mut E) -> Result<(), Fault> {
        if watermark <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark;
        self.fire(Timer::Event, watermark, out)
    }
}

impl<S, F, I, A, O> Stage for Process<S, F, I, A, O>
where
    S: KeySelector<I>,
    S::Key: Clone,
    F: ProcessFunction<I, S::Key, A, O>,
    I: Send + 'static,
    A: Clone + Send + 'static,
    O: Send + 'static,
{
    type In = I;
    type Out = O;
    type Side = Infallible;

    const FLAGS: Flags = Flags::ANY;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.clock = cx.clock().clone();
        self.function.open(cx).map_err(Fault::Error)
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.function.close(cx)
    }

    fn process(&mut self, record: I, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        // What is due comes before what comes.
        self.tick(out)?;
        let slot = self.slot(&record);
        self.call(slot, None, out, |function, state, cx| function.on_record(state, record, cx))
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        match signal {
            Signal::Time => self.tick(out),
            Signal::Watermark(watermark) => self.advance(watermark.millis, out),
            Signal::Finish => {
                self.advance(i64::MAX, out)?;
                self.ending = true;
                self.fire(Timer::Clock, i64::MAX, out)
            }
            _ => Ok(()),
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.clocked.peek().map(|Reverse((at, _))| Timestamp::from_millis(*at))
    }
}
