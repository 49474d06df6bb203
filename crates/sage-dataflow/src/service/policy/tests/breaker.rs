//! When a breaker opens, which calls it lets through then, and when it closes.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::breaker::{Breaker, BreakerState, Circuit, Open, Passed};
use super::super::time::Time;
use super::super::time::tests::ManualTime;
use super::super::verdict::Verdict;
use super::Callers;

const SECOND: Duration = Duration::from_secs(1);
const WELL: Option<Verdict> = None;
const FAILED: Option<Verdict> = Some(Verdict::Passing(None));

/// Calls that end so, one after the other.
fn calls(circuit: &Circuit, now: Instant, ends: impl IntoIterator<Item = Option<Verdict>>) {
    ends.into_iter().for_each(|error| circuit.pass(|| now).expect("it lets calls through").ended(|| now, error));
}

fn state(circuit: &Circuit) -> BreakerState {
    circuit.figures().state
}

fn passes(circuit: &Circuit, now: Instant) -> Passed<'_> {
    circuit.pass(|| now).expect("it lets calls through")
}

fn refusal(circuit: &Circuit, now: Instant) -> Option<Open> {
    circuit.pass(|| now).err()
}

#[test]
fn it_opens_when_the_share_of_the_last_calls_failed_and_not_before_enough_were_made() {
    let now = ManualTime::new().now();
    let circuit = Circuit::new(Breaker::after_share(0.5).of_last(6).at_least(4));
    calls(&circuit, now, [FAILED; 3]);
    assert_eq!(state(&circuit), BreakerState::Closed, "three calls are too few");
    calls(&circuit, now, [FAILED]);
    assert_eq!(state(&circuit), BreakerState::Open);

    let circuit = Circuit::new(Breaker::after_share(0.5).of_last(6).at_least(4));
    calls(&circuit, now, [WELL, WELL, WELL, WELL, FAILED, FAILED]);
    assert_eq!(state(&circuit), BreakerState::Closed, "two of six");
    calls(&circuit, now, [FAILED]);
    assert_eq!(state(&circuit), BreakerState::Open, "three of the last six");

    let circuit = Circuit::new(Breaker::after_share(0.07).of_last(100).at_least(100));
    calls(&circuit, now, (0..100).map(|call| if call < 7 { FAILED } else { WELL }));
    assert_eq!(state(&circuit), BreakerState::Open, "7 of 100");
}

#[test]
fn a_breaker_after_failures_in_a_row_counts_no_other() {
    let now = ManualTime::new().now();
    let circuit = Circuit::new(Breaker::after_consecutive(3));
    calls(&circuit, now, [FAILED, FAILED, WELL, FAILED, FAILED]);
    assert_eq!(state(&circuit), BreakerState::Closed);
    calls(&circuit, now, [FAILED]);
    assert_eq!(state(&circuit), BreakerState::Open);
}

#[test]
fn an_outage_is_a_failure_and_a_bad_request_or_one_too_many_is_none() {
    let now = ManualTime::new().now();
    let circuit = Circuit::new(Breaker::after_consecutive(1));
    calls(&circuit, now, [Some(Verdict::Bad), Some(Verdict::Throttled(None)), Some(Verdict::Throttled(Some(SECOND)))]);
    assert_eq!(state(&circuit), BreakerState::Closed);
    calls(&circuit, now, [Some(Verdict::Outage)]);
    assert_eq!(state(&circuit), BreakerState::Open);
}

#[test]
fn an_open_breaker_lets_probes_through_after_its_time_and_closes_when_all_succeed() {
    let time = ManualTime::new();
    let since = time.now();
    let circuit = Circuit::new(Breaker::after_consecutive(1).open_for(SECOND * 10).probes(2));
    calls(&circuit, since, [FAILED]);
    assert_eq!(refusal(&circuit, since + SECOND * 4), Some(Open { reopens_in: Some(SECOND * 6) }));
    let now = since + SECOND * 10;
    let (first, second) = (passes(&circuit, now), passes(&circuit, now));
    assert_eq!((state(&circuit), state(&circuit).to_string()), (BreakerState::HalfOpen, "half open".to_owned()));
    assert_eq!(refusal(&circuit, now), Some(Open { reopens_in: None }));
    first.ended(|| now, WELL);
    assert_eq!(refusal(&circuit, now), Some(Open { reopens_in: None }), "two are enough");
    second.ended(|| now, Some(Verdict::Bad));
    assert_eq!(state(&circuit), BreakerState::Closed);
    let figures = circuit.figures();
    assert_eq!((figures.opened, figures.half_opened, figures.closed, figures.refused), (1, 1, 1, 3));
}

#[test]
fn a_probe_that_fails_opens_it_again_and_the_others_count_no_more() {
    let since = ManualTime::new().now();
    let circuit = Circuit::new(Breaker::after_consecutive(1).open_for(SECOND).probes(2));
    calls(&circuit, since, [FAILED]);
    let now = since + SECOND;
    let (first, second) = (passes(&circuit, now), passes(&circuit, now));
    first.ended(|| now, FAILED);
    assert_eq!(refusal(&circuit, now), Some(Open { reopens_in: Some(SECOND) }));
    second.ended(|| now, WELL);
    assert_eq!(state(&circuit), BreakerState::Open);
    assert_eq!((circuit.figures().opened, circuit.figures().closed), (2, 0));
}

#[test]
fn a_call_that_began_before_it_opened_neither_closes_nor_opens_it() {
    let since = ManualTime::new().now();
    let circuit = Circuit::new(Breaker::after_consecutive(1).open_for(SECOND).probes(1));
    let [well, failed, late, later] = [(); 4].map(|()| passes(&circuit, since));
    calls(&circuit, since, [FAILED]);
    well.ended(|| since, WELL);
    failed.ended(|| since, FAILED);
    assert_eq!((state(&circuit), circuit.figures().opened), (BreakerState::Open, 1));
    let now = since + SECOND;
    let probe = passes(&circuit, now);
    late.ended(|| now, FAILED);
    assert_eq!(state(&circuit), BreakerState::HalfOpen);
    probe.ended(|| now, WELL);
    later.ended(|| now, FAILED);
    assert_eq!(state(&circuit), BreakerState::Closed, "it is of the time before");
}

#[test]
fn a_probe_that_is_dropped_undecided_makes_room_for_another() {
    let time = ManualTime::new();
    let circuit = Circuit::new(Breaker::after_consecutive(1).open_for(SECOND).probes(1));
    drop(passes(&circuit, time.now()));
    calls(&circuit, time.now(), [FAILED]);
    let mut callers = Callers::new(&time);
    let [first, second, leaves] = [(); 3].map(|()| callers.call(circuit.opened_again(&time)));
    assert_eq!(callers.run(), []);
    callers.leaves(leaves);
    assert_eq!(callers.run_until(time.now() + SECOND), [(first, ()), (second, ())]);
    let probe = passes(&circuit, time.now());
    let next = callers.call(circuit.opened_again(&time));
    assert_eq!(callers.run(), []);
    drop(probe);
    assert_eq!(callers.run(), [(next, ())]);
    let probe = passes(&circuit, time.now());
    let [one, other] = [(); 2].map(|()| callers.call(circuit.opened_again(&time)));
    assert_eq!(callers.run(), []);
    probe.ended(|| time.now(), FAILED);
    assert_eq!(callers.run(), [], "it is open again, and they know until when");
    assert_eq!(callers.run_until(time.now() + SECOND), [(one, ()), (other, ())]);
    let probe = passes(&circuit, time.now());
    let last = callers.call(circuit.opened_again(&time));
    assert_eq!(callers.run(), []);
    probe.ended(|| time.now(), WELL);
    assert_eq!(callers.run(), [(last, ())]);
}

#[test]
fn settings_of_zero_or_beyond_their_bounds_are_mistakes() {
    let told = |breaker: Breaker| breaker.mistake().unwrap_or_default();
    for share in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY] {
        assert!(told(Breaker::after_share(share)).ends_with(&format!("above 0 and up to 1, not {share}")));
    }
    let half = Breaker::after_share(0.5);
    assert_eq!(told(half.of_last(0)), "a breaker counts 1 to 100000 calls, not 0");
    assert!(told(Breaker::after_consecutive(usize::MAX)).contains("1 to 100000"));
    for least in [0, 21] {
        assert!(told(half.at_least(least)).ends_with(&format!("after 1 to 20 of them, not after {least}")));
    }
    assert_eq!(told(half.open_for(Duration::ZERO)), "a breaker that is open for no time lets every call through");
    assert_eq!(told(half.probes(0)), "a breaker without probes never closes again");
    let ones = Breaker::after_share(1.0).of_last(1).at_least(1).probes(1).open_for(Duration::from_nanos(1));
    let most = Breaker::after_share(f64::MIN_POSITIVE).of_last(100_000).probes(u32::MAX).open_for(Duration::MAX);
    let now = ManualTime::new().now();
    for breaker in [ones, most, half] {
        assert_eq!(told(breaker), "");
        let circuit = Circuit::new(breaker);
        calls(&circuit, now, std::iter::repeat_n(WELL, 100_000));
        assert_eq!(state(&circuit), BreakerState::Closed);
    }
    let circuit = Circuit::new(most);
    calls(&circuit, now, std::iter::repeat_n(WELL, 49_999));
    calls(&circuit, now, [FAILED]);
    assert!(refusal(&circuit, now + SECOND * 60 * 60 * 24 * 365 * 99).is_some());
}

/// What a test does next.
#[derive(Debug, Clone)]
enum Step {
    Calls,
    /// An earlier call ends: well, failed, or undecided.
    Ends(prop::sample::Index, u8),
    Passes(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Calls),
        5 => (any::<prop::sample::Index>(), 0_u8..5).prop_map(|(which, how)| Step::Ends(which, how)),
        1 => (0_u64..15).prop_map(Step::Passes),
    ]
}

/// The same, as the whole history of one stretch.
#[derive(Default)]
struct Plain {
    stretch: usize,
    /// When it lets probes through, if it is open; that it has begun to, if it is half open.
    until: Option<u64>,
    is_probing: bool,
    ends: Vec<bool>,
    under_way: usize,
}

impl Plain {
    fn enters(&mut self, until: Option<u64>, is_probing: bool) {
        *self = Self { stretch: self.stretch + 1, until, is_probing, ..Self::default() };
    }
}

proptest! {
    #[test]
    fn calls_pass_when_they_would_by_the_plainest_means(
        percent in 1_u32..=100,
        window in 1_usize..8,
        least in 1_usize..8,
        open in 1_u64..10,
        probes in 1_u32..4,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let (share, least) = (f64::from(percent) / 100.0, least.min(window));
        let breaker = Breaker::after_share(share).of_last(window).at_least(least);
        let circuit = Circuit::new(breaker.open_for(Duration::from_nanos(open)).probes(probes));
        let time = ManualTime::new();
        let (mut plain, mut calls, mut clock) = (Plain::default(), Vec::new(), 0);
        for step in steps {
            match step {
                Step::Passes(nanos) => {
                    time.advance(Duration::from_nanos(nanos));
                    clock += nanos;
                }
                Step::Calls => {
                    let may = match (plain.until, plain.is_probing) {
                        (Some(until), _) => clock >= until,
                        (None, true) => plain.under_way + plain.ends.len() < probes as usize,
                        (None, false) => true,
                    };
                    let passed = circuit.pass(|| time.now());
                    prop_assert_eq!(passed.is_ok(), may);
                    if may && plain.until.is_some() {
                        plain.enters(None, true);
                    }
                    if let Ok(passed) = passed {
                        plain.under_way += 1;
                        calls.push((plain.stretch, passed));
                    }
                }
                Step::Ends(which, how) if !calls.is_empty() => {
                    let (stretch, passed) = calls.swap_remove(which.index(calls.len()));
                    let error = match how {
                        0 => WELL,
                        1 => Some(Verdict::Throttled(None)),
                        2 => FAILED,
                        3 => Some(Verdict::Outage),
                        _ => {
                            drop(passed);
                            plain.under_way -= usize::from(stretch == plain.stretch);
                            continue;
                        }
                    };
                    passed.ended(|| time.now(), error);
                    if stretch == plain.stretch && plain.until.is_none() {
                        plain.under_way -= 1;
                        plain.ends.push(how >= 2);
                        let last = &plain.ends[plain.ends.len().saturating_sub(window)..];
                        let failed = last.iter().filter(|failed| **failed).count();
                        let too_much = failed * 100 >= percent as usize * last.len() && last.len() >= least;
                        if plain.is_probing && how < 2 && plain.ends.len() == probes as usize {
                            plain.enters(None, false);
                        } else if if plain.is_probing { how >= 2 } else { too_much && failed > 0 } {
                            plain.enters(Some(clock + open), false);
                        }
                    }
                }
                Step::Ends(..) => {}
            }
            let expected = match (plain.until, plain.is_probing) {
                (Some(_), _) => BreakerState::Open,
                (None, true) => BreakerState::HalfOpen,
                (None, false) => BreakerState::Closed,
            };
            prop_assert_eq!(state(&circuit), expected);
        }
    }
}
