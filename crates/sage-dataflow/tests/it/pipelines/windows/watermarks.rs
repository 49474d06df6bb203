//! When windows fire: as the watermark says, which the slowest source holds back and every exchange passes on.

use std::sync::mpsc::channel;

use sage::{DataStream, Environment, OutOfOrder, Timed, Tumbling};

use super::{Event, Told, in_order, ms, one_shot, time_of};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, sorted};

#[test]
fn a_window_fires_when_the_watermark_reaches_its_end_and_not_before() {
    leak_free(|_| {
        let (sender, receiver) = channel();
        let journal = Journal::new();
        let env = Environment::local("windows");
        let noted = journal.clone();
        env.from_source(one_shot(Told(receiver)))
            .with_timestamps(time_of, OutOfOrder::by(ms(3)))
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .count()
            .parallelism(2)
            .sink(move |result| noted.note(format!("{} {}", result.value.window, result.value.value)));
        let job = env.submit().expect("the job starts");
        // The watermark is 9 with the last of these: the window to 10 is still open.
        for time in [-4, 0, -1, 5, 12] {
            sender.send(Some((time, 0, 0))).expect("the source is here");
        }
        journal.await_events("[-10, 0) 2", 1);
        assert_eq!(journal.count("[0, 10) 2"), 0);
        sender.send(Some((13, 0, 0))).expect("the source is here");
        journal.await_events("[0, 10) 2", 1);
        drop(sender);
        job.wait().expect("the job succeeds");
        assert_eq!(journal.events(), ["[-10, 0) 2", "[0, 10) 2", "[10, 20) 2"]);
    });
}

/// Two sources: the one behind the gate holds the windows of the other back, whatever that has read.
#[test]
fn the_slower_of_two_sources_holds_windows_back() {
    leak_free(|_| {
        let gate = Gate::new();
        let journal = Journal::new();
        let env = Environment::local("windows").block_records(1);
        let passed = gate.clone();
        let slow = env.from_iter([1, 2, 3]).map(move |n| {
            passed.pass();
            (n, 0_u8, n as u32)
        });
        let seen = journal.clone();
        let fast = env.from_iter((0..100).map(|n| (n, 0_u8, 0_u32))).inspect(move |event| {
            if event.0 == 99 {
                seen.note("read");
            }
        });
        let slow = slow.with_timestamps(time_of, in_order());
        let fast = fast.with_timestamps(time_of, in_order());
        let noted = journal.clone();
        slow.union(fast)
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .count()
            .sink(move |result| noted.note(format!("{} {}", result.value.window, result.value.value)));
        let job = env.submit().expect("the job starts");
        gate.await_arrivals(1);
        journal.await_events("read", 1);
        assert_eq!(journal.events(), ["read"]);
        gate.open();
        job.wait().expect("the job succeeds");
        assert_eq!(journal.count("[0, 10) 13"), 1, "{:?}", journal.events());
        assert_eq!(journal.events().len(), 11);
    });
}

#[test]
fn an_idle_source_holds_nothing_back() {
    for apart in [false, true] {
        leak_free(|_| {
            let (sender, silent) = channel();
            let journal = Journal::new();
            let env = Environment::local("windows");
            let order = in_order().idle_after(ms(20));
            let silent = env.from_source(one_shot(Told(silent)));
            // Behind an exchange the chain with the timestamps waits for records, and has to wake by itself.
            let silent = match apart {
                true => silent.on_another_thread().with_timestamps(time_of, order).on_another_thread(),
                false => silent.with_timestamps(time_of, order).on_another_thread(),
            };
            let (busy_sender, busy) = channel();
            let busy = env.from_source(one_shot(Told(busy))).with_timestamps(time_of, in_order());
            let (noted, arrivals) = (journal.clone(), Journal::new());
            let arrived = arrivals.clone();
            silent
                .union(busy)
                .inspect(move |timed| arrived.note(timed.time.millis()))
                .key_by(|timed| timed.value.1)
                .window(Tumbling::of(ms(10)))
                .count()
                .sink(move |result| noted.note(format!("{} {}", result.value.window, result.value.value)));
            let job = env.submit().expect("the job starts");
            for time in [1, 11, 21] {
                busy_sender.send(Some((time, 0, 0))).expect("the source is here");
            }
            journal.await_events("[10, 20) 1", 1);
            // It comes back, and counts again: its record at 25 is in time, and holds the window back.
            sender.send(Some((25, 0, 0))).expect("the source is here");
            arrivals.await_events("25", 1);
            drop(sender);
            drop(busy_sender);
            job.wait().expect("the job succeeds");
            assert_eq!(journal.events(), ["[0, 10) 1", "[10, 20) 1", "[20, 30) 2"]);
        });
    }
}

#[test]
fn windows_follow_windows() {
    leak_free(|_| {
        let events: Vec<Event> = (0..1000).map(|n| (n - 300, (n % 3) as u8, 0)).collect();
        let env = Environment::local("windows").block_records(7);
        let totals = env
            .from_collection(events)
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .count()
            .parallelism(3)
            .key_by(|_| ())
            .window(Tumbling::of(ms(100)))
            .fold(0, |sum, count| *sum += count.value)
            .parallelism(2)
            .map(|it| (it.value.window.start.millis(), it.value.value))
            .collect();
        let report = env.run().expect("the job succeeds");
        assert_eq!(sorted(totals.take()), (-3..7).map(|n| (n * 100, 100)).collect::<Vec<_>>());
        assert!(report.operators.iter().all(|operator| operator.late == 0), "{report}");
    });
}

/// Watermarks go through every kind of exchange: each way, the first window is out before the sources end.
#[test]
fn watermarks_go_through_exchanges() {
    type Shape = fn(DataStream<Timed<Event>>) -> DataStream<Timed<Event>>;
    let shapes: [(&str, Shape, u64); 6] = [
        ("on another thread", |stream| stream.on_another_thread(), 1),
        ("rebalance", |stream| stream.rebalance(3), 1),
        ("broadcast", |stream| stream.broadcast(2), 2),
        (
            "tee",
            |stream| {
                let [left, right] = stream.tee();
                left.union(right)
            },
            2,
        ),
        (
            "operators",
            |stream| stream.filter(|timed| timed.value.0 >= 0).map(|timed| timed).parallelism(2).on_another_thread(),
            1,
        ),
        ("flat-map", |stream| stream.flat_map(|timed| vec![timed; 3]).on_another_thread(), 3),
    ];
    for (name, shape, copies) in shapes {
        leak_free(|_| {
            let (sender, receiver) = channel();
            let journal = Journal::new();
            let env = Environment::local(name);
            let noted = journal.clone();
            let timed =
                env.from_source(one_shot(Told(receiver))).with_timestamps(time_of, in_order()).on_another_thread();
            shape(timed)
                .key_by(|timed| timed.value.1)
                .window(Tumbling::of(ms(10)))
                .count()
                .parallelism(2)
                .sink(move |result| noted.note(format!("{} {}", result.value.window, result.value.value)));
            let job = env.submit().expect("the job starts");
            sender.send(Some((3, 0, 0))).expect("the source is here");
            sender.send(Some((11, 0, 0))).expect("the source is here");
            journal.await_events(&format!("[0, 10) {copies}"), 1);
            drop(sender);
            job.wait().expect("the job succeeds");
        });
    }
}
