//! `process`: a state for each key, and timers that call a function when event time or the clock reaches a moment.
//!
//! A key lies in one table with its state and its timers. A record finds it once: the place is held while the function
//! runs, also to forget the key.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::marker::PhantomData;

use foldhash::fast::RandomState;
use hashbrown::hash_table::OccupiedEntry;

use super::function::ProcessFunction;
use super::map::{Output, Through};
use super::timers::{Due, Kind, Queues, Timer, Timers};
use crate::BoxError;
use crate::chain::{CloseContext, Emit, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::clock::{Clock, Watch};
use crate::key::{KeySelector, Noted};
use crate::table::Entries;
use crate::time::Timestamp;

/// The context of a function of `process`: its key, the time, its timers, and its output.
pub struct KeyContext<'a, 'o, K, O> {
    key: &'a K,
    timers: &'a mut Timers,
    shared: &'a mut Shared,
    hash: u64,
    /// The timer that has fired, if one has.
    fired: Option<Timer>,
    forgotten: bool,
    output: &'a mut Output<'o, O>,
}

impl<K, O> KeyContext<'_, '_, K, O> {
    /// The key of the record or the timer.
    #[inline(always)]
    pub fn key(&self) -> &K {
        self.key
    }

    /// The time now, by the job's clock.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The watermark: no earlier record will come, but for late ones.
    #[inline(always)]
    pub fn watermark(&self) -> Timestamp {
        Timestamp::from_millis(self.shared.watermark)
    }

    /// Sends a record on.
    #[inline(always)]
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
    #[inline(always)]
    pub fn set(&mut self, timer: Timer) {
        let over = match timer {
            Timer::Event(_) => self.shared.watermark == i64::MAX,
            Timer::Clock(_) => self.shared.ending,
        };
        if !over {
            self.shared.queues.set(self.timers, timer, self.hash, self.fired);
        }
    }

    /// Cancels a timer of this key. Returns whether it was set.
    #[inline(always)]
    pub fn cancel(&mut self, timer: Timer) -> bool {
        self.timers.cancel(timer)
    }

    /// Forgets this key's state and timers when the function returns.
    #[inline(always)]
    pub fn forget(&mut self) {
        self.forgotten = true;
    }
}

impl<K: std::fmt::Debug, O> std::fmt::Debug for KeyContext<'_, '_, K, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, .. } = self;
        f.debug_struct("KeyContext").field("key", key).field("watermark", &self.watermark()).finish_non_exhaustive()
    }
}

/// What the functions of all keys share.
struct Shared {
    queues: Queues,
    clock: Clock,
    watch: Watch,
    watermark: i64,
    ending: bool,
}

/// A key, its state and its timers.
struct Kept<K, A> {
    key: K,
    state: A,
    timers: Timers,
}

/// `process`: a function of each record, one of each timer, and the state of their key.
pub(crate) struct Process<S: KeySelector<I>, F, I, A, O> {
    key: S,
    initial: A,
    function: F,
    hasher: RandomState,
    kept: Entries<Kept<S::Key, A>>,
    noted: Noted<S::Noted>,
    shared: Shared,
    types: PhantomData<fn(I) -> O>,
}

impl<S: KeySelector<I>, F, I, A, O> Process<S, F, I, A, O> {
    pub(crate) fn new(key: S, initial: A, function: F) -> Self {
        let (clock, watermark) = (Clock::system(), i64::MIN);
        let shared = Shared { queues: Queues::new(), watch: Watch::new(&clock), clock, watermark, ending: false };
        let (hasher, kept, noted) = (RandomState::default(), Entries::default(), Noted::new());
        Self { key, initial, function, hasher, kept, noted, shared, types: PhantomData }
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
    /// Calls `function` for a key, and does what it asked for. `fired` is the timer that is the reason.
    #[inline(always)]
    fn call<E: Emit<O>>(
        mut entry: OccupiedEntry<'_, Kept<S::Key, A>>,
        hash: u64,
        shared: &mut Shared,
        fired: Option<Timer>,
        out: &mut E,
        act: impl FnOnce(&mut A, &mut KeyContext<'_, '_, S::Key, O>) -> Result<(), BoxError>,
    ) -> Result<(), Fault> {
        let Kept { key, state, timers } = entry.get_mut();
        let mut way = Through(out);
        let mut output = Output::over(&mut way);
        let mut cx = KeyContext { key, timers, shared, hash, fired, forgotten: false, output: &mut output };
        let done = act(state, &mut cx);
        if cx.forgotten {
            entry.remove();
        }
        output.end().and(done.map_err(Fault::Error))
    }

    /// Calls the timers that are due by `until`, in the order of their times; also those set meanwhile, if they are
    /// later than the one that set them. The others wait for the next time, so that this ends.
    fn fire<E: Emit<O>>(&mut self, kind: Kind, until: i64, out: &mut E) -> Result<(), Fault> {
        let fired = self.fire_due(kind, until, out);
        if !self.shared.queues.held.is_empty() {
            self.release();
        }
        fired
    }

    /// Has the timers that were held wait for the next time.
    #[cold]
    fn release(&mut self) {
        let Self { kept, hasher, shared, .. } = self;
        for (timer, hash) in std::mem::take(&mut shared.queues.held) {
            let is_held = |kept: &Kept<S::Key, A>| {
                kept.timers.is_held(timer) && hasher.hash_one(Borrow::<S::Lookup>::borrow(&kept.key)) == hash
            };
            if let Some(mut entry) = kept.find(hash, is_held) {
                entry.get_mut().timers.release(timer);
                shared.queues.of(timer.kind()).push(timer.moment().millis(), hash);
            }
        }
    }

    fn fire_due<E: Emit<O>>(&mut self, kind: Kind, until: i64, out: &mut E) -> Result<(), Fault> {
        let Self { kept, hasher, shared, function, .. } = self;
        while let Some((at, hash)) = shared.queues.of(kind).pop(until, |hash| kept.fetch(hash)) {
            // The table also offers keys of other hashes.
            let is_due = |kept: &Kept<S::Key, A>| {
                kept.timers.is_awaited(kind, at) && hasher.hash_one(Borrow::<S::Lookup>::borrow(&kept.key)) == hash
            };
            let Some(mut entry) = kept.find(hash, is_due) else { continue };
            let timer = kind.at(at);
            match entry.get_mut().timers.come(timer) {
                Due::Fires => {
                    Self::call(entry, hash, shared, Some(timer), out, |state, cx| function.on_timer(state, timer, cx))?;
                    // Timers that set further ones may go on for long, and emit nothing.
                    out.look()?;
                }
                Due::Again(later) => shared.queues.of(kind).push(later, hash),
                Due::Over => {}
            }
        }
        Ok(())
    }

    /// Calls the timers of the clock that are due by what `read` says, if any are set.
    #[inline(always)]
    fn tick<E: Emit<O>>(&mut self, read: fn(&mut Watch) -> i64, out: &mut E) -> Result<(), Fault> {
        if self.shared.queues.clock.is_empty() { Ok(()) } else { self.tick_now(read, out) }
    }

    #[inline(never)]
    fn tick_now<E: Emit<O>>(&mut self, read: fn(&mut Watch) -> i64, out: &mut E) -> Result<(), Fault> {
        let now = read(&mut self.shared.watch);
        let is_due = self.shared.queues.clock.earliest().is_some_and(|earliest| earliest <= now);
        if is_due { self.fire(Kind::Clock, now, out) } else { Ok(()) }
    }

    fn advance<E: Emit<O>>(&mut self, watermark: i64, out: &mut E) -> Result<(), Fault> {
        if watermark <= self.shared.watermark {
            return Ok(());
        }
        self.shared.watermark = watermark;
        self.fire(Kind::Event, watermark, out)
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
        self.shared.clock = cx.clock().clone();
        self.shared.watch = Watch::new(cx.clock());
        self.function.open(cx).map_err(Fault::Error)
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.function.close(cx)
    }

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        // What is due comes before what comes.
        self.tick(Watch::glance, out)?;
        let Self { key, initial, function, hasher, kept, noted, shared, .. } = self;
        let (hash, entry) = {
            let (hash, selected) = noted.select(key, &record, |key| kept.begin(hasher.hash_one(key)));
            let hash_of = |kept: &Kept<S::Key, A>| hasher.hash_one(kept.key.borrow());
            let entry = match kept.entry(hash, |kept| S::is(&selected, &kept.key), hash_of) {
                Ok(entry) => entry,
                Err(vacant) => {
                    vacant.insert(Kept { key: S::into_key(selected), state: initial.clone(), timers: Timers::None })
                }
            };
            (hash, entry)
        };
        Self::call(entry, hash, shared, None, out, |state, cx| function.on_record(state, record, cx))
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        self.noted.restart(self.kept.is_large())
    }

    #[inline(always)]
    fn ahead(&mut self, record: &I) {
        let Self { key, hasher, kept, noted, .. } = self;
        noted.note(key, record, |key| kept.begin(hasher.hash_one(key)));
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        match signal {
            Signal::Time => self.tick(Watch::read, out),
            Signal::Watermark(watermark) => self.advance(watermark.millis, out),
            Signal::Finish => {
                self.advance(i64::MAX, out)?;
                self.shared.ending = true;
                self.fire(Kind::Clock, i64::MAX, out)
            }
            _ => Ok(()),
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.shared.queues.clock.earliest().map(Timestamp::from_millis)
    }
}

#[cfg(test)]
mod tests;
