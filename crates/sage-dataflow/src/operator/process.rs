//! `process`: a state for each key, and timers that call a function when event time or the clock reaches a moment.
//!
//! A key lies in one table with its state and its timers. A record finds it once: the place is held while the function
//! runs, also to forget the key.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::marker::PhantomData;

use foldhash::fast::RandomState;
use hashbrown::hash_table::{HashTable, OccupiedEntry};

use super::Output;
use super::function::ProcessFunction;
use super::timers::{Due, Kind, Queues, Timer, Timers};
use crate::BoxError;
use crate::chain::{CloseContext, Emit, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::clock::{Clock, Watch};
use crate::key::KeySelector;
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
    pub fn key(&self) -> &K {
        self.key
    }

    /// The time now, by the job's clock.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The watermark: no earlier record will come, but for late ones.
    pub fn watermark(&self) -> Timestamp {
        Timestamp::from_millis(self.shared.watermark)
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
            Timer::Event(_) => self.shared.watermark == i64::MAX,
            Timer::Clock(_) => self.shared.ending,
        };
        if !over {
            self.shared.queues.set(self.timers, timer, self.hash, self.fired);
        }
    }

    /// Cancels a timer of this key. Returns whether it was set.
    pub fn cancel(&mut self, timer: Timer) -> bool {
        self.timers.cancel(timer)
    }

    /// Forgets this key's state and timers when the function returns.
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
    kept: HashTable<Kept<S::Key, A>>,
    shared: Shared,
    types: PhantomData<fn(I) -> O>,
}

impl<S: KeySelector<I>, F, I, A, O> Process<S, F, I, A, O> {
    pub(crate) fn new(key: S, initial: A, function: F) -> Self {
        let (clock, watermark) = (Clock::system(), i64::MIN);
        let shared = Shared { queues: Queues::new(), watch: Watch::new(&clock), clock, watermark, ending: false };
        let (hasher, kept) = (RandomState::default(), HashTable::new());
        Self { key, initial, function, hasher, kept, shared, types: PhantomData }
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
        let (mut forgotten, mut done) = (false, Ok(()));
        let sent = Output::over(out, |output| {
            let mut cx = KeyContext { key, timers, shared, hash, fired, forgotten: false, output };
            done = act(state, &mut cx);
            forgotten = cx.forgotten;
        });
        if forgotten {
            entry.remove();
        }
        sent.and(done.map_err(Fault::Error))
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
            if let Some(kept) = kept.find_mut(hash, is_held) {
                kept.timers.release(timer);
                shared.queues.of(timer.kind()).push(timer.moment().millis(), hash);
            }
        }
    }

    fn fire_due<E: Emit<O>>(&mut self, kind: Kind, until: i64, out: &mut E) -> Result<(), Fault> {
        let Self { kept, hasher, shared, function, .. } = self;
        while let Some((at, hash)) = shared.queues.of(kind).pop(until) {
            // The table also offers keys of other hashes.
            let is_due = |kept: &Kept<S::Key, A>| {
                kept.timers.is_awaited(kind, at) && hasher.hash_one(Borrow::<S::Lookup>::borrow(&kept.key)) == hash
            };
            let Ok(mut entry) = kept.find_entry(hash, is_due) else { continue };
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
        let Self { key, initial, function, hasher, kept, shared, .. } = self;
        let (hash, entry) = {
            let selected = key.select(&record);
            let lookup = S::lookup(&selected);
            let hash = hasher.hash_one(lookup);
            let found = kept.find_entry(hash, |kept| kept.key.borrow() == lookup);
            let entry = match found {
                Ok(entry) => entry,
                Err(absent) => {
                    let kept = Kept { key: S::into_key(selected), state: initial.clone(), timers: Timers::None };
                    let hash_of = |kept: &Kept<S::Key, A>| hasher.hash_one(kept.key.borrow());
                    absent.into_table().insert_unique(hash, kept, hash_of)
                }
            };
            (hash, entry)
        };
        Self::call(entry, hash, shared, None, out, |state, cx| function.on_record(state, record, cx))
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
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::hash::{Hash, Hasher};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::between::Watermark;
    use crate::key::Computed;
    use crate::operator::OnBoth;

    /// What a function does with the timers of its key.
    #[derive(Debug, Clone, Copy)]
    enum Act {
        Set(Timer),
        Cancel(Timer),
        Forget,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Record(u8, Vec<Act>),
        Watermark(i64),
        /// The clock goes on, and the engine looks at it.
        Clock(u64),
    }

    /// What was called: the timer, if it was one, and how many calls the state of the key has seen.
    type Call = (u8, Option<Timer>, u32);

    /// What timers do, by their moments.
    fn acts_of(key: u8, timer: Timer) -> Vec<Act> {
        let at = timer.moment().millis();
        let own = |after: i64| timer.kind().at(at.saturating_add(after));
        let mut acts = Vec::new();
        let number = at.unsigned_abs().wrapping_add(u64::from(key));
        if number.is_multiple_of(3) {
            acts.extend([Act::Set(own(4)), Act::Cancel(own(7))]);
        }
        if number.is_multiple_of(5) {
            acts.extend([Act::Set(own(0)), Act::Set(own(2))]);
        }
        if number.is_multiple_of(7) {
            acts.extend([Act::Set(own(-1)), Act::Cancel(own(-1)), Act::Set(own(1))]);
        }
        if number.is_multiple_of(11) {
            acts.push(Act::Set(Timer::Clock(Timestamp::from_millis(at + 1))));
        }
        if number.is_multiple_of(13) {
            acts.push(Act::Forget);
        }
        acts
    }

    /// All timers of a key in a set, and all keys looked through for the next one.
    #[derive(Default)]
    struct Model {
        keys: BTreeMap<u8, (u32, BTreeSet<Timer>)>,
        watermark: i64,
        now: i64,
        calls: Vec<Call>,
        held: BTreeSet<(u8, Timer)>,
    }

    impl Model {
        fn call(&mut self, key: u8, fired: Option<Timer>, acts: Vec<Act>) {
            let (count, timers) = self.keys.entry(key).or_default();
            *count += 1;
            self.calls.push((key, fired, *count));
            let mut forgotten = false;
            for act in acts {
                match act {
                    Act::Set(Timer::Event(_)) if self.watermark == i64::MAX => {}
                    Act::Set(timer) => {
                        let passed = fired.is_some_and(|fired| fired.kind() == timer.kind() && timer <= fired);
                        if timers.insert(timer) && passed {
                            self.held.insert((key, timer));
                        }
                    }
                    Act::Cancel(timer) => {
                        timers.remove(&timer);
                        self.held.remove(&(key, timer));
                    }
                    Act::Forget => forgotten = true,
                }
            }
            if forgotten {
                self.keys.remove(&key);
                self.held.retain(|(of, _)| *of != key);
            }
        }

        fn fire(&mut self, kind: Kind, until: i64) {
            loop {
                let all = self.keys.iter().flat_map(|(key, (_, timers))| timers.iter().map(|timer| (*timer, *key)));
                let due = all.filter(|(timer, key)| {
                    timer.kind() == kind && timer.moment().millis() <= until && !self.held.contains(&(*key, *timer))
                });
                let Some((timer, key)) = due.min() else { break };
                self.keys.get_mut(&key).unwrap().1.remove(&timer);
                self.call(key, Some(timer), acts_of(key, timer));
            }
            self.held.clear();
        }
    }

    #[derive(Default)]
    struct Calls(Vec<Call>);

    impl Emit<Call> for Calls {
        fn emit(&mut self, call: Call) -> Result<(), Fault> {
            self.0.push(call);
            Ok(())
        }
    }

    impl Outlet<Call, Infallible> for Calls {
        fn emit_side(&mut self, record: Infallible) -> Result<(), Fault> {
            match record {}
        }
    }

    fn act(cx: &mut KeyContext<'_, '_, impl Sized, Call>, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Set(timer) => cx.set(timer),
                Act::Cancel(timer) => {
                    cx.cancel(timer);
                }
                Act::Forget => cx.forget(),
            }
        }
    }

    /// A key all of which have the same hash.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Alike(u8);

    impl Hash for Alike {
        fn hash<H: Hasher>(&self, _state: &mut H) {}
    }

    /// Plays the steps to an operator and to the model.
    fn play<K: Hash + Eq + Clone + Send + 'static>(
        steps: Vec<Step>,
        make: fn(u8) -> K,
        number: fn(&K) -> u8,
    ) -> Result<(), TestCaseError> {
        let clock = Clock::manual(Timestamp::from_millis(0));
        let function = OnBoth {
            on_record: move |count: &mut u32, (key, acts): (u8, Vec<Act>), cx: &mut KeyContext<'_, '_, K, Call>| {
                *count += 1;
                cx.push((key, None, *count));
                act(cx, acts);
            },
            on_timer: move |count: &mut u32, timer: Timer, cx: &mut KeyContext<'_, '_, K, Call>| {
                *count += 1;
                let key = number(cx.key());
                cx.push((key, Some(timer), *count));
                act(cx, acts_of(key, timer));
            },
        };
        let key = Computed::new(move |record: &(u8, Vec<Act>)| make(record.0));
        let mut process = Process::new(key, 0, function);
        process.shared.clock = clock.clone();
        process.shared.watch = Watch::new(&clock);
        let mut model = Model { watermark: i64::MIN, ..Model::default() };
        let mut finished = steps;
        finished.push(Step::Watermark(i64::MAX));
        for step in finished {
            let mut calls = Calls::default();
            let done = match step {
                Step::Record(key, acts) => {
                    model.fire(Kind::Clock, model.now);
                    model.call(key, None, acts.clone());
                    process.process((key, acts), &mut calls)
                }
                Step::Watermark(millis) => {
                    if millis > model.watermark {
                        model.watermark = millis;
                        model.fire(Kind::Event, millis);
                    }
                    process.signal(Signal::Watermark(Watermark { millis, idle: false }), &mut calls)
                }
                Step::Clock(millis) => {
                    clock.advance(Duration::from_millis(millis));
                    model.now = clock.now().millis();
                    model.fire(Kind::Clock, model.now);
                    process.signal(Signal::Time, &mut calls)
                }
            };
            prop_assert!(done.is_ok());
            let ours = calls.0;
            let theirs = std::mem::take(&mut model.calls);
            // Timers come by time; between keys there is no order.
            let times: Vec<_> = ours.iter().filter_map(|call| call.1).map(|timer| timer.moment()).collect();
            prop_assert!(times.is_sorted(), "{ours:?}");
            for key in 0..=u8::MAX {
                let of = |calls: &[Call]| calls.iter().filter(|call| call.0 == key).copied().collect::<Vec<_>>();
                prop_assert_eq!(of(&ours), of(&theirs));
            }
            prop_assert_eq!(process.kept.len(), model.keys.len());
        }
        Ok(())
    }

    fn timer() -> impl Strategy<Value = Timer> {
        let moment = prop_oneof![4 => 0..60_i64, 1 => Just(5_000_000_000), 1 => -5..3000_i64];
        (any::<bool>(), moment).prop_map(|(event, at)| if event { Kind::Event.at(at) } else { Kind::Clock.at(at) })
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            6 => timer().prop_map(Act::Set),
            4 => timer().prop_map(Act::Cancel),
            1 => Just(Act::Forget),
        ];
        // A timer that is moved.
        let moved = (timer(), 0..50_i64).prop_map(|(timer, by)| {
            vec![Act::Set(timer), Act::Cancel(timer), Act::Set(timer.kind().at(timer.moment().millis() + by))]
        });
        prop_oneof![prop::collection::vec(act, 0..4), moved]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..4_u8, acts()).prop_map(|(key, acts)| Step::Record(key, acts)),
            2 => (0..80_i64).prop_map(Step::Watermark),
            1 => (0..10_u64).prop_map(Step::Clock),
            1 => (0..3000_i64).prop_map(Step::Watermark),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn timers_fire_as_those_of_a_plain_set(steps in steps()) {
            play(steps, |key| key, |key| *key)?;
        }

        #[test]
        fn timers_fire_as_those_of_a_plain_set_where_all_keys_have_one_hash(steps in steps()) {
            play(steps, Alike, |key| key.0)?;
        }
    }

    #[test]
    fn each_of_many_keys_gets_its_own_timers_where_all_have_the_same_moments() {
        let function = OnBoth {
            on_record: |_: &mut u32, _: u32, cx: &mut KeyContext<'_, '_, u32, (u32, u32)>| {
                cx.set(Kind::Event.at(5));
                cx.cancel(Kind::Event.at(5));
                cx.set(Kind::Event.at(7));
            },
            on_timer: |fired: &mut u32, _: Timer, cx: &mut KeyContext<'_, '_, u32, (u32, u32)>| {
                *fired += 1;
                let key = *cx.key();
                cx.push((key, *fired));
                match *fired {
                    1 | 2 => cx.set(Kind::Event.at(7)),
                    _ => cx.forget(),
                }
            },
        };
        struct Pairs(Vec<(u32, u32)>);
        impl Emit<(u32, u32)> for Pairs {
            fn emit(&mut self, pair: (u32, u32)) -> Result<(), Fault> {
                self.0.push(pair);
                Ok(())
            }
        }
        impl Outlet<(u32, u32), Infallible> for Pairs {
            fn emit_side(&mut self, record: Infallible) -> Result<(), Fault> {
                match record {}
            }
        }
        let mut process = Process::new(Computed::new(|key: &u32| *key), 0, function);
        let mut pairs = Pairs(Vec::new());
        let keys = 0..20_000_u32;
        keys.clone().for_each(|key| process.process(key, &mut pairs).unwrap());
        for round in 1..=4 {
            let millis = 100 + round;
            process.signal(Signal::Watermark(Watermark { millis, idle: false }), &mut pairs).unwrap();
            let mut fired = std::mem::take(&mut pairs.0);
            fired.sort_unstable();
            let expected = if round < 4 { keys.clone().map(|key| (key, round as u32)).collect() } else { Vec::new() };
            assert_eq!(fired, expected, "round {round}");
        }
        assert!(process.kept.is_empty());
    }
}
