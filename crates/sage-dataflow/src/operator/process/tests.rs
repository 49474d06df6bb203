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
