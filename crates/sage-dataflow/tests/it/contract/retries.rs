//! Clause 4: what waits for its next attempt ends by the drain's deadline, as it does not wait any more; and a future
//! past its timeout is gone.

use std::time::Duration;

use sage::{Environment, ErrorPolicy, JobReport, Order, Outcome, Retry, RunError, testing};

use crate::leaks::leak_free;
use crate::probes::{Journal, failed};

const HOUR: Duration = Duration::from_secs(3600);

/// Five attempts, of which the first two are an hour apart.
fn patient() -> Retry {
    Retry::up_to(5).backoff(HOUR, HOUR)
}

/// What becomes of a record whose attempts all fail.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Fail,
    Skip,
    Letter,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Plain,
    Async(Order),
}

const HOWS: [How; 3] = [How::Plain, How::Async(Order::Ordered), How::Async(Order::Unordered)];

/// Drains a job whose `records` wait for their second attempts, which succeed if `then` says nothing else. Returns how
/// the job ended, how many attempts were made, what came through and how many letters did, with their attempts.
fn drained(how: How, records: u32, then: Option<Then>) -> (Result<JobReport, RunError>, usize, Vec<u32>, Vec<u32>) {
    let env = Environment::local("drained");
    let journal = Journal::new();
    let tried = journal.clone();
    let (feed, source) = testing::source();
    (0..records).for_each(|n| feed.send(n));
    let ask = move |n: u32| {
        let again = tried.events().iter().any(|event| *event == n.to_string());
        tried.note(n);
        tried.note("tried");
        if again && then.is_none() { Ok(n) } else { Err("not yet") }
    };
    let stream = env.from_source(move |_| source.clone());
    let policy = if then == Some(Then::Skip) { ErrorPolicy::skip() } else { ErrorPolicy::fail() };
    let (came, letters) = match (how, then == Some(Then::Letter)) {
        (How::Plain, false) => (stream.try_map(ask).on_error(policy).retry(patient()).collect(), None),
        (How::Plain, true) => {
            let (came, letters) = stream.try_map(ask).retry(patient()).dead_letters();
            (came.collect(), Some(letters.collect()))
        }
        (How::Async(order), letters) => {
            let asked = stream.try_map_async(8, order, move |n| std::future::ready(ask(n))).retry(patient());
            match letters {
                false => (asked.on_error(policy).collect(), None),
                true => {
                    let (came, letters) = asked.dead_letters();
                    (came.collect(), Some(letters.collect()))
                }
            }
        }
    };
    let job = env.submit().expect("it can be submitted");
    journal.await_events("tried", records as usize);
    job.drain();
    let ended = job.wait();
    let letters = letters.map_or_else(Vec::new, |letters| letters.take());
    (ended, journal.count("tried"), came.take(), letters.iter().map(|letter| letter.attempts).collect())
}

#[test]
fn contract_04_a_drain_cuts_the_wait_for_the_next_attempt_short() {
    leak_free(|_| {
        for how in HOWS {
            // A function that is called by itself holds up those behind the record.
            let records = if how == How::Plain { 1 } else { 5 };
            let (ended, tried, mut came, _) = drained(how, records, None);
            came.sort_unstable();
            assert!(ended.is_ok(), "{how:?}: {}", ended.unwrap_err());
            assert_eq!((tried, came), (2 * records as usize, (0..records).collect()), "{how:?}");
        }
    });
}

#[test]
fn contract_04_the_attempt_that_a_drain_has_made_at_once_is_the_last_one() {
    leak_free(|_| {
        for how in HOWS {
            let records = if how == How::Plain { 1 } else { 5 };
            let (ended, ..) = drained(how, records, Some(Then::Fail));
            let report = failed(ended);
            assert_eq!(report.outcome, Outcome::Failed, "{how:?}: {report}");
            assert!(report.first_cause.as_ref().is_some_and(|cause| cause.to_string().contains("gave up after 2")));
            let (ended, tried, came, _) = drained(how, records, Some(Then::Skip));
            assert_eq!(
                (ended.unwrap().operators[1].failed, tried, came),
                (records.into(), 2 * records as usize, vec![])
            );
            let (ended, _, came, letters) = drained(how, records, Some(Then::Letter));
            assert!(ended.is_ok(), "{how:?}");
            assert_eq!((came, letters), (vec![], vec![2; records as usize]), "{how:?}");
        }
    });
}

#[test]
fn contract_04_a_cancel_ends_the_wait_for_a_future_that_is_made_again() {
    leak_free(|_| {
        let env = Environment::local("cancelled");
        let journal = Journal::new();
        let tried = journal.clone();
        env.from_iter([1])
            .try_map_async(8, Order::Ordered, move |_: u32| {
                tried.note("tried");
                std::future::ready(Err::<u32, _>("never"))
            })
            .retry(patient())
            .sink(|_| {});
        let job = env.submit().unwrap();
        journal.await_events("tried", 1);
        super::cancelled(&job);
        assert_eq!(journal.count("tried"), 1);
    });
}

/// Tells when it is dropped.
struct Tells(Journal);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.note("dropped");
    }
}

/// A future that holds a connection has let go of it when anybody hears of its timeout.
#[test]
fn contract_12_a_future_past_its_timeout_is_dropped_before_its_record_leaves() {
    leak_free(|_| {
        for order in [Order::Ordered, Order::Unordered] {
            for (skip, retry) in [(true, true), (true, false), (false, true), (false, false)] {
                let env = Environment::local("timeouts");
                let journal = Journal::new();
                let (held, heard) = (journal.clone(), journal.clone());
                let (feed, source) = testing::source();
                let asked = env
                    .from_source(move |_| source.clone())
                    .try_map_async(4, order, move |n: u32| {
                        let held = (n == 0).then(|| Tells(held.clone()));
                        async move {
                            if held.is_some() {
                                std::future::pending::<()>().await;
                            }
                            Ok::<_, std::fmt::Error>(n)
                        }
                    })
                    .timeout(Duration::from_millis(20))
                    .on_error(if skip { ErrorPolicy::skip() } else { ErrorPolicy::fail() });
                let asked = if retry { asked.retry(patient()) } else { asked };
                feed.send(0);
                if skip {
                    asked.sink(move |_| heard.note("heard"));
                } else {
                    let (came, letters) = asked.dead_letters();
                    came.sink(|_| {});
                    letters.sink(move |_| heard.note("heard"));
                }
                let job = env.submit().unwrap();
                // It goes while the job runs, and no other record needs its slot.
                journal.await_events("dropped", 1);
                if skip {
                    feed.send(1);
                }
                journal.await_events("heard", 1);
                assert_eq!(journal.events(), ["dropped", "heard"], "{order:?}");
                feed.end();
                job.wait().unwrap();
            }
        }
    });
}
