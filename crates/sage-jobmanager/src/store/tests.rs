use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sage_api::home::Home;
use sage_api::job::{JobSpec, Limits, Program};
use tempfile::TempDir;

use super::*;
use crate::record;

fn manager() -> (TempDir, ManagerFolder) {
    let folder = tempfile::tempdir().unwrap();
    let manager = Home::at(folder.path()).manager(0);
    folder::make(&manager.jobs()).unwrap();
    (folder, manager)
}

fn record(number: u64, state: State) -> JobRecord {
    let spec = JobSpec {
        id: format!("{number:08x}-0000-4000-8000-000000000000"),
        number,
        name: format!("job {number} of a pipeline"),
        program: Program::File { path: "/usr/bin/true".into(), arguments: vec!["x".repeat(100)], python: None },
        folder: "/home/somebody/project".into(),
        variables: Vec::new(),
        autostop: false,
        limits: Limits::default(),
        submitted_ms: number,
        restart_count: 0,
        log_folder: "/tmp".into(),
    };
    let mut record = record::queued(&spec);
    (record.state, record.ended_ms) = (state, state.is_over().then_some(number));
    record
}

/// The least of some times that the thread was at work, in milliseconds: others use the processors as well.
fn least_ms(mut action: impl FnMut()) -> f64 {
    let at_work = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let times = (0..7).map(|_| {
        let begun = at_work();
        action();
        (at_work() - begun).as_secs_f64() * 1e3
    });
    times.fold(f64::INFINITY, f64::min)
}

#[test]
fn a_page_of_a_hundred_thousand_jobs_takes_milliseconds_whatever_is_asked() {
    let (_folder, manager) = manager();
    let mut store = Store::open(&manager).unwrap();
    let most = 100_000;
    store.connection.execute_batch("BEGIN").unwrap();
    for number in 1..=most {
        let state = if number % 50 == 0 { State::Failed } else { State::Succeeded };
        store.put_once(&record(number, state), Some(1000)).unwrap();
    }
    store.connection.execute_batch("COMMIT").unwrap();
    let asked = |states: &[State], name: &str, before| Asked {
        states: states.to_vec(),
        name: name.to_owned(),
        before,
        limit: 101,
    };
    let cases = [
        ("the first page", asked(&[], "", None), most, 101),
        ("a later page", asked(&[], "", Some(500)), most, 101),
        ("of a state", asked(&[State::Failed], "", None), most / 50, 101),
        ("of a state that no job is in", asked(&[State::Running], "", None), 0, 0),
        ("of two states", asked(&[State::Failed, State::Succeeded], "", None), most, 101),
        ("by a name", asked(&[], "JOB 99", None), 1111, 101),
        ("by a name that one has", asked(&[], "job 1 of", None), 1, 1),
        ("by a name that nobody has", asked(&[], "nobody", Some(90_000)), 0, 0),
        ("by what would be a pattern", asked(&[], "job_1%", None), 0, 0),
        ("by a name and a state", asked(&[State::Failed], "JOB 99", None), 22, 22),
    ];
    for (what, asked, total, count) in cases {
        let (records, found) = store.page(&asked).unwrap();
        assert_eq!((found, records.len()), (total, count), "{what}");
        assert!(records.windows(2).all(|two| two[0].number > two[1].number), "{what}");
        let took = least_ms(|| drop(store.page(&asked).unwrap()));
        assert!(took <= 50.0, "{what} takes {took:.1} ms");
    }
    for (what, took) in [
        ("counts", least_ms(|| drop(store.counts().unwrap()))),
        ("what is over", least_ms(|| assert_eq!(store.ended_size().unwrap().0, most))),
        ("the oldest", least_ms(|| drop(store.oldest_ended(100).unwrap()))),
        ("a prefix", least_ms(|| drop(store.by_prefix("0001").unwrap()))),
        ("a change", least_ms(|| store.put(&record(most, State::Failed)).unwrap())),
    ] {
        assert!(took <= 50.0, "{what} takes {took:.1} ms");
    }
}

#[test]
fn changes_are_told_once_and_in_their_order_from_any_of_them_on() {
    let (_folder, manager) = manager();
    let mut store = Store::open(&manager).unwrap();
    for number in 1..=5 {
        store.put(&record(number, State::Queued)).unwrap();
    }
    let middle = store.change();
    store.put(&record(2, State::Running)).unwrap();
    store.put(&record(6, State::Queued)).unwrap();
    store.put(&record(2, State::Succeeded)).unwrap();
    let (records, last) = store.since(middle, 100).unwrap();
    let told: Vec<_> = records.iter().map(|record| (record.number, record.state)).collect();
    // What changed twice is told as it is.
    assert_eq!((told, last), (vec![(6, State::Queued), (2, State::Succeeded)], store.change()));
    let (records, last) = store.since(0, 2).unwrap();
    assert_eq!((records.len(), records[0].number), (2, 1));
    assert_eq!(store.since(last, 100).unwrap().0.len(), 4);
    assert_eq!(store.since(store.change(), 100).unwrap().0.len(), 0);
}

#[test]
fn no_number_is_given_twice_also_if_the_records_are_gone() {
    let (_folder, manager) = manager();
    let mut given = Vec::new();
    for round in 0..6 {
        let mut store = Store::open(&manager).unwrap();
        for _ in 0..70 {
            given.push(store.next_number().unwrap());
        }
        drop(store);
        if round % 2 == 1 {
            files_of(&manager.records()).iter().for_each(|file| drop(std::fs::remove_file(file)));
        }
    }
    assert_eq!(given[..140], (1..=140).collect::<Vec<u64>>());
    assert!(given.windows(2).all(|two| two[0] < two[1]), "{given:?}");
}
