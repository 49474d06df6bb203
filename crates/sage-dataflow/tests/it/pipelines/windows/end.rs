//! How windows end: by the end of input, a drain, a cancel or a failure; and those that never begin.

use std::sync::mpsc::channel;
use std::time::Duration;

use sage::{
    Count, DataStream, Emit, Environment, Fault, Operator, Order, OutOfOrder, RunError, Session, Sliding, SubmitError,
    Timed, Timestamp, Tumbling, Window,
};

use super::{Event, Told, in_order, ms, one_shot, outcome, time_of};
use crate::leaks::leak_free;
use crate::probes::Journal;

#[test]
fn a_drain_fires_the_open_windows_and_a_cancel_does_not() {
    for cancel in [false, true] {
        leak_free(|_| {
            let (sender, receiver) = channel();
            let journal = Journal::new();
            let env = Environment::local("windows");
            let (noted, read) = (journal.clone(), journal.clone());
            env.from_source(one_shot(Told(receiver)))
                .inspect(move |_| read.note("read"))
                .with_timestamps(time_of, in_order())
                .key_by(|timed| timed.value.1)
                .window(Session::gap(ms(10)))
                .count()
                .sink(move |result| noted.note(result.value.window));
            let job = env.submit().expect("the job starts");
            sender.send(Some((3, 0, 0))).expect("the source is here");
            journal.await_events("read", 1);
            if cancel {
                job.cancel();
            } else {
                job.drain();
            }
            let ended = job.wait();
            assert_eq!(ended.is_ok(), !cancel);
            assert_eq!(journal.count("[3, 13)"), usize::from(!cancel));
        });
    }
}

#[test]
fn a_panic_in_a_window_names_its_operator() {
    leak_free(|_| {
        let env = Environment::local("windows");
        env.from_iter([(1_i64, 0_u8, 0_u32), (50, 0, 0)])
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .apply(|_, _: Window, _: &[Event]| -> u32 { panic!("no result") })
            .named("broken")
            .sink(|_| {});
        let error = env.run().expect_err("the function panics");
        assert!(error.to_string().contains("failed"), "{error}");
        let report = error.report().expect("there is a report");
        let cause = report.first_cause.as_ref().expect("there is a cause").to_string();
        assert!(cause.contains("operator `broken`") && cause.contains("no result"), "{cause}");
    });
}

#[test]
fn an_early_end_downstream_ends_the_windows() {
    leak_free(|_| {
        let env = Environment::local("windows");
        let first = env
            .from_factory(|_replica| (0_i64..).map(|n| (n, 0_u8, 0_u32)))
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .count()
            .take(2)
            .map(|it| it.value.value)
            .collect();
        env.run().expect("the job succeeds");
        assert_eq!(first.take(), [10, 10]);
    });
}

#[test]
fn an_environment_with_windows_runs_again() {
    leak_free(|_| {
        let env = Environment::local("windows");
        let out = env
            .from_collection(vec![(1_i64, 0_u8, 7_u32), (2, 0, 8), (30, 0, 9)])
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Sliding::of(ms(20), ms(10)))
            .apply(|_, _, values: &[Event]| values.iter().map(|event| event.2).collect::<Vec<u32>>())
            .map(outcome)
            .collect();
        for _ in 0..2 {
            env.run().expect("the job succeeds");
            let expected =
                [(-10, 10, 0, vec![7, 8]), (0, 20, 0, vec![7, 8]), (20, 40, 0, vec![9]), (30, 50, 0, vec![9])];
            assert_eq!(out.take(), expected);
        }
    });
}

#[test]
fn windows_of_nothing_are_refused_before_anything_starts() {
    let problem = |declare: &dyn Fn(DataStream<Timed<Event>>)| {
        let env = Environment::local("windows");
        declare(env.from_iter([(1_i64, 0_u8, 0_u32)]).with_timestamps(time_of, in_order()).on_another_thread());
        match env.run() {
            Err(RunError::Submit(SubmitError::OperatorOption { operator, message: problem })) => {
                assert_eq!(operator, "wrong");
                problem
            }
            other => panic!("{other:?}"),
        }
    };
    macro_rules! wrong {
        ($windows:expr) => {
            problem(&|stream| {
                stream.key_by(|timed| timed.value.1).window($windows).count().named("wrong").sink(|_| {});
            })
        };
    }
    assert!(wrong!(Tumbling::of(Duration::ZERO)).contains("shorter than 1 ms"));
    assert!(wrong!(Tumbling::of(Duration::from_micros(999))).contains("shorter than 1 ms"));
    assert!(wrong!(Sliding::of(ms(5), Duration::ZERO)).contains("shorter than 1 ms"));
    assert!(wrong!(Sliding::of(ms(5), ms(6))).contains("would be in none"));
    assert!(wrong!(Session::gap(Duration::ZERO)).contains("gap"));
    assert!(wrong!(Count::of(0)).contains("no record"));
    assert!(
        problem(&|stream| {
            stream
                .with_timestamps(|timed| timed.time, in_order().idle_after(Duration::ZERO))
                .named("wrong")
                .sink(|_| {});
        })
        .contains("idle_after")
    );
}

/// Emits what it was given when its input has ended.
struct AtTheEnd(Vec<Timed<i64>>);

impl Operator for AtTheEnd {
    type In = Timed<i64>;
    type Out = Timed<i64>;

    fn process(&mut self, record: Timed<i64>, _out: &mut impl Emit<Timed<i64>>) -> Result<(), Fault> {
        self.0.push(record);
        Ok(())
    }

    fn finish(&mut self, out: &mut impl Emit<Timed<i64>>) -> Result<(), Fault> {
        self.0.drain(..).try_for_each(|record| out.emit(record))
    }
}

#[test]
fn what_an_operator_emits_at_the_end_of_input_is_not_late_behind_it() {
    type Gathered = fn(DataStream<Timed<i64>>) -> DataStream<Timed<i64>>;
    let gathered: [(&str, Gathered); 6] = [
        ("operator", |timed| timed.operator(|| AtTheEnd(Vec::new())).on_another_thread()),
        ("fused", |timed| {
            timed
                .operator(|| AtTheEnd(Vec::new()))
                .map(|timed| timed)
                .on_another_thread()
                .filter(|_| true)
                .on_another_thread()
        }),
        ("reduce", |timed| {
            timed.key_by(|timed| timed.value).reduce(|_, last| last).map(|pair| pair.1).on_another_thread()
        }),
        ("async", |timed| {
            let slowly = |timed: Timed<i64>| async move {
                tokio::task::yield_now().await;
                timed
            };
            timed.operator(|| AtTheEnd(Vec::new())).map_async(4, Order::Unordered, slowly).on_another_thread()
        }),
        ("fold", |timed| timed.fold(Vec::new(), Vec::push).flat_map(|records| records).on_another_thread()),
        ("count windows", |timed| {
            let windows = timed.key_by(|timed| timed.value).window(Count::of(3)).apply(|n, _, _| *n);
            windows.map(|it| Timed { time: it.time, value: it.value.value }).on_another_thread()
        }),
    ];
    for (name, gathered) in gathered {
        leak_free(|_| {
            let env = Environment::local(name);
            // No watermark but the last one comes before the end.
            let order = OutOfOrder::by(ms(60_000));
            let timed =
                env.from_iter(0..10_i64).with_timestamps(|&n| Timestamp::from_millis(n), order).on_another_thread();
            let windows = gathered(timed).key_by(|_| ()).window(Tumbling::of(ms(2))).count().named("windows");
            let counted = windows.map(|it| it.value.value).collect();
            let report = env.run().expect("the job succeeds");
            let late = report.operator("windows").expect("it is there").late;
            assert_eq!((counted.take(), late), (vec![2; 5], 0), "{name}");
        });
    }
}
