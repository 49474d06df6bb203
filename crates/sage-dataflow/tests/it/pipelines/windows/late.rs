//! Late records: counted, handed on, or let in by an allowed lateness.

use std::sync::{Arc, Mutex};

use sage::{Environment, Session, Timed, Tumbling};

use super::{Event, in_order, ms, one_shot, outcome, time_of, told};
use crate::leaks::leak_free;
use crate::probes::sorted;

#[test]
fn late_records_are_counted_and_handed_on() {
    leak_free(|_| {
        let late = Arc::new(Mutex::new(Vec::new()));
        let env = Environment::local("windows");
        let handed = late.clone();
        let events = [(5, 0, 0), (20, 0, 1), (4, 0, 2), (15, 0, 3), (9, 1, 4), (21, 1, 5)];
        let counts = env
            .from_source(one_shot(told(&events)))
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .late_to(move |record: Timed<Event>| handed.lock().expect("no holder panics").push(record.value))
            .count()
            .named("counts")
            .collect();
        let report = env.run().expect("the job succeeds");
        assert_eq!(*late.lock().expect("no holder panics"), [(4, 0, 2), (15, 0, 3), (9, 1, 4)]);
        assert_eq!(report.operator("counts").map(|counts| (counts.records_in, counts.late)), Some((6, 3)));
        assert!(report.to_string().contains("3 late"), "{report}");
        let windows = sorted(counts.take().iter().map(|it| (it.value.window.start.millis(), it.value.key)).collect());
        assert_eq!(windows, [(0, 0), (20, 0), (20, 1)]);
    });
}

#[test]
fn late_records_go_to_a_stream_of_their_own() {
    leak_free(|_| {
        for replicas in [1, 3] {
            let env = Environment::local("windows");
            let events = [(5, 0, 0), (20, 0, 1), (4, 0, 2), (15, 0, 3), (9, 1, 4), (21, 1, 5)];
            let (counts, late) = env
                .from_source(one_shot(told(&events)))
                .with_timestamps(time_of, in_order())
                .key_by(|timed| timed.value.1)
                .window(Tumbling::of(ms(10)))
                .count()
                .named("counts")
                .parallelism(replicas)
                .split_late();
            let (counts, late) = (counts.collect(), late.collect());
            let report = env.run().expect("the job succeeds");
            let late = sorted(late.take().into_iter().map(|record| record.value).collect());
            assert_eq!(late, [(4, 0, 2), (9, 1, 4), (15, 0, 3)]);
            assert_eq!(report.operator("counts").map(|counts| (counts.records_in, counts.late)), Some((6, 3)));
            let windows = counts.take().iter().map(|it| (it.value.window.start.millis(), it.value.key)).collect();
            assert_eq!(sorted(windows), [(0, 0), (20, 0), (20, 1)]);
        }
    });
}

#[test]
fn late_records_of_sessions_are_set_apart_and_need_not_be_wanted() {
    leak_free(|_| {
        let events = [(5, 0, 0), (40, 0, 1), (4, 0, 2), (3, 0, 3), (80, 0, 4)];
        let env = Environment::local("windows");
        let (sessions, late) = env
            .from_source(one_shot(told(&events)))
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Session::gap(ms(10)))
            .fold(Vec::new(), |all: &mut Vec<u32>, event: &Event| all.push(event.2))
            .split_late();
        // The side stream ends with its first record; the sessions go on.
        let (sessions, late) = (sessions.map(|it| it.value.value).collect(), late.take(1).collect());
        env.run().expect("the job succeeds");
        assert_eq!(sessions.take(), [vec![0], vec![1], vec![4]]);
        assert_eq!(late.take().iter().map(|record| record.value).collect::<Vec<_>>(), [(4, 0, 2)]);
    });
}

#[test]
fn lateness_makes_a_window_fire_again_and_then_ends() {
    leak_free(|_| {
        // At 20 the first window has fired; 4 is within the lateness, and 3 beyond it once the watermark is 31.
        let events = [(5, 0, 0), (20, 0, 1), (4, 0, 2), (4, 1, 3), (31, 0, 4), (3, 0, 5)];
        let env = Environment::local("windows");
        let counts = env
            .from_source(one_shot(told(&events)))
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .allowed_lateness(ms(20))
            .count()
            .named("counts")
            .map(|it| (it.value.window.start.millis(), it.value.key, it.value.value))
            .collect();
        let report = env.run().expect("the job succeeds");
        assert_eq!(counts.take(), [(0, 0, 1), (0, 0, 2), (0, 1, 1), (20, 0, 1), (30, 0, 1)]);
        assert_eq!(report.operator("counts").map(|counts| counts.late), Some(1));
    });
}

#[test]
fn a_late_record_merges_sessions_that_have_fired() {
    leak_free(|_| {
        let events = [(0, 0, 0), (12, 0, 1), (40, 0, 2), (6, 0, 3), (200, 0, 4), (1, 0, 5)];
        let env = Environment::local("windows");
        let out = env
            .from_source(one_shot(told(&events)))
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Session::gap(ms(10)))
            .allowed_lateness(ms(100))
            .apply(|_, _, values: &[Event]| values.iter().map(|event| event.2).collect::<Vec<u32>>())
            .named("sessions")
            .map(outcome)
            .collect();
        let report = env.run().expect("the job succeeds");
        let expected = [
            (0, 10, 0, vec![0]),
            (12, 22, 0, vec![1]),
            (0, 22, 0, vec![0, 1, 3]),
            (40, 50, 0, vec![2]),
            (200, 210, 0, vec![4]),
        ];
        assert_eq!(out.take(), expected);
        assert_eq!(report.operator("sessions").map(|sessions| sessions.late), Some(1));
    });
}
