//! Steps: named in signatures, told more in any order, and functions that fail and have something to open.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sage::{
    AsyncFunction, BoxError, CloseContext, DataStream, DeadLetter, Emit, Environment, ErrorPolicy, Fault, FoldFunction,
    KeyContext, OpenContext, Operator, Order, OutOfOrder, ParallelStep, Pipe, ProcessFunction, Retry, Step, Stop,
    Stream, Timer, Timestamp, Tumbling,
};

use crate::leaks::leak_free;
use crate::probes::{failed, sorted};

/// Any stream in, and a step that can still be told more out.
fn parsed(texts: Stream<impl Pipe<Out = &'static str>>) -> Stream<impl ParallelStep<In = &'static str, Out = u32>> {
    texts.try_map(|text| text.parse::<u32>())
}

/// Whatever the step is, its failures go away.
fn safely<P: Step<In: Clone>>(step: Stream<P>) -> (Stream<impl Step<Out = P::Out>>, DataStream<DeadLetter<P::In>>) {
    step.dead_letters()
}

fn no_wait() -> Retry {
    Retry::up_to(2).backoff(Duration::ZERO, Duration::ZERO)
}

#[test]
fn a_signature_can_say_what_a_stream_and_a_step_are() {
    leak_free(|_| {
        let env = Environment::local("named");
        let (numbers, dead) = safely(parsed(env.from_iter(["1", "x", "3"])).parallelism(2).named("parse"));
        let (numbers, dead) = (numbers.collect(), dead.collect());
        let report = env.run().unwrap();
        assert_eq!(sorted(numbers.take()), [1, 3]);
        assert_eq!(dead.take()[0].record, "x");
        assert_eq!(report.operator("parse").unwrap().parallelism, 2);
    });
}

#[test]
fn what_is_said_of_a_step_comes_in_any_order() {
    leak_free(|_| {
        let texts = ["1", "x", "3"];
        let run = |declare: fn(Stream<Box_>) -> (DataStream<u32>, DataStream<DeadLetter<&'static str>>)| {
            let env = Environment::local("order");
            let (numbers, dead) = declare(env.from_iter(texts).on_another_thread());
            let (numbers, dead) = (numbers.collect(), dead.collect());
            let report = env.run().unwrap();
            let parse = report.operator("parse").unwrap().clone();
            let letter = &dead.take()[0];
            let found = (sorted(numbers.take()), letter.record, letter.attempts, parse.parallelism, parse.retries);
            assert_eq!(found, (vec![1, 3], "x", 2, 2, 1));
        };
        run(|texts| {
            let (numbers, dead) = parsed(texts).named("parse").parallelism(2).retry(no_wait()).dead_letters();
            (numbers.on_another_thread(), dead)
        });
        run(|texts| {
            let (numbers, dead) = texts.try_map(|text| text.parse::<u32>()).dead_letters();
            (numbers.retry(no_wait()).parallelism(2).named("parse").on_another_thread(), dead)
        });
        run(|texts| {
            let (numbers, dead) =
                texts.try_map(|text| text.parse::<u32>()).retry(no_wait()).parallelism(2).dead_letters();
            (numbers.named("parse").on_error(ErrorPolicy::fail()).on_another_thread(), dead)
        });
        run(|texts| {
            let parse = |text: &'static str| std::future::ready(text.parse::<u32>());
            let (numbers, dead) = texts.try_map_async(4, Order::Unordered, parse).dead_letters();
            (
                numbers
                    .parallelism(2)
                    .timeout(Duration::from_secs(60))
                    .retry(no_wait())
                    .named("parse")
                    .on_another_thread(),
                dead,
            )
        });
    });
}

type Box_ = <DataStream<&'static str> as Inner>::Pipe;
trait Inner {
    type Pipe;
}
impl<P: Pipe> Inner for Stream<P> {
    type Pipe = P;
}

#[test]
fn late_records_are_split_off_before_or_after_the_replicas() {
    leak_free(|_| {
        for first in [true, false] {
            let env = Environment::local("late").block_records(1);
            let windows = env
                .from_iter([1_000, 5_000, 9_000, 1_500])
                .on_another_thread()
                .with_timestamps(|&millis| Timestamp::from_millis(millis), OutOfOrder::by(Duration::ZERO))
                .key_by(|_| ())
                .window(Tumbling::of(Duration::from_secs(2)))
                .count();
            let (counts, late) = if first {
                let (counts, late) = windows.split_late();
                (counts.parallelism(2).on_another_thread(), late)
            } else {
                let (counts, late) = windows.parallelism(2).split_late();
                (counts.on_another_thread(), late)
            };
            let (counts, late) = (counts.collect(), late.collect());
            env.run().unwrap();
            let counted: u64 = counts.take().iter().map(|count| count.value.value).sum();
            assert_eq!(counted + late.take().len() as u64, 4);
        }
    });
}

/// What was opened and closed, and how often.
type Journal = Arc<Mutex<Vec<&'static str>>>;

#[derive(Clone)]
struct Fallible(Journal);

impl Fallible {
    fn note(&self, what: &'static str) {
        self.0.lock().expect("nobody panics with the lock").push(what);
    }
}

impl FoldFunction<u32, &'static str> for Fallible {
    fn open(&mut self, _cx: &OpenContext) -> Result<(), BoxError> {
        self.note("open");
        Ok(())
    }
    fn fold(&mut self, sum: &mut u32, text: &'static str) -> Result<(), BoxError> {
        *sum += text.parse::<u32>()?;
        Ok(())
    }
    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.note("close");
        Ok(())
    }
}

impl FoldFunction<u32, &&'static str> for Fallible {
    fn open(&mut self, _cx: &OpenContext) -> Result<(), BoxError> {
        self.note("open");
        Ok(())
    }
    fn fold(&mut self, sum: &mut u32, text: &&'static str) -> Result<(), BoxError> {
        *sum += text.parse::<u32>()?;
        Ok(())
    }
    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.note("close");
        Ok(())
    }
}

impl ProcessFunction<&'static str, (), u32, u32> for Fallible {
    fn open(&mut self, _cx: &OpenContext) -> Result<(), BoxError> {
        self.note("open");
        Ok(())
    }
    fn on_record(
        &mut self,
        sum: &mut u32,
        text: &'static str,
        key: &mut KeyContext<'_, '_, (), u32>,
    ) -> Result<(), BoxError> {
        *sum += text.parse::<u32>()?;
        key.push(*sum);
        if text == "9" {
            key.set(Timer::Event(Timestamp::MIN));
        }
        Ok(())
    }
    fn on_timer(&mut self, _: &mut u32, _: Timer, _: &mut KeyContext<'_, '_, (), u32>) -> Result<(), BoxError> {
        Err("no timer is expected".into())
    }
    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.note("close");
        Ok(())
    }
}

impl AsyncFunction<&'static str> for Fallible {
    type Out = u32;
    type Future = std::future::Ready<Result<u32, std::num::ParseIntError>>;

    fn open(&mut self, _cx: &OpenContext) -> Result<(), BoxError> {
        self.note("open");
        Ok(())
    }
    fn call(&mut self, text: &'static str) -> Self::Future {
        std::future::ready(text.parse())
    }
    fn result(output: Result<u32, std::num::ParseIntError>) -> Result<u32, BoxError> {
        Ok(output?)
    }
    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.note("close");
        Ok(())
    }
}

#[test]
fn functions_that_fail_and_have_something_to_open_are_asked_once_and_their_policy_holds() {
    leak_free(|_| {
        type Declare = fn(DataStream<&'static str>, Fallible) -> DataStream<u32>;
        let declared: [(Declare, &[u32]); 5] = [
            (|texts, f| texts.fold_with(0, f).on_error(ErrorPolicy::skip()).on_another_thread(), &[4]),
            (
                |texts, f| {
                    texts
                        .key_by(|_| ())
                        .fold_with(0, f)
                        .on_error(ErrorPolicy::skip())
                        .map(|pair| pair.1)
                        .on_another_thread()
                },
                &[4],
            ),
            (
                |texts, f| {
                    let timed = texts.with_timestamps(|_| Timestamp::from_millis(0), OutOfOrder::by(Duration::ZERO));
                    let windows = timed.key_by(|_| ()).window(Tumbling::of(Duration::from_secs(1)));
                    windows.fold_with(0, f).on_error(ErrorPolicy::skip()).map(|sum| sum.value.value).on_another_thread()
                },
                &[4],
            ),
            (
                |texts, f| texts.key_by(|_| ()).process_with(0, f).on_error(ErrorPolicy::skip()).on_another_thread(),
                &[1, 4],
            ),
            (
                |texts, f| texts.map_async_with(4, Order::Ordered, f).on_error(ErrorPolicy::skip()).on_another_thread(),
                &[1, 3],
            ),
        ];
        for (number, (declare, expected)) in declared.into_iter().enumerate() {
            let (journal, env) = (Journal::default(), Environment::local("fallible"));
            let results =
                declare(env.from_iter(["1", "x", "3"]).on_another_thread(), Fallible(journal.clone())).collect();
            let report = env.run().unwrap();
            assert_eq!(results.take(), expected, "{number}");
            assert_eq!(*journal.lock().unwrap(), ["open", "close"], "{number}");
            assert_eq!(report.operators.iter().map(|operator| operator.failed).sum::<u64>(), 1, "{number}");
        }
    });
}

#[test]
fn an_error_of_a_timer_fails_the_job_whatever_the_policy() {
    leak_free(|_| {
        let env = Environment::local("timer");
        env.from_iter(["1", "9"])
            .key_by(|_| ())
            .process_with(0, Fallible(Journal::default()))
            .named("sums")
            .on_error(ErrorPolicy::skip())
            .sink(|_| {});
        let cause = failed(env.run()).first_cause.unwrap();
        assert!(cause.to_string().contains("sums") && cause.message == "no timer is expected", "{cause}");
    });
}

#[test]
fn an_error_of_a_timer_is_no_dead_letter() {
    leak_free(|_| {
        let env = Environment::local("timer");
        let sums = env.from_iter(["1", "9"]).key_by(|_| ()).process_with(0, Fallible(Journal::default()));
        let (sums, letters) = sums.dead_letters();
        let letters = letters.collect();
        sums.sink(|_| {});
        let cause = failed(env.run()).first_cause.unwrap();
        assert_eq!(cause.message, "no timer is expected");
        assert!(letters.take().is_empty());
    });
}

/// Fails on each record at first, after it has changed the state, set a timer and pushed.
#[derive(Clone)]
struct FailsAtFirst;

impl ProcessFunction<u32, (), u32, String> for FailsAtFirst {
    fn on_record(
        &mut self,
        attempts: &mut u32,
        record: u32,
        key: &mut KeyContext<'_, '_, (), String>,
    ) -> Result<(), BoxError> {
        *attempts += 1;
        key.set(Timer::Event(Timestamp::from_millis((*attempts).into())));
        key.push(format!("{record} at attempt {attempts}"));
        if *attempts % 2 == 1 { Err("try again".into()) } else { Ok(()) }
    }
    fn on_timer(
        &mut self,
        _attempts: &mut u32,
        timer: Timer,
        key: &mut KeyContext<'_, '_, (), String>,
    ) -> Result<(), BoxError> {
        key.push(format!("timer {}", timer.moment().millis()));
        Ok(())
    }
}

#[test]
fn an_attempt_of_process_that_failed_leaves_its_state_and_timers_and_emits_nothing() {
    leak_free(|_| {
        let env = Environment::local("again");
        let emitted = env
            .from_iter([7, 8])
            .with_timestamps(|_| Timestamp::from_millis(0), OutOfOrder::by(Duration::ZERO))
            .map(|timed| timed.value)
            .key_by(|_| ())
            .process_with(0, FailsAtFirst)
            .retry(no_wait())
            .collect();
        env.run().unwrap();
        let emitted = emitted.take();
        assert_eq!(emitted[..2], ["7 at attempt 2", "8 at attempt 4"]);
        assert_eq!(emitted[2..], [1, 2, 3, 4].map(|moment| format!("timer {moment}")));
    });
}

#[test]
fn a_retry_that_a_cancel_ends_emits_nothing() {
    leak_free(|_| {
        let (env, journal, emitted) = (Environment::local("cancelled"), Journal::default(), Journal::default());
        let (calls, called) = std::sync::mpsc::channel();
        let (noted, out) = (journal.clone(), emitted.clone());
        env.from_iter([1])
            .operator(move || Pushes(noted.clone(), calls.clone()))
            .retry(Retry::up_to(3).backoff(Duration::from_secs(3600), Duration::from_secs(3600)))
            .sink(move |_| out.lock().expect("nobody panics with the lock").push("emitted"));
        let job = env.submit().unwrap();
        called.recv().unwrap();
        job.cancel();
        assert!(job.wait().is_err());
        assert_eq!((journal.lock().unwrap().len(), emitted.lock().unwrap().len()), (1, 0));
    });
}

/// Emits each record, and fails.
struct Pushes(Journal, std::sync::mpsc::Sender<()>);

impl Operator for Pushes {
    type In = i32;
    type Out = i32;

    fn process(&mut self, record: i32, out: &mut impl Emit<i32>) -> Result<(), Fault> {
        self.0.lock().expect("nobody panics with the lock").push("called");
        out.emit(record)?;
        self.1.send(()).expect("the test is here");
        Err(Fault::Error("try again".into()))
    }
}

#[test]
fn the_last_record_of_an_operator_that_has_enough_is_not_lost_where_outputs_are_held() {
    leak_free(|_| {
        for way in ["retry", "letters", "skip"] {
            let env = Environment::local("held").on_error(ErrorPolicy::skip());
            let source = env.from_iter(0..100);
            let taken = match way {
                "retry" => source.take(3).retry(no_wait()).collect(),
                "letters" => {
                    let (taken, letters) = source.take(3).dead_letters();
                    letters.sink(drop);
                    taken.collect()
                }
                _ => source.operator(|| Enough(3)).collect(),
            };
            env.run().unwrap();
            assert_eq!(taken.take(), [0, 1, 2], "{way}");
        }
    });
}

/// Passes on so many records, and says with the last one that it wants no more.
struct Enough(usize);

impl Operator for Enough {
    type In = i32;
    type Out = i32;

    fn process(&mut self, record: i32, out: &mut impl Emit<i32>) -> Result<(), Fault> {
        self.0 -= 1;
        out.emit(record)?;
        if self.0 == 0 { Err(Stop::Satisfied.into()) } else { Ok(()) }
    }
}

/// Holds records back until it is told to flush.
#[derive(Default)]
struct HoldsBack(Vec<u32>);

impl Operator for HoldsBack {
    type In = u32;
    type Out = u32;

    fn process(&mut self, record: u32, _out: &mut impl Emit<u32>) -> Result<(), Fault> {
        self.0.push(record);
        Ok(())
    }
    fn flush(&mut self, out: &mut impl Emit<u32>) -> Result<(), Fault> {
        self.0.drain(..).try_for_each(|record| out.emit(record))
    }
    fn finish(&mut self, out: &mut impl Emit<u32>) -> Result<(), Fault> {
        self.flush(out)
    }
}

/// Holds timed records back until it is told to flush.
#[derive(Default)]
struct HoldsTimed(Vec<sage::Timed<i64>>);

impl Operator for HoldsTimed {
    type In = sage::Timed<i64>;
    type Out = sage::Timed<i64>;

    fn process(&mut self, record: sage::Timed<i64>, _out: &mut impl Emit<sage::Timed<i64>>) -> Result<(), Fault> {
        self.0.push(record);
        Ok(())
    }
    fn flush(&mut self, out: &mut impl Emit<sage::Timed<i64>>) -> Result<(), Fault> {
        self.0.drain(..).try_for_each(|record| out.emit(record))
    }
    fn finish(&mut self, out: &mut impl Emit<sage::Timed<i64>>) -> Result<(), Fault> {
        self.flush(out)
    }
}

#[test]
fn a_watermark_does_not_overtake_records_that_an_operator_holds_back() {
    leak_free(|_| {
        let env = Environment::local("held-back").block_records(4);
        let counts = env
            .from_iter(0..10_000_i64)
            .with_timestamps(|&n| Timestamp::from_millis(n), OutOfOrder::by(Duration::ZERO))
            .on_another_thread()
            .operator(HoldsTimed::default)
            .key_by(|_| ())
            .window(Tumbling::of(Duration::from_millis(7)))
            .count()
            .named("windows")
            .collect();
        let report = env.run().unwrap();
        assert_eq!(report.operator("windows").unwrap().late, 0);
        assert_eq!(counts.take().iter().map(|count| count.value.value).sum::<u64>(), 10_000);
    });
}

#[test]
fn a_loop_does_not_end_with_records_that_an_operator_of_it_holds_back() {
    leak_free(|_| {
        for _ in 0..5 {
            let env = Environment::local("loop");
            let (again, feedback) = env.feedback("again");
            let (done, more) = env.from_iter([40_u32, 3]).union(again).operator(HoldsBack::default).split(|n| *n == 0);
            feedback.fill(more.map(|n| n - 1));
            let done = done.collect();
            env.run().unwrap();
            assert_eq!(done.take(), [0, 0]);
        }
    });
}
