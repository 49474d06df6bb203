//! The layers of a policy under shuttle: no caller waits for ever, and together they get no more than there is.

#![expect(dead_code, reason = "the engine's files are compiled whole; a model uses a part of them")]
#![expect(unreachable_pub, reason = "what the engine makes public is public in its file")]

mod sync {
    pub(crate) use std::sync::PoisonError;
    use std::time::Duration;

    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};

    pub(crate) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

    pub(crate) fn drop_record(drop: impl FnOnce()) {
        drop();
    }

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As the engine's, which also says what errors mean.
mod verdict {
    use std::time::Duration;

    #[derive(Debug, Clone, Copy)]
    pub enum Verdict {
        Bad,
        Passing(Option<Duration>),
        Throttled(Option<Duration>),
        Outage,
    }
}

#[path = "../../../src/service/policy/breaker.rs"]
mod breaker;
#[path = "../../../src/service/policy/bucket.rs"]
mod bucket;
#[path = "../../../src/service/policy/concurrency.rs"]
mod concurrency;
#[path = "../../../src/service/policy/limiter.rs"]
mod limiter;
#[path = "../../../src/service/policy/outage.rs"]
mod outage;
#[path = "../../../src/service/policy/rate.rs"]
mod rate;
#[path = "../../../src/service/policy/reservation.rs"]
mod reservation;
#[path = "../../../src/service/policy/spend.rs"]
mod spend;
#[path = "../../../src/service/policy/time.rs"]
mod time;
#[path = "../../../src/service/policy/turn.rs"]
mod turn;
#[path = "../../../src/service/policy/waiters.rs"]
mod waiters;
#[path = "../../../src/service/policy/within.rs"]
mod within;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use shuttle::future::block_on;
use shuttle::sync::{Barrier, Condvar};
use shuttle::thread;

use super::under_shuttle::check;
use breaker::{Breaker, BreakerState, Circuit};
use concurrency::{Concurrency, Slots};
use limiter::Limiter;
use outage::{Outage, Released};
use rate::Rate;
use reservation::Ask;
use spend::Spend;
use sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use time::Time;
use verdict::Verdict;

const SECOND: Duration = Duration::from_secs(1);

/// A time that a thread of the model moves on to each moment that somebody waits for.
#[derive(Clone)]
struct ModelTime(Arc<(Mutex<Hands>, Condvar)>);

struct Hands {
    now: Instant,
    sleepers: Vec<(Instant, Waker)>,
    has_ended: bool,
}

impl ModelTime {
    fn new() -> Self {
        let hands = Hands { now: Instant::now(), sleepers: Vec::new(), has_ended: false };
        Self(Arc::new((Mutex::new(hands), Condvar::new())))
    }

    /// Moves the time on until it has ended.
    fn run(&self) {
        loop {
            let mut hands = lock(&self.0.0);
            while hands.sleepers.is_empty() && !hands.has_ended {
                hands = self.0.1.wait(hands).unwrap_or_else(PoisonError::into_inner);
            }
            if hands.has_ended {
                return;
            }
            let next = hands.sleepers.iter().map(|(until, _)| *until).min().expect("somebody sleeps");
            let now = hands.now.max(next);
            hands.now = now;
            let (due, rest) = std::mem::take(&mut hands.sleepers).into_iter().partition(|(until, _)| *until <= now);
            hands.sleepers = rest;
            drop(hands);
            let due: Vec<(Instant, Waker)> = due;
            due.into_iter().for_each(|(_, waker)| waker.wake());
        }
    }

    fn end(&self) {
        lock(&self.0.0).has_ended = true;
        self.0.1.notify_all();
    }
}

impl Time for ModelTime {
    type Sleep = Sleep;
    fn now(&self) -> Instant {
        lock(&self.0.0).now
    }
    fn sleep_until(&self, until: Instant) -> Sleep {
        Sleep(self.clone(), until)
    }
}

struct Sleep(ModelTime, Instant);

impl Future for Sleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut hands = lock(&self.0.0.0);
        if hands.now >= self.1 {
            return Poll::Ready(());
        }
        hands.sleepers.push((self.1, cx.waker().clone()));
        drop(hands);
        self.0.0.1.notify_all();
        Poll::Pending
    }
}

/// Polls a future once, and tells what it got.
fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
    block_on(poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    }))
}

#[test]
fn callers_of_a_limiter_go_one_a_second_also_when_some_leave() {
    check(300, || {
        let time = ModelTime::new();
        let since = time.now();
        let limiter = Arc::new(Limiter::new(&[Rate::calls(1, SECOND)], &[], since));
        let clock = thread::spawn({
            let time = time.clone();
            move || time.run()
        });
        let callers: Vec<_> = [true, false, true, false]
            .map(|stays| {
                let (limiter, time) = (limiter.clone(), time.clone());
                thread::spawn(move || {
                    let mut reserve = Box::pin(limiter.reserve(&time, time.now(), Ask::default(), None));
                    if stays {
                        block_on(reserve).unwrap_or_else(|_| panic!("there is no deadline")).begin();
                        return;
                    }
                    // It may be granted its call before it leaves, or have gone at once and not begin.
                    drop(poll_once(&mut reserve));
                })
            })
            .into();
        callers.into_iter().for_each(|caller| caller.join().expect("no caller panics"));
        time.end();
        clock.join().expect("the time does not panic");
        let figures = limiter.figures();
        assert_eq!((figures.passed, figures.waiting), (2, 0));
        assert!(time.now() >= since + SECOND, "two within a second");
    });
}

/// Nothing comes back but what others give back.
#[test]
fn a_refund_finds_the_head_whenever_it_comes() {
    check(300, || {
        let time = ModelTime::new();
        let rate = Rate::cost(1, sync::FOREVER).burst(2);
        let limiter = Arc::new(Limiter::new(&[rate], &[Spend::at_most(1.0, SECOND)], time.now()));
        let callers: Vec<_> = [0, 1, 2, 3]
            .map(|caller| {
                let (limiter, time) = (limiter.clone(), time.clone());
                thread::spawn(move || {
                    let (now, ask) = (time.now(), Ask::new(2 - caller % 2, 0.75));
                    let mut reserve = Box::pin(limiter.reserve(&time, now, ask, None));
                    match caller {
                        0 => drop(poll_once(&mut reserve)),
                        // It has not begun.
                        1 => drop(block_on(reserve)),
                        _ => {
                            let reserved = block_on(reserve).unwrap_or_else(|_| panic!("there is no deadline"));
                            reserved.settle(time.now(), Ask::default());
                        }
                    }
                })
            })
            .into();
        callers.into_iter().for_each(|caller| caller.join().expect("no caller panics"));
        let figures = limiter.figures();
        assert_eq!((figures.passed, figures.waiting, figures.refused), (2, 0, 0));
    });
}

/// The code of one is stuck, and ends after the others; some of those leave.
#[test]
fn a_permit_finds_the_next_caller_whenever_it_comes_back() {
    check(300, || {
        let slots = Slots::new(Concurrency::at_most(1).replacements(1));
        let stuck = block_on(slots.permit()).expect("nobody is there");
        let inside = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = [true, false, true, false]
            .map(|stays| {
                let (slots, inside) = (slots.clone(), inside.clone());
                thread::spawn(move || {
                    let mut permit = Box::pin(slots.permit());
                    if !stays {
                        return drop(poll_once(&mut permit));
                    }
                    let _permit = block_on(permit).expect("the queue has room");
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    inside.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .into();
        assert!(stuck.replace());
        callers.into_iter().for_each(|caller| caller.join().expect("no caller panics"));
        drop(stuck);
        let figures = slots.figures();
        assert_eq!((figures.in_flight, figures.stuck, figures.waiting), (0, 0, 0));
    });
}

/// Callers that meet an outage wait until a call may be let through, and make theirs again. The second probe meets it
/// once more, and some are dropped undecided.
#[test]
fn a_breaker_that_opens_holds_up_nobody_for_ever_and_closes_again() {
    check(300, || {
        let time = ModelTime::new();
        let circuit = Arc::new(Circuit::new(Breaker::after_consecutive(1).open_for(SECOND).probes(2)));
        let calls = Arc::new(AtomicU64::new(0));
        let clock = thread::spawn({
            let time = time.clone();
            move || time.run()
        });
        let callers: Vec<_> = [false, false, true]
            .map(|is_dropped| {
                let (circuit, time, calls) = (circuit.clone(), time.clone(), calls.clone());
                thread::spawn(move || {
                    let mut is_dropped = is_dropped;
                    loop {
                        let Ok(passed) = circuit.pass(|| time.now()) else {
                            block_on(circuit.opened_again(&time));
                            continue;
                        };
                        if std::mem::take(&mut is_dropped) {
                            continue;
                        }
                        // The first meets the outage, and the third call as well.
                        let error = [0, 2].contains(&calls.fetch_add(1, Ordering::SeqCst)).then_some(Verdict::Outage);
                        passed.ended(|| time.now(), error);
                        if error.is_none() {
                            return;
                        }
                    }
                })
            })
            .into();
        callers.into_iter().for_each(|caller| caller.join().expect("no caller panics"));
        time.end();
        clock.join().expect("the time does not panic");
        let figures = circuit.figures();
        assert!(figures.opened >= 1 && figures.half_opened <= figures.opened, "{figures:?}");
        assert!(figures.closed <= figures.half_opened, "{figures:?}");
        // Whatever happened, two calls that go well close it.
        for _ in 0..2 {
            let now = match circuit.pass(|| time.now()) {
                Err(open) => time.now() + open.reopens_in.expect("no probe is under way"),
                Ok(passed) => {
                    passed.ended(|| time.now(), None);
                    continue;
                }
            };
            circuit.pass(|| now).unwrap_or_else(|_| panic!("its time is over")).ended(|| now, None);
        }
        assert_eq!(circuit.figures().state, BreakerState::Closed);
    });
}

#[test]
fn a_half_open_breaker_lets_no_more_calls_through_than_its_probes() {
    check(300, || {
        let since = ModelTime::new().now();
        let circuit = Arc::new(Circuit::new(Breaker::after_consecutive(1).open_for(SECOND).probes(2)));
        let late = circuit.clone();
        let late = late.pass(|| since).unwrap_or_else(|_| panic!("it is closed"));
        circuit.pass(|| since).unwrap_or_else(|_| panic!("it is closed")).ended(|| since, Some(Verdict::Outage));
        let all_tried = Arc::new(Barrier::new(4));
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (circuit, all_tried) = (circuit.clone(), all_tried.clone());
                thread::spawn(move || {
                    let passed = circuit.pass(|| since + SECOND);
                    all_tried.wait();
                    let probes = u64::from(passed.is_ok());
                    passed.into_iter().for_each(|passed| passed.ended(|| since + SECOND, None));
                    probes
                })
            })
            .collect();
        // It began before the breaker opened.
        late.ended(|| since + SECOND, Some(Verdict::Outage));
        let probes: u64 = callers.into_iter().map(|caller| caller.join().expect("no caller panics")).sum();
        assert_eq!((probes, circuit.figures().state), (2, BreakerState::Closed));
    });
}

/// The first of all attempts meet an outage, which ends then. One caller leaves while it is held.
#[test]
fn an_outage_holds_up_nobody_for_ever_and_the_job_goes_on_after_it() {
    check(300, || {
        let (time, outage) = (ModelTime::new(), Outage::new());
        // Above zero, the job pauses.
        let (pauses, attempts) = (std::sync::Arc::new(Mutex::new(0)), Arc::new(AtomicU64::new(0)));
        let told = pauses.clone();
        outage.reset(Some(std::sync::Arc::new(move |pause| *lock(&told) += if pause { 1 } else { -1 })));
        let clock = thread::spawn({
            let time = time.clone();
            move || time.run()
        });
        let callers: Vec<_> = [false, true, false]
            .map(|leaves| {
                let (outage, time, attempts) = (outage.clone(), time.clone(), attempts.clone());
                thread::spawn(move || {
                    let mut probe = None;
                    while attempts.fetch_add(1, Ordering::SeqCst) < 4 {
                        probe = outage.met(probe, time.now());
                        let mut hold = Box::pin(outage.hold(probe.take(), &time, 10_000 * SECOND));
                        if leaves {
                            drop(poll_once(&mut hold));
                            return;
                        }
                        match block_on(hold) {
                            Released::Over => {}
                            Released::Probe(next) => probe = Some(next),
                            Released::TooLong => panic!("nobody gives it up"),
                        }
                    }
                    probe.into_iter().for_each(|probe| probe.ends_it());
                })
            })
            .into();
        callers.into_iter().for_each(|caller| caller.join().expect("no caller panics"));
        time.end();
        clock.join().expect("the time does not panic");
        assert_eq!(*lock(&pauses), 0, "the job is paused for nobody");
    });
}
