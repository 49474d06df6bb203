//! Processing time, by a clock that the test moves: windows, timers, states that expire, and idle inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sage::testing::{self, ClockHands, Feed, Received, TestSink, TestSource};
use sage::{
    BoxError, Count, Environment, JobHandle, Next, OutOfOrder, Retry, Session, Sliding, Source, SourceContext,
    SubmitError, Timer, Timestamp, Tumbling,
};

use super::windows::{Event, Kind, Outcome, kind, ms, outcome};
use crate::contract::cancelled;
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, PATIENCE, sorted};

const fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// An environment whose clock stands at `start`, and what a test of it needs.
struct Bench<I, O> {
    env: Environment,
    hands: ClockHands,
    feed: Feed<I>,
    source: TestSource<I>,
    received: Received<O>,
    sink: TestSink<O>,
}

impl<I: Send + 'static, O: Send + Clone + 'static> Bench<I, O> {
    fn new(start: i64) -> Self {
        let (hands, clock) = testing::clock(at(start));
        let (feed, source) = testing::source();
        let (received, sink) = testing::sink();
        Self { env: Environment::local("clocked").clock(clock), hands, feed, source, received, sink }
    }

    fn source(&self) -> impl Fn(usize) -> TestSource<I> + Send + 'static {
        let source = self.source.clone();
        move |_| source.clone()
    }

    fn sink(&self) -> impl Fn(usize) -> TestSink<O> + Send + 'static {
        let sink = self.sink.clone();
        move |_| sink.clone()
    }

    fn submit(&self) -> JobHandle {
        self.env.submit().expect("the pipeline is declared well")
    }

    /// Ends the source, and gives all that was received.
    fn end(&self, job: &JobHandle) -> Vec<O> {
        self.feed.end();
        job.wait().expect("nothing fails");
        self.received.take()
    }
}

/// What a test does: gives a record of a key, or moves the clock.
#[derive(Debug, Clone, Copy)]
enum Act {
    Give(u8),
    Advance(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    vec(prop_oneof![3 => (0..3_u8).prop_map(Act::Give), 2 => (0..25_u64).prop_map(Act::Advance)], 0..60)
}

impl<O: Send + Clone + 'static> Bench<Event, O> {
    /// Gives each record with the time at which it comes, and returns them.
    fn play(&self, start: i64, acts: &[Act]) -> Vec<Event> {
        let (mut now, mut events) = (start, Vec::new());
        for (id, act) in acts.iter().enumerate() {
            match *act {
                Act::Give(key) => {
                    let event = (now, key, id as u32);
                    events.push(event);
                    self.feed.send(event);
                }
                Act::Advance(millis) => {
                    self.feed.settle();
                    self.hands.advance(ms(millis));
                    now += millis as i64;
                }
            }
        }
        self.feed.settle();
        events
    }
}

macro_rules! by_clock {
    ($bench:expr, $windows:expr) => {{
        let windows = $bench.env.from_source($bench.source()).key_by(|event: &Event| event.1).window_by_clock($windows);
        let ids = windows.apply(|_, _, events| events.iter().map(|event| event.2).collect::<Vec<u32>>());
        ids.map(outcome).sink_to($bench.sink());
    }};
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows_by_the_clock_hold_what_came_in_their_time(kind in kind(), start in -100..100_i64, acts in acts()) {
        leak_free(|_| {
            let bench: Bench<Event, Outcome> = Bench::new(start);
            match kind {
                Kind::Tumbling(size) => by_clock!(bench, Tumbling::of(ms(size))),
                Kind::Sliding(size, every) => by_clock!(bench, Sliding::of(ms(size), ms(every))),
                Kind::Session(gap) => by_clock!(bench, Session::gap(ms(gap))),
                Kind::Count(records) => by_clock!(bench, Count::of(records)),
            };
            let job = bench.submit();
            let events = bench.play(start, &acts);
            let advance = |act: &Act| if let Act::Advance(by) = act { *by as i64 } else { 0 };
            let now = start + acts.iter().map(advance).sum::<i64>();
            let expected = kind.expected(&events);
            // Those whose end has come fire without another record.
            let due = expected.iter().filter(|outcome| outcome.1 <= now).count();
            assert_eq!(bench.received.wait_for(due).len(), due);
            assert_eq!(sorted(bench.end(&job)), expected);
        });
    }

    #[test]
    fn a_state_expires_to_the_millisecond(ttl in 1..30_i64, start in -100..100_i64, acts in acts()) {
        leak_free(|_| {
            let bench: Bench<Event, (u32, u32)> = Bench::new(start);
            bench.env
                .from_source(bench.source())
                .key_by(|event: &Event| event.1)
                .expire_after(ms(ttl as u64))
                .map_with_state(0_u32, |seen, event| {
                    *seen += 1;
                    (event.2, *seen)
                })
                .sink_to(bench.sink());
            let job = bench.submit();
            let events = bench.play(start, &acts);
            let mut states: BTreeMap<u8, (i64, u32)> = BTreeMap::new();
            let expected: Vec<(u32, u32)> = events
                .iter()
                .map(|&(time, key, id)| {
                    let (last, seen) = states.entry(key).or_insert((time, 0));
                    *seen = if time - *last >= ttl { 1 } else { *seen + 1 };
                    *last = time;
                    (id, *seen)
                })
                .collect();
            assert_eq!(bench.end(&job), expected);
        });
    }

    #[test]
    fn timers_of_the_clock_are_called_in_order_and_on_time(
        acts in acts(),
        delays in vec(1..40_i64, 3),
        forgets in any::<bool>(),
    ) {
        leak_free(|_| {
            // Each record sets a timer of its key; the second one within a delay finds it set, or cancels it.
            let bench: Bench<Event, (i64, u8)> = Bench::new(0);
            let delay_of = delays.clone();
            bench.env
                .from_source(bench.source())
                .key_by(|event: &Event| event.1)
                .process(
                    None,
                    move |set: &mut Option<i64>, event, key| {
                        let moment = key.now().millis() + delay_of[usize::from(event.1)];
                        if forgets && event.2 % 5 == 0 {
                            return key.forget();
                        }
                        match set.take() {
                            Some(old) if event.2 % 2 == 0 => assert!(key.cancel(Timer::Clock(at(old)))),
                            Some(old) => *set = Some(old),
                            None => {
                                key.set(Timer::Clock(at(moment)));
                                key.set(Timer::Clock(at(moment)));
                                *set = Some(moment);
                            }
                        }
                    },
                    |set, timer, key| {
                        assert_eq!(*set, Some(timer.moment().millis()));
                        *set = None;
                        let key_of = *key.key();
                        key.push((timer.moment().millis(), key_of));
                    },
                )
                .sink_to(bench.sink());
            let job = bench.submit();
            let events = bench.play(0, &acts);
            let now = acts.iter().map(|act| if let Act::Advance(by) = act { *by as i64 } else { 0 }).sum::<i64>();
            let mut set: BTreeSet<(i64, u8)> = BTreeSet::new();
            let mut expected: Vec<(i64, u8)> = Vec::new();
            let take_due = |set: &mut BTreeSet<(i64, u8)>, now: i64| {
                let later = set.split_off(&(now + 1, 0));
                std::mem::replace(set, later)
            };
            for (time, key, id) in events {
                expected.extend(take_due(&mut set, time));
                let of_key = set.iter().copied().find(|timer| timer.1 == key);
                match of_key {
                    _ if forgets && id % 5 == 0 => set.retain(|timer| timer.1 != key),
                    Some(timer) if id % 2 == 0 => assert!(set.remove(&timer)),
                    Some(_) => {}
                    None => assert!(set.insert((time + delays[usize::from(key)], key))),
                }
            }
            expected.extend(take_due(&mut set, now));
            assert_eq!(bench.received.wait_for(expected.len()).len(), expected.len());
            // At the end of input the others are called as well.
            expected.extend(set);
            let got = bench.end(&job);
            assert!(got.is_sorted_by_key(|timer| timer.0), "{got:?}");
            assert_eq!(sorted(got), sorted(expected));
        });
    }
}

#[test]
fn windows_by_the_clock_fire_behind_an_exchange_and_behind_policies() {
    leak_free(|_| {
        let bench: Bench<u32, u64> = Bench::new(0);
        let journal = Journal::new();
        let came = journal.clone();
        let (counts, letters) = bench
            .env
            .from_source(bench.source())
            .on_another_thread()
            .inspect(move |n| came.note(n))
            .key_by(|_| ())
            .window_by_clock(Tumbling::of(ms(10)))
            .count()
            .retry(Retry::up_to(1))
            .dead_letters();
        counts.map(|count| count.value.value).sink_to(bench.sink());
        letters.sink(|_| {});
        let job = bench.submit();
        bench.feed.send(1);
        bench.feed.send(2);
        // The first was taken when the second has come.
        journal.await_events("2", 1);
        bench.hands.advance(ms(10));
        assert_eq!(bench.received.wait_for(1).len(), 1);
        assert_eq!(bench.end(&job).iter().sum::<u64>(), 2);
    });
}

#[test]
fn windows_by_the_systems_clock_fire_while_nothing_comes() {
    leak_free(|_| {
        let (feed, source) = testing::source::<u32>();
        let (received, sink) = testing::sink();
        let env = Environment::local("system");
        let windows = env.from_source(move |_| source.clone()).key_by(|n| n % 2).window_by_clock(Session::gap(ms(5)));
        windows.count().parallelism(2).map(|count| count.value.value).sink_to(move |_| sink.clone());
        let job = env.submit().unwrap();
        (0..4).for_each(|n| feed.send(n));
        // The source is still open, and says nothing.
        let mut counted = received.wait_for(2);
        while counted.iter().sum::<u64>() < 4 {
            counted = received.wait_for(counted.len() + 1);
        }
        feed.end();
        job.wait().unwrap();
        assert_eq!(received.take().iter().sum::<u64>(), 4);
    });
}

#[test]
fn windows_by_the_clock_fire_at_a_drain_and_not_at_a_cancel() {
    leak_free(|_| {
        let bench: Bench<u32, u64> = Bench::new(0);
        let windows = bench.env.from_source(bench.source()).key_by(|_| ()).window_by_clock(Tumbling::of(ms(1000)));
        windows.count().map(|count| count.value.value).sink_to(bench.sink());
        let job = bench.submit();
        bench.feed.send(1);
        bench.feed.settle();
        job.drain();
        job.wait().unwrap();
        assert_eq!(bench.received.take(), [1]);
        let job = bench.submit();
        bench.feed.send(1);
        bench.feed.settle();
        job.cancel();
        cancelled(&job);
        assert_eq!(bench.received.take(), [0; 0]);
    });
}

#[test]
fn windows_of_event_time_follow_windows_by_the_clock() {
    leak_free(|_| {
        let bench: Bench<u32, u64> = Bench::new(0);
        let by_second =
            bench.env.from_source(bench.source()).key_by(|_| ()).window_by_clock(Tumbling::of(ms(10))).count();
        let by_minute =
            by_second.map(|count| count.map(|count| count.value)).key_by(|_| ()).window(Tumbling::of(ms(30)));
        by_minute.fold(0, |sum, count| *sum += count).map(|sum| sum.value.value).sink_to(bench.sink());
        let job = bench.submit();
        for (records, so_far) in [(3, 0), (2, 0), (1, 1), (4, 1)] {
            (0..records).for_each(|n| bench.feed.send(n));
            bench.feed.settle();
            bench.hands.advance(ms(10));
            bench.feed.send(0);
            bench.feed.settle();
            assert!(bench.received.wait_for(so_far).len() == so_far);
        }
        assert_eq!(bench.end(&job), [3 + 2 + 1 + 2, 4 + 1 + 1]);
    });
}

/// A source that waits for an hour at a time, as one does that polls for news, and for the first time with a record
/// given.
struct Patient {
    given: bool,
    waits: Arc<AtomicI64>,
    /// The window has fired, on the thread of the source.
    fired: Arc<AtomicBool>,
    end: Gate,
}

impl Source for Patient {
    type Item = ();

    fn next(&mut self, cx: &SourceContext) -> Result<Next<()>, BoxError> {
        if !std::mem::replace(&mut self.given, true) {
            return Ok(Next::Record(()));
        }
        if self.waits.fetch_add(1, Ordering::SeqCst) == 0 {
            return Ok(Next::Idle);
        }
        // On a slow machine its time has come before the wait: then there is nothing to wait for.
        if !self.fired.load(Ordering::SeqCst) && cx.wait(Duration::from_secs(3600)) {
            return Err("an hour has passed".into());
        }
        self.end.pass();
        Ok(Next::End)
    }
}

#[test]
fn a_sources_wait_ends_when_something_behind_it_is_due() {
    leak_free(|_| {
        for clock in ["system", "moved"] {
            let (hands, moved) = testing::clock(at(0));
            let (received, sink) = testing::sink();
            let (gate, waits) = (Gate::new(), Arc::new(AtomicI64::new(0)));
            let env = Environment::local("patient");
            let env = if clock == "moved" { env.clock(moved) } else { env };
            let (end, waited, fired) = (gate.clone(), waits.clone(), Arc::new(AtomicBool::new(false)));
            let fires = fired.clone();
            let patient = move |waits: &Arc<AtomicI64>| Patient {
                given: false,
                waits: waits.clone(),
                fired: fired.clone(),
                end: end.clone(),
            };
            env.from_source(move |_| patient(&waited))
                .key_by(|()| ())
                .window_by_clock(Tumbling::of(ms(5)))
                .count()
                .map(move |count| {
                    fires.store(true, Ordering::SeqCst);
                    count.value.value
                })
                .sink_to(move |_| sink.clone());
            let job = env.submit().unwrap();
            while clock == "moved" && waits.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            hands.advance(ms(5));
            gate.await_arrivals(1);
            gate.open();
            job.wait().unwrap();
            assert_eq!(received.take(), [1]);
        }
    });
}

#[test]
fn an_idle_source_is_told_by_the_clock() {
    leak_free(|_| {
        // The right source says nothing; it holds the watermark up until it is idle.
        let bench: Bench<i64, i64> = Bench::new(0);
        let (silent, source) = testing::source::<i64>();
        let order = OutOfOrder::by(Duration::ZERO).idle_after(ms(60_000));
        let left = bench.env.from_source(bench.source()).with_timestamps(|n| at(*n), order).on_another_thread();
        let right =
            bench.env.from_source(move |_| source.clone()).with_timestamps(|n| at(*n), order).on_another_thread();
        let both = left.union(right).key_by(|_| ()).window(Tumbling::of(ms(10)));
        both.count().map(|count| count.value.window.start.millis()).sink_to(bench.sink());
        let job = bench.submit();
        bench.feed.send(1);
        bench.feed.send(25);
        bench.feed.settle();
        silent.settle();
        bench.hands.advance(ms(59_999));
        bench.feed.send(26);
        bench.feed.settle();
        silent.settle();
        assert_eq!(bench.received.wait_for(0), [0; 0]);
        bench.hands.advance(ms(1));
        assert_eq!(bench.received.wait_for(1), [0]);
        silent.end();
        assert_eq!(bench.end(&job), [0, 20]);
    });
}

#[test]
fn timers_of_event_time_go_by_the_watermark() {
    leak_free(|_| {
        for replicas in [1, 3] {
            let env = Environment::local("reminders");
            let events: Vec<(i64, u8)> = (0..200).map(|n| (n * 5 + (n * 7) % 11, (n % 7) as u8)).collect();
            let given = events.clone();
            // Each record is answered 20 ms after it, with how many of its key have come.
            let answers = env
                .from_iter(events)
                .with_timestamps(|event| at(event.0), OutOfOrder::by(ms(11)))
                .key_by(|event| event.value.1)
                .process(
                    0_u32,
                    |seen, event, key| {
                        assert!(event.time >= key.watermark(), "it is not late");
                        *seen += 1;
                        key.set(Timer::Event(event.time.later(ms(20))));
                    },
                    |seen, timer, key| {
                        assert!(key.watermark() >= timer.moment());
                        let answer = (*key.key(), timer.moment().millis(), *seen);
                        key.push(answer);
                    },
                )
                .parallelism(replicas)
                .collect();
            env.run().unwrap();
            let answers = answers.take();
            for key in 0..7 {
                let of_key: Vec<(i64, u32)> = answers.iter().filter(|it| it.0 == key).map(|it| (it.1, it.2)).collect();
                assert!(of_key.is_sorted(), "{of_key:?}");
                let times = given.iter().filter(|event| event.1 == key).map(|event| event.0 + 20);
                assert_eq!(of_key.iter().map(|it| it.0).collect::<Vec<_>>(), sorted(times.collect()));
            }
        }
    });
}

#[test]
fn a_timer_that_sets_another_ends_with_the_input() {
    leak_free(|_| {
        let bench: Bench<i64, i64> = Bench::new(0);
        let stream = bench.env.from_source(bench.source()).with_timestamps(|n| at(*n), OutOfOrder::by(Duration::ZERO));
        stream
            .key_by(|_| ())
            .process(
                (),
                |(), record, key| {
                    if record.value == 0 {
                        key.set(Timer::Event(at(10)));
                        // For a time that has passed: it is called with the next watermark.
                        key.set(Timer::Event(at(-10)));
                    }
                },
                |(), timer, key| {
                    key.push(timer.moment().millis());
                    key.set(Timer::Event(timer.moment().later(ms(10))));
                    // Called with the next watermark, or this would not end.
                    if timer.moment() == at(50) && key.watermark() == at(55) {
                        key.set(timer);
                    }
                },
            )
            .sink_to(bench.sink());
        let job = bench.submit();
        for time in [0, 55, 75] {
            bench.feed.send(time);
            bench.feed.settle();
        }
        // What was set last is called at the end, and sets nothing any more.
        assert_eq!(bench.end(&job), [-10, 0, 10, 20, 30, 40, 50, 50, 60, 70, 80]);
    });
}

#[test]
fn a_cancel_calls_no_timer() {
    leak_free(|_| {
        let bench: Bench<u32, u32> = Bench::new(0);
        let stream = bench.env.from_source(bench.source()).key_by(|n| *n);
        stream
            .process(
                (),
                |(), n, key| {
                    key.set(Timer::Clock(at(10)));
                    key.push(n);
                },
                |(), _, _| panic!("it is not called"),
            )
            .sink_to(bench.sink());
        let job = bench.submit();
        bench.feed.send(1);
        bench.received.wait_for(1);
        job.cancel();
        cancelled(&job);
    });
}

/// Counts those that live.
struct Counted(Arc<AtomicI64>);

impl Counted {
    fn new(alive: &Arc<AtomicI64>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(alive.clone())
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn what_has_expired_is_freed_though_no_record_comes() {
    leak_free(|_| {
        let bench: Bench<u32, u32> = Bench::new(0);
        let alive = Arc::new(AtomicI64::new(0));
        let stream = bench.env.from_source(bench.source()).key_by(|n| *n).expire_after(ms(100));
        stream.map_with_state(Counted::new(&alive), |_, n| n).sink_to(bench.sink());
        let prototypes = alive.load(Ordering::SeqCst);
        let job = bench.submit();
        (0..1000).for_each(|n| bench.feed.send(n));
        bench.feed.settle();
        let held = alive.load(Ordering::SeqCst);
        assert!(held >= prototypes + 1000);
        bench.hands.advance(ms(200));
        bench.feed.settle();
        let deadline = std::time::Instant::now() + PATIENCE;
        while alive.load(Ordering::SeqCst) > held - 1000 {
            assert!(std::time::Instant::now() < deadline, "{} of {held} are left", alive.load(Ordering::SeqCst));
            std::thread::yield_now();
        }
        assert_eq!(bench.end(&job).len(), 1000);
    });
}

#[test]
fn distinct_gives_a_key_again_once_it_was_forgotten() {
    leak_free(|_| {
        let bench: Bench<u32, u32> = Bench::new(0);
        bench.env.from_source(bench.source()).key_by(|n| *n).expire_after(ms(10)).distinct().sink_to(bench.sink());
        let job = bench.submit();
        for (wait, n) in [(0, 1), (9, 1), (9, 1), (0, 2), (10, 1), (30, 2)] {
            bench.hands.advance(ms(wait));
            bench.feed.send(n);
            bench.feed.settle();
        }
        assert_eq!(bench.end(&job), [1, 2, 1, 2]);
    });
}

#[test]
fn times_of_nothing_are_refused_before_the_start() {
    let refused = |env: &Environment, what: &str| match env.run().unwrap_err() {
        sage::RunError::Submit(error @ SubmitError::OperatorOption { .. }) => {
            assert!(error.to_string().contains(what), "{error}");
        }
        other => panic!("{other}"),
    };
    let env = Environment::local("nothing");
    env.from_iter([1]).key_by(|n| *n).window_by_clock(Tumbling::of(Duration::ZERO)).count().sink(|_| {});
    refused(&env, "1 ms");
    let env = Environment::local("nothing");
    env.from_iter([1]).key_by(|n| *n).expire_after(Duration::from_micros(999)).distinct().sink(|_| {});
    refused(&env, "`expire_after`");
}
