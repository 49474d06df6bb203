//! What drivers of servers do when the server is not there, dies, stands still or is cut off.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use sage::testing::{self, Census};
use sage::{Batching, Environment, JobState, Policy, Retry, Verdict};
use sage_services::store::{Record, Schema, Search, StoreError, VectorStore};
use sage_services::wait;

use crate::proxy::Proxy;
use crate::server::{Server, free_port};

/// A kind of server, and how its store is made: with this schema, at this port, and so patient with a request.
pub(crate) struct Kind {
    pub(crate) command: fn(&Path, u16) -> Command,
    pub(crate) store: fn(Schema, u16, Duration) -> VectorStore,
}

macro_rules! faults {
    ($feature:literal, $kind:ident: $($fault:ident)*) => {
        #[cfg(feature = $feature)]
        mod $kind {
            $(
                #[test]
                fn $fault() {
                    super::$fault(&crate::$kind::KIND);
                }
            )*
        }
    };
}

macro_rules! faults_of_each {
    ($($fault:ident)*) => {
        faults! { "chroma", chroma: $($fault)* }
        faults! { "milvus", milvus: $($fault)* }
    };
}

faults_of_each! {
    a_server_that_is_not_there_is_an_outage
    a_job_waits_for_a_server_that_was_killed_and_loses_nothing
    what_four_writers_were_told_is_there_after_a_kill
    a_server_that_stands_still_is_waited_for_no_longer_than_was_said
    a_connection_that_is_cut_is_an_outage
    a_store_that_is_closed_waits_for_no_answer
    a_store_that_is_dropped_leaves_nothing
}

const PATIENT: Duration = Duration::from_secs(60);

fn schema() -> Schema {
    Schema::new("faults", 2)
}

fn record(id: impl Into<String>) -> Record {
    Record::new(id, vec![0.6, 0.8]).text("a text")
}

fn search() -> Search {
    Search::vector(vec![1.0, 0.0], 3)
}

fn opened(kind: &Kind, port: u16, patience: Duration) -> VectorStore {
    let store = (kind.store)(schema(), port, patience);
    wait(store.open()).unwrap();
    store
}

#[track_caller]
fn assert_verdict(error: &StoreError, expected: Verdict) {
    assert!(matches!(error, StoreError::Server { .. }) && error.verdict() == expected, "{error:?}");
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENT, "{what} took too long");
        thread::sleep(Duration::from_millis(10));
    }
}

fn a_server_that_is_not_there_is_an_outage(kind: &Kind) {
    let before = Census::take();
    let store = (kind.store)(schema(), free_port(), PATIENT);
    assert_verdict(&wait(store.open()).unwrap_err(), Verdict::Outage);
    before.expect_growth(&[]);
    wait(store.close()).unwrap();

    // A store whose server comes later, and goes, and comes again.
    let mut server = Server::start(kind.command);
    server.kill();
    let store = (kind.store)(schema(), server.port(), PATIENT);
    assert_verdict(&wait(store.open()).unwrap_err(), Verdict::Outage);
    server.restart();
    wait(store.open()).unwrap();
    wait(store.upsert(vec![record("a")])).unwrap();
    server.kill();
    assert_verdict(&wait(store.search(search())).unwrap_err(), Verdict::Outage);
    assert_verdict(&wait(store.upsert(vec![record("b")])).unwrap_err(), Verdict::Outage);
    assert_verdict(&wait(store.count()).unwrap_err(), Verdict::Outage);
    server.restart();
    assert_eq!(wait(store.search(search())).unwrap()[0].id, "a");
    assert_eq!(wait(store.delete(&["a", "b"])).unwrap(), 1);
    wait(store.close()).unwrap();
}

fn a_job_waits_for_a_server_that_was_killed_and_loses_nothing(kind: &Kind) {
    const RECORDS: usize = 40;
    let mut server = Server::start(kind.command);
    let (port, make) = (server.port(), kind.store);
    let policy = Policy::new().retry(Retry::up_to(2)).pause_on_outage(PATIENT);
    let env = Environment::local("killed");
    let store = env.register_async_service("store", move || make(schema(), port, PATIENT)).policy(policy).build();
    let (upsert, search) = (VectorStore::upsert_method(&store, Batching::of(1)), VectorStore::search_method(&store));
    let (upsert, search) = (upsert.build(), search.build());
    let (feed, source) = testing::source();
    let stored = Arc::new(AtomicUsize::new(0));
    let counted = stored.clone();
    env.from_source(move |_| source.clone())
        .try_map(move |number: usize| {
            upsert.call_blocking(record(format!("{number:02}")))?;
            search.call_blocking(Search::vector(vec![0.6, 0.8], 1))
        })
        .sink(move |hits| {
            assert_eq!(hits.len(), 1);
            counted.fetch_add(1, Ordering::Relaxed);
        });
    let job = env.submit().unwrap();
    (0..RECORDS / 2).for_each(|number| feed.send(number));
    until("the first half", || stored.load(Ordering::Relaxed) > RECORDS / 4);
    server.kill();
    (RECORDS / 2..RECORDS).for_each(|number| feed.send(number));
    feed.end();
    until("the pause", || job.status() == JobState::Paused);
    server.restart();
    let report = job.wait().unwrap();
    let policy = report.services[0].policy.as_ref().unwrap();
    assert!(policy.outages >= 1 && policy.failed == 0, "{report}");
    assert_eq!(stored.load(Ordering::Relaxed), RECORDS);
    let again = opened(kind, port, PATIENT);
    assert_eq!(wait(again.count()).unwrap(), RECORDS);
    wait(again.close()).unwrap();
}

fn what_four_writers_were_told_is_there_after_a_kill(kind: &Kind) {
    let mut server = Server::start(kind.command);
    let store = opened(kind, server.port(), PATIENT);
    let told = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for writer in 0..4 {
            let (store, told) = (&store, &told);
            scope.spawn(move || {
                for batch in 0.. {
                    let ids: Vec<String> = (0..10).map(|number| format!("{writer}-{batch}-{number}")).collect();
                    match wait(store.upsert(ids.iter().map(record).collect())) {
                        Ok(()) => told.lock().unwrap().extend(ids),
                        Err(error) => return assert_verdict(&error, Verdict::Outage),
                    }
                }
            });
        }
        until("the writing", || told.lock().unwrap().len() >= 400);
        server.kill();
    });
    server.restart();
    let told = told.into_inner().unwrap();
    let found = wait(store.get(&told)).unwrap();
    let lost: Vec<&String> = told.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(id, _)| id).collect();
    assert!(lost.is_empty(), "of {} records {} are lost: {lost:?}", told.len(), lost.len());
    wait(store.close()).unwrap();
}

fn a_server_that_stands_still_is_waited_for_no_longer_than_was_said(kind: &Kind) {
    let server = Server::start(kind.command);
    let store = opened(kind, server.port(), Duration::from_secs(2));
    wait(store.upsert(vec![record("a")])).unwrap();
    server.stand_still();
    let begin = Instant::now();
    assert_verdict(&wait(store.search(search())).unwrap_err(), Verdict::Passing(None));
    // A write may have been done or not; those after it come after it.
    assert_verdict(&wait(store.upsert(vec![record("b").text("first")])).unwrap_err(), Verdict::Passing(None));
    assert!(begin.elapsed() >= Duration::from_secs(4) && begin.elapsed() < Duration::from_secs(20));
    server.go_on();
    until("an answer", || wait(store.upsert(vec![record("b").text("second")])).is_ok());
    assert_eq!(wait(store.get(&["b"])).unwrap()[0].as_ref().unwrap().text, "second");
    wait(store.close()).unwrap();
}

fn a_connection_that_is_cut_is_an_outage(kind: &Kind) {
    let server = Server::start(kind.command);
    let mut proxy = Proxy::to(server.port());
    let store = opened(kind, proxy.port(), PATIENT);
    wait(store.upsert(vec![record("a")])).unwrap();
    server.stand_still();
    thread::scope(|scope| {
        let asked = [
            scope.spawn(|| wait(store.search(search())).map(drop)),
            scope.spawn(|| wait(store.upsert(vec![record("b")]))),
        ];
        // Both are on their way: each needs a connection, or a part of one, that is asked for within that time.
        thread::sleep(Duration::from_millis(300));
        proxy.close();
        for asked in asked {
            assert_verdict(&asked.join().unwrap().unwrap_err(), Verdict::Outage);
        }
    });
    assert_verdict(&wait(store.count()).unwrap_err(), Verdict::Outage);
    server.go_on();
    proxy.open();
    wait(store.upsert(vec![record("b")])).unwrap();
    assert_eq!(wait(store.count()).unwrap(), 2);
    wait(store.close()).unwrap();
}

fn a_store_that_is_closed_waits_for_no_answer(kind: &Kind) {
    let server = Server::start(kind.command);
    let before = Census::take();
    let store = opened(kind, server.port(), PATIENT);
    wait(store.upsert(vec![record("a")])).unwrap();
    server.stand_still();
    let mut searching = Box::pin(store.search(search()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(searching.as_mut().poll(&mut context).is_pending());
    let begin = Instant::now();
    wait(store.close()).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    before.expect_growth(&[]);
    assert!(matches!(wait(searching), Err(StoreError::Closed)));
    server.go_on();
}

fn a_store_that_is_dropped_leaves_nothing(kind: &Kind) {
    let server = Server::start(kind.command);
    let before = Census::take();
    let store = opened(kind, server.port(), PATIENT);
    wait(store.upsert(vec![record("a")])).unwrap();
    // One of which the future is dropped takes effect whole, or not at all.
    let mut upsert = Box::pin(store.upsert((0..100).map(|number| record(format!("{number:03}"))).collect()));
    assert!(upsert.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(upsert);
    wait(store.upsert(vec![record("b")])).unwrap();
    let count = wait(store.count()).unwrap();
    assert!(count == 2 || count == 102, "{count}");
    drop(store);
    before.expect_growth(&[]);
}
