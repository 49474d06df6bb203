//! Rates, costs and spends, by the time of a clock that stands still until it is moved.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::limiter::{Limiter, Refusal};
use super::super::rate::Rate;
use super::super::reservation::Ask;
use super::super::spend::Spend;
use super::super::time::Time;
use super::super::time::tests::{ManualSleep, ManualTime};
use super::Callers;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn costs(cost: u64) -> Ask {
    Ask::new(cost, 0.0)
}

fn spends(amount: f64) -> Ask {
    Ask::new(0, amount)
}

/// A limiter, and its time.
fn limiter(rates: &[Rate], spends: &[Spend]) -> (Limiter, ManualTime) {
    let time = ManualTime::new();
    (Limiter::new(rates, spends, time.now()), time)
}

/// Makes a call, and tells when it went.
async fn goes(limiter: &Limiter, time: &ManualTime, ask: Ask) -> Result<Instant, Refusal> {
    goes_by(limiter, time, ask, None).await
}

async fn goes_by(
    limiter: &Limiter,
    time: &ManualTime,
    ask: Ask,
    deadline: Option<Instant>,
) -> Result<Instant, Refusal> {
    limiter.reserve(time, time.now(), ask, deadline).await?.begin();
    Ok(time.now())
}

/// How long a call takes.
const CALL: Duration = Duration::from_micros(1);

/// How many calls, or how much cost, 8 tasks get within a minute that call without a pause.
fn in_a_minute(rates: &[Rate], cost: impl Fn(usize) -> u64) -> [u64; 8] {
    let (limiter, time) = limiter(rates, &[]);
    let had = [const { Cell::new(0) }; 8];
    let end = time.now() + MINUTE;
    // So that all begin at once.
    limiter.pause(time.now(), Duration::from_nanos(1));
    let mut callers = Callers::new(&time);
    for task in 0..8 {
        let (limiter, time, had, cost) = (&limiter, &time, &had[task], cost(task));
        callers.call(async move {
            loop {
                let now = time.now();
                let mut reserved = limiter.reserve(time, now, costs(cost), None).await.expect("there is no deadline");
                reserved.begin();
                time.sleep_until(now + CALL).await;
                reserved.settle(time.now(), costs(cost));
                had.set(had.get() + cost);
            }
        });
    }
    let ended: Vec<(usize, ())> = callers.run_until(end);
    assert!(ended.is_empty());
    had.each_ref().map(Cell::get)
}

/// Within 1 in 100 of what is allowed, and 1 in 20 of each other.
fn assert_kept(had: [u64; 8], allowed: u64) {
    let all: u64 = had.iter().sum();
    assert!(all.abs_diff(allowed) * 100 <= allowed, "{all} of {allowed}");
    let (least, most) = (had.iter().min().unwrap(), had.iter().max().unwrap());
    assert!((most - least) * 20 <= *most, "{had:?}");
}

#[test]
fn eight_tasks_keep_to_a_rate_of_calls_within_one_in_a_hundred_and_each_has_its_share() {
    assert_kept(in_a_minute(&[Rate::calls(10, SECOND)], |_| 1), 600);
    assert_kept(in_a_minute(&[Rate::calls(1_000, SECOND)], |_| 1), 60_000);
    assert_kept(in_a_minute(&[Rate::calls(7_777, MINUTE)], |_| 1), 7_777);
    assert_kept(in_a_minute(&[Rate::calls(50, SECOND), Rate::calls(1_200, MINUTE)], |_| 1), 1_200);
}

#[test]
fn eight_tasks_keep_to_a_rate_of_cost_within_one_in_a_hundred_and_each_has_its_share() {
    assert_kept(in_a_minute(&[Rate::cost(1_000_000, MINUTE).burst(1_000)], |_| 700), 1_000_000);
    assert_kept(in_a_minute(&[Rate::cost(200_000, MINUTE).burst(10), Rate::calls(1_000, SECOND)], |_| 10), 200_000);
}

#[test]
fn a_great_cost_at_the_head_is_not_starved_by_small_ones_behind_it() {
    // Each task has as many calls as another, whatever they cost.
    let had = in_a_minute(&[Rate::cost(1_000, SECOND)], |task| if task == 0 { 1_000 } else { 1 });
    assert!(had[0] / 1_000 >= 59, "{had:?}");
    assert!(had[1..].iter().all(|&had| (59..=62).contains(&had)), "{had:?}");
}

#[test]
fn a_jump_of_the_clock_by_hours_is_no_burst_beyond_the_bucket() {
    let (limiter, time) = limiter(&[Rate::calls(10, SECOND).burst(3)], &[]);
    let mut callers = Callers::new(&time);
    for _ in 0..20 {
        callers.call(goes(&limiter, &time, costs(0)));
    }
    assert_eq!(callers.run().len(), 3);
    time.advance(MINUTE * 60 * 5);
    assert_eq!(callers.run().len(), 3, "a full bucket");
    assert_eq!(callers.run_until(time.now() + SECOND).len(), 10);
}

#[test]
fn a_rate_drifts_by_nothing() {
    let (limiter, time) = limiter(&[Rate::calls(7, Duration::from_secs(3)).burst(1)], &[]);
    let since = time.now();
    let mut callers: Callers<'_, ()> = Callers::new(&time);
    let (limiter, time) = (&limiter, &time);
    callers.call(async move {
        for call in 0..100_000_u64 {
            let went = goes(limiter, time, costs(0)).await.expect("there is no deadline");
            assert_eq!(went - since, Duration::from_nanos((call * 3_000_000_000).div_ceil(7)));
        }
    });
    assert_eq!(callers.run_until(since + MINUTE * 60 * 12).len(), 1);
}

/// Counts the timers that are made.
#[derive(Clone)]
struct Timers(ManualTime, std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Time for Timers {
    type Sleep = ManualSleep;

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn sleep_until(&self, moment: Instant) -> ManualSleep {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.sleep_until(moment)
    }
}

#[test]
fn only_the_head_of_the_queue_has_a_timer() {
    let (limiter, time) = limiter(&[Rate::calls(1, SECOND)], &[]);
    let timers = Timers(time.clone(), Default::default());
    let mut callers = Callers::new(&time);
    for _ in 0..101 {
        let (limiter, timers) = (&limiter, &timers);
        callers.call(async move { limiter.reserve(timers, timers.now(), costs(0), None).await.map(|mut r| r.begin()) });
    }
    assert_eq!(callers.run().len(), 1);
    let made = || timers.1.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((made(), limiter.figures().waiting), (1, 100));
    assert_eq!(callers.run_until(time.now() + MINUTE).len(), 60);
    assert_eq!((made(), limiter.figures().waiting), (61, 40));
}

#[test]
fn a_caller_that_leaves_gives_everything_back_and_the_next_goes_at_once() {
    let (limiter, time) = limiter(&[Rate::cost(100, MINUTE)], &[]);
    let held = Rc::new(RefCell::new(None));
    let mut callers = Callers::new(&time);
    let first = callers.call({
        let (held, limiter, time) = (held.clone(), &limiter, &time);
        async move {
            *held.borrow_mut() = Some(limiter.reserve(time, time.now(), costs(80), None).await?);
            Ok(time.now())
        }
    });
    assert_eq!(callers.run().len(), 1);
    assert_eq!(first, 0);
    let great = callers.call(goes(&limiter, &time, costs(100)));
    let small = callers.call(goes(&limiter, &time, costs(20)));
    assert_eq!(callers.run(), [], "the small one waits behind the great one");
    callers.leaves(great);
    assert_eq!(callers.run(), [(small, Ok(time.now()))], "the head left, and 20 are there");
    let next = callers.call(goes(&limiter, &time, costs(80)));
    assert_eq!(callers.run(), []);
    held.borrow_mut().take();
    assert_eq!(callers.run(), [(next, Ok(time.now()))], "the call of 80 was never made");
    let figures = limiter.figures();
    assert_eq!((figures.passed, figures.given_back, figures.waited), (2, 1, 2));
}

#[test]
fn one_that_was_granted_and_is_dropped_before_it_sees_so_gives_back() {
    let (limiter, time) = limiter(&[Rate::calls(1, SECOND)], &[]);
    let mut callers = Callers::new(&time);
    callers.call(goes(&limiter, &time, costs(0)));
    let [second, third] = [(); 2].map(|()| callers.call(goes(&limiter, &time, costs(0))));
    assert_eq!(callers.run().len(), 1);
    // Whoever comes looks for the head as well, but goes behind it.
    time.advance(SECOND);
    let fourth = callers.call(goes(&limiter, &time, costs(0)));
    assert_eq!(callers.poll(fourth), None);
    assert_eq!(limiter.figures().passed, 2, "the second was granted its call");
    callers.leaves(second);
    assert_eq!(callers.run(), [(third, Ok(time.now()))]);
    assert_eq!(callers.run_until(time.now() + SECOND), [(fourth, Ok(time.now()))]);
}

#[test]
fn a_call_is_settled_by_what_it_did_cost() {
    let (limiter, time) = limiter(&[Rate::cost(60, MINUTE)], &[]);
    let since = time.now();
    let reserve = |cost| {
        let mut callers = Callers::new(&time);
        callers.call(limiter.reserve(&time, since, costs(cost), None));
        callers.run().pop().expect("it goes at once").1.unwrap_or_else(|_| panic!("it may go"))
    };
    let (first, second) = (reserve(40), reserve(20));
    let mut callers = Callers::new(&time);
    let third = callers.call(goes(&limiter, &time, costs(30)));
    assert_eq!(callers.run(), []);
    first.settle(since, costs(10));
    assert_eq!(callers.run(), [(third, Ok(since))], "30 came back");
    let fourth = callers.call(goes(&limiter, &time, costs(1)));
    assert_eq!(callers.run(), []);
    second.settle(since, costs(29));
    assert_eq!(callers.run_until(since + SECOND * 9), [], "a debt of 9");
    assert_eq!(callers.run_until(since + SECOND * 10), [(fourth, Ok(since + SECOND * 10))]);
    assert_eq!(limiter.figures().cost, 10 + 29 + 30 + 1, "that which nobody settles by its estimate");
}

#[test]
fn a_debt_made_after_a_long_time_is_one_nevertheless() {
    let (limiter, time) = limiter(&[Rate::cost(60, MINUTE)], &[]);
    let mut callers = Callers::new(&time);
    callers.call(limiter.reserve(&time, time.now(), costs(1), None));
    let reserved = callers.run().pop().expect("it goes at once").1.unwrap_or_else(|_| panic!("it may go"));
    time.advance(MINUTE * 60);
    reserved.settle(time.now(), costs(61));
    let mut callers = Callers::new(&time);
    let next = callers.call(goes(&limiter, &time, costs(1)));
    let due = time.now() + SECOND;
    assert_eq!(callers.run_until(due), [(next, Ok(due))]);
}

#[test]
fn a_cost_above_the_bucket_is_refused_at_once() {
    let (limiter, time) = limiter(&[Rate::cost(100, MINUTE), Rate::cost(1_000, MINUTE).burst(50)], &[]);
    let mut callers = Callers::new(&time);
    callers.call(goes(&limiter, &time, costs(50)));
    callers.call(goes(&limiter, &time, costs(51)));
    callers.call(goes(&limiter, &time, costs(u64::MAX)));
    let refused = |cost, bucket| Err(Refusal::CostTooLarge { cost, bucket });
    assert_eq!(callers.run(), [(0, Ok(time.now())), (1, refused(51, 50)), (2, refused(u64::MAX, 100))]);
    assert_eq!(limiter.figures().refused, 2);
}

#[test]
fn a_pause_holds_all_callers_and_refuses_those_whose_deadline_is_before_its_end() {
    let (limiter, time) = limiter(&[Rate::calls(1, SECOND)], &[]);
    let since = time.now();
    let at = |seconds| since + SECOND * seconds;
    let mut callers = Callers::new(&time);
    for deadline in [None, Some(at(5)), None, Some(at(15))] {
        callers.call(goes_by(&limiter, &time, costs(0), deadline));
    }
    assert_eq!(callers.run().len(), 1);
    limiter.pause(since, SECOND * 10);
    limiter.pause(since, SECOND * 3);
    let late = Err(Refusal::PastDeadline { wait: SECOND * 10 });
    assert_eq!(callers.run(), [(1, late)], "at once");
    let comes_late = callers.call(goes_by(&limiter, &time, costs(0), Some(at(9))));
    assert_eq!(callers.run(), [(comes_late, late)], "at once as well");
    assert_eq!(callers.run_until(at(9)), []);
    assert_eq!(callers.run_until(at(11)), [(2, Ok(at(10))), (3, Ok(at(11)))]);
    assert_eq!(limiter.figures().pauses, 2);
}

#[test]
fn a_service_that_asks_for_more_than_two_minutes_gets_two_minutes() {
    let (limiter, time) = limiter(&[Rate::calls(1, SECOND)], &[]);
    limiter.pause(time.now(), Duration::MAX);
    let mut callers = Callers::new(&time);
    let only = callers.call(goes(&limiter, &time, costs(0)));
    let due = time.now() + MINUTE * 2;
    assert_eq!(callers.run_until(due), [(only, Ok(due))]);
}

#[test]
fn a_deadline_before_the_moment_is_refused_at_once_only_where_that_is_certain() {
    let (limiter, time) = limiter(&[Rate::cost(60, MINUTE)], &[]);
    let (since, deadline) = (time.now(), Some(time.now() + SECOND * 5));
    let mut callers = Callers::new(&time);
    callers.call(limiter.reserve(&time, since, costs(60), None));
    let reserved = callers.run().pop().expect("it goes at once").1.unwrap_or_else(|_| panic!("it may go"));
    let mut callers = Callers::new(&time);
    let hopes = callers.call(goes_by(&limiter, &time, costs(30), deadline));
    assert_eq!(callers.run(), [], "what is reserved may come back");
    reserved.settle(since, costs(60));
    assert_eq!(callers.run(), [], "nothing came back, and nobody is woken for it");
    let knows = callers.call(goes_by(&limiter, &time, costs(30), deadline));
    let on_time = callers.call(goes_by(&limiter, &time, costs(30), Some(since + SECOND * 30)));
    let late = Err(Refusal::PastDeadline { wait: SECOND * 30 });
    assert_eq!(callers.run(), [(knows, late), (hopes, late)], "whoever comes has looked for the head as well");
    let due = since + SECOND * 30;
    assert_eq!(callers.run_until(due), [(on_time, Ok(due))]);
}

#[test]
fn what_is_spent_refuses_calls_until_it_has_left_the_window() {
    let hour = MINUTE * 60;
    let (limiter, time) = limiter(&[], &[Spend::at_most(1.0, hour), Spend::at_most(100.0, hour * 24)]);
    let since = time.now();
    let call = |asks: f64, did: f64| {
        let mut callers = Callers::new(&time);
        let (limiter, time) = (&limiter, &time);
        callers.call(async move {
            limiter.reserve(time, time.now(), spends(asks), None).await?.settle(time.now(), spends(did));
            Ok(())
        });
        callers.run().pop().map(|(_, ended)| ended)
    };
    assert_eq!(call(0.25, 0.5), Some(Ok(())));
    time.advance(hour / 2);
    assert_eq!(call(0.0, 0.5), Some(Ok(())), "of unknown cost");
    let part = hour / 128;
    let spent = |reopens_in| Some(Err(Refusal::Spent { reopens_in }));
    assert_eq!(call(0.0, 0.1), spent(hour / 2 + part));
    assert_eq!(call(0.6, 0.1), spent(hour + part), "the one that leaves first is not enough");
    assert_eq!(call(1.5, 0.1), Some(Err(Refusal::AmountTooLarge { amount: 1.5, limit: 1.0 })));
    time.advance(hour / 2 + part);
    assert!(time.now() > since);
    assert_eq!(call(0.1, 0.1), Some(Ok(())));
    assert_eq!(limiter.figures().spent_billionths, 1_100_000_000);
}

#[test]
fn a_call_waits_for_what_is_reserved_and_may_not_be_spent() {
    let (limiter, time) = limiter(&[], &[Spend::at_most(1.0, MINUTE)]);
    let since = time.now();
    let reserve = |amount| {
        let mut callers = Callers::new(&time);
        callers.call(limiter.reserve(&time, since, spends(amount), None));
        callers.run().pop().expect("it goes at once").1.unwrap_or_else(|_| panic!("it may go"))
    };
    let (first, second) = (reserve(0.5), reserve(0.5));
    let mut callers = Callers::new(&time);
    let third = callers.call(goes(&limiter, &time, spends(0.25)));
    assert_eq!(callers.run(), []);
    first.settle(since, spends(0.25));
    assert_eq!(callers.run(), [(third, Ok(since))]);
    let fourth = callers.call(goes(&limiter, &time, spends(0.25)));
    assert_eq!(callers.run(), []);
    second.settle(since, spends(0.75));
    let spent = Err(Refusal::Spent { reopens_in: MINUTE + MINUTE / 128 });
    assert_eq!(callers.run(), [(fourth, spent)], "it costs more than it was to");
}

#[test]
fn calls_wait_for_a_window_to_open_where_that_is_asked_for() {
    let (limiter, time) = limiter(&[], &[Spend::at_most(1.0, MINUTE).waiting()]);
    let since = time.now();
    let mut callers = Callers::new(&time);
    callers.call(goes(&limiter, &time, spends(1.0)));
    let next = callers.call(goes(&limiter, &time, spends(0.0)));
    let late = callers.call(goes_by(&limiter, &time, spends(0.1), Some(since + MINUTE)));
    let opens = since + MINUTE + MINUTE / 128;
    let refused = Err(Refusal::PastDeadline { wait: opens - since });
    assert_eq!(callers.run_until(since + MINUTE), [(0, Ok(since)), (late, refused)]);
    assert_eq!(callers.run_until(opens), [(next, Ok(opens))]);
}

#[test]
fn settings_of_zero_or_without_bounds_are_mistakes() {
    let mistake = |rate: Rate| rate.mistake().unwrap_or_default();
    assert_eq!(mistake(Rate::calls(0, SECOND)), "a rate of 0 calls lets no call pass");
    assert_eq!(mistake(Rate::cost(0, SECOND)), "a rate of 0 cost lets no call pass");
    assert_eq!(mistake(Rate::calls(1, Duration::ZERO)), "a rate needs a time longer than zero");
    assert_eq!(mistake(Rate::cost(1, SECOND).burst(0)), "a burst of 0 cost lets no call pass");
    for amount in [0.0, -0.0, -1.0, 1e-10, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(Spend::at_most(amount, SECOND).mistake().is_some_and(|told| told.contains("is none")), "{amount}");
    }
    assert_eq!(Spend::at_most(1.0, Duration::ZERO).mistake().unwrap(), "a spend needs a time longer than zero");
    for rate in [Rate::calls(1, Duration::from_nanos(1)), Rate::cost(u64::MAX, Duration::MAX).burst(u64::MAX)] {
        assert_eq!(rate.mistake(), None);
    }
    assert_eq!(Spend::at_most(f64::MAX, Duration::MAX).mistake(), None);
}

#[test]
fn the_smallest_and_the_greatest_settings_work() {
    let forever = |amount| Rate::cost(amount, Duration::MAX);
    let (limiter, time) =
        limiter(&[forever(u64::MAX).burst(u64::MAX), forever(1)], &[Spend::at_most(f64::MAX, Duration::MAX)]);
    let mut callers = Callers::new(&time);
    callers.call(goes(&limiter, &time, Ask::new(1, 1e12)));
    let second = callers.call(goes(&limiter, &time, Ask::new(1, f64::NAN)));
    assert_eq!(callers.run().len(), 1);
    assert_eq!(limiter.figures().waiting, 1);
    time.advance(MINUTE * 60 * 24 * 365 * 100);
    assert_eq!(callers.run(), [(second, Ok(time.now()))]);

    let all = |rate| in_a_minute(&[rate, Rate::calls(100, SECOND)], |_| 1).iter().sum::<u64>();
    assert!(all(Rate::calls(u64::MAX, Duration::from_nanos(1))) >= 6_000);
    assert_eq!(all(Rate::calls(1, Duration::MAX)), 1);
    assert_eq!(all(Rate::calls(1, SECOND * 45)), 2);
}

/// What a test does next.
#[derive(Debug, Clone)]
enum Step {
    Passes(u64),
    Calls(u64),
    /// An earlier caller leaves, whatever it does: it waits, or has not begun.
    Leaves(prop::sample::Index),
    /// The call of an earlier caller, which went, ends and has cost so much.
    Ends(prop::sample::Index, u64),
    Pauses(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..40).prop_map(Step::Passes),
        4 => (0_u64..14).prop_map(Step::Calls),
        1 => any::<prop::sample::Index>().prop_map(Step::Leaves),
        2 => (any::<prop::sample::Index>(), 0_u64..20).prop_map(|(which, cost)| Step::Ends(which, cost)),
        1 => (0_u64..30).prop_map(Step::Pauses),
    ]
}

/// The limiter in the plainest form: every nanosecond adds to a level, and the head of a line goes when it can.
struct Plain {
    per: i64,
    refill: i64,
    full: i64,
    /// In tokens times nanoseconds of the period.
    level: i64,
    now: u64,
    paused_until: u64,
    line: VecDeque<(usize, u64)>,
    went: Vec<(usize, u64)>,
}

impl Plain {
    fn serve(&mut self) {
        while let Some(&(caller, cost)) = self.line.front() {
            if self.now < self.paused_until || self.level < cost as i64 * self.per {
                return;
            }
            self.level -= cost as i64 * self.per;
            self.went.push((caller, self.now));
            self.line.pop_front();
        }
    }

    fn passes(&mut self, nanos: u64) {
        for _ in 0..nanos {
            self.now += 1;
            self.level = (self.level + self.refill).min(self.full);
            self.serve();
        }
    }

    fn returns(&mut self, cost: i64) {
        self.level = (self.level + cost * self.per).min(self.full);
        self.serve();
    }
}

proptest! {
    #[test]
    fn callers_go_when_they_would_in_the_plainest_limiter(
        refill in 1_u64..12,
        per in 1_u64..50,
        size in 1_u64..14,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (limiter, time) = limiter(&[Rate::cost(refill, Duration::from_nanos(per)).burst(size)], &[]);
        let since = time.now();
        let level = (size * per) as i64;
        let mut plain = Plain {
            per: per as i64, refill: refill as i64, full: level + refill.min(per) as i64 - 1, level,
            now: 0, paused_until: 0, line: VecDeque::new(), went: Vec::new(),
        };
        // Of the calls that went and did not end: what each holds, and what it asked for.
        let held = RefCell::new(Vec::new());
        let went = RefCell::new(Vec::new());
        let mut callers = Callers::new(&time);
        let mut asked = Vec::new();
        for step in steps {
            match step {
                Step::Passes(nanos) => {
                    callers.run_until(time.now() + Duration::from_nanos(nanos));
                    plain.passes(nanos);
                }
                Step::Calls(cost) if cost <= size => {
                    let (number, limiter, time, held, went) = (asked.len(), &limiter, &time, &held, &went);
                    callers.call(async move {
                        let reserved = limiter.reserve(time, time.now(), costs(cost), None).await.expect("it fits");
                        went.borrow_mut().push((number, (time.now() - since).as_nanos() as u64));
                        held.borrow_mut().push((number, reserved));
                    });
                    plain.line.push_back((number, cost));
                    plain.serve();
                    asked.push(cost);
                }
                Step::Calls(_) => {}
                Step::Leaves(which) if !asked.is_empty() => {
                    let caller = which.index(asked.len());
                    callers.leaves(caller);
                    let place = held.borrow().iter().position(|(number, _)| *number == caller);
                    if let Some(place) = place {
                        held.borrow_mut().swap_remove(place);
                        plain.returns(asked[caller] as i64);
                    } else {
                        plain.line.retain(|(number, _)| *number != caller);
                        plain.serve();
                    }
                }
                Step::Ends(which, cost) if !held.borrow().is_empty() => {
                    let place = which.index(held.borrow().len());
                    let (caller, reserved) = held.borrow_mut().swap_remove(place);
                    reserved.settle(time.now(), costs(cost));
                    plain.returns(asked[caller] as i64 - cost as i64);
                }
                Step::Pauses(nanos) => {
                    limiter.pause(time.now(), Duration::from_nanos(nanos));
                    plain.paused_until = plain.paused_until.max(plain.now + nanos);
                }
                Step::Leaves(_) | Step::Ends(..) => {}
            }
            callers.run();
            prop_assert_eq!(&*went.borrow(), &plain.went);
            prop_assert_eq!(limiter.figures().waiting, plain.line.len());
        }
    }

    #[test]
    fn no_window_of_time_spends_more_than_the_limit(
        steps in prop::collection::vec((0_u64..300, 1_u32..40), 1..200),
    ) {
        let per = Duration::from_nanos(1_000);
        let (limiter, time) = limiter(&[], &[Spend::at_most(100.0, per).waiting()]);
        let mut spent: Vec<(Instant, u32)> = Vec::new();
        for (nanos, amount) in steps {
            time.advance(Duration::from_nanos(nanos));
            let asked = time.now();
            let mut callers = Callers::new(&time);
            callers.call(goes(&limiter, &time, spends(amount.into())));
            let went = callers.run_until(asked + per * 2).pop().expect("a window opens").1.expect("nobody is late");
            let within = |since: Instant| {
                spent.iter().filter(|(at, _)| *at + per > since).map(|(_, amount)| amount).sum::<u32>() + amount
            };
            prop_assert!(within(went) <= 100);
            // It went at most two parts of the window later than it could have.
            let sooner = went.checked_sub(per / 128 * 2).filter(|&sooner| sooner > asked);
            prop_assert!(sooner.is_none_or(|sooner| within(sooner) > 100));
            spent.push((went, amount));
        }
    }
}
