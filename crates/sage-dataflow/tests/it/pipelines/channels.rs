//! Channels and async streams as sources: every record comes, and no wait for one holds up the job.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use sage::testing::{self, Received};
use sage::{Environment, JobHandle, Outcome, SubmitError, Timestamp, Tumbling};

use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, failed, sorted};

/// Sends a record; says whether somebody will receive it.
type Send = Box<dyn Fn(u64) -> bool + std::marker::Send>;

/// Does the same with a channel of each kind.
macro_rules! with_each_channel {
    (|$send:ident, $receiver:ident| $test:block) => {
        leak_free(|_| {
            {
                let (sender, $receiver) = crossbeam_channel::bounded(8);
                let $send: Send = Box::new(move |record| sender.send(record).is_ok());
                $test
            }
            {
                let (sender, $receiver) = crossbeam_channel::unbounded();
                let $send: Send = Box::new(move |record| sender.send(record).is_ok());
                $test
            }
            {
                let (sender, $receiver) = tokio::sync::mpsc::channel(8);
                let $send: Send = Box::new(move |record| sender.blocking_send(record).is_ok());
                $test
            }
            {
                let (sender, $receiver) = tokio::sync::mpsc::unbounded_channel();
                let $send: Send = Box::new(move |record| sender.send(record).is_ok());
                $test
            }
        })
    };
}

/// Collects where the test can look on.
macro_rules! watched {
    ($stream:expr) => {{
        let (received, sink) = testing::sink();
        $stream.sink_to(move |_replica| sink.clone());
        received
    }};
}

/// Ends a job for which nobody sends, once it has received so many records.
fn drained<T: Clone>(job: JobHandle, received: &Received<T>, count: usize) -> sage::JobReport {
    received.wait_for(count);
    job.drain();
    let report = job.wait().expect("a wait for a channel does not hold up a drain");
    // The deadline of a drain is 30 s, of a cancel 10 s.
    assert!(report.phases.drain < Duration::from_secs(5), "{report}");
    report
}

#[test]
fn contract_16_a_channel_ends_with_its_last_sender_and_loses_none() {
    with_each_channel!(|send, receiver| {
        let env = Environment::local("channel");
        let out = env.from_channel(receiver).map(|n| n + 1).collect();
        let job = env.submit().unwrap();
        let sender = thread::spawn(move || (0..10_000).all(send));
        job.wait().unwrap();
        assert!(sender.join().unwrap());
        assert_eq!(out.take(), (1..=10_000).collect::<Vec<u64>>());
    });
}

#[test]
fn contract_16_several_senders_lose_nothing() {
    leak_free(|_| {
        let (sender, receiver) = crossbeam_channel::bounded(0);
        let env = Environment::local("senders");
        let out = env.from_channel(receiver).collect();
        let job = env.submit().unwrap();
        let senders: Vec<_> = (0..4_u64)
            .map(|thread| {
                let sender = sender.clone();
                thread::spawn(move || (0..1000).for_each(|n| sender.send(thread * 1000 + n).unwrap()))
            })
            .collect();
        drop(sender);
        job.wait().unwrap();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(sorted(out.take()), (0..4000).collect::<Vec<u64>>());
    });
}

#[test]
fn contract_27_a_drain_ends_a_channel_into_which_nobody_sends() {
    with_each_channel!(|send, receiver| {
        let env = Environment::local("quiet");
        // Behind another thread: what came has to be flushed before the source waits.
        let received = watched!(env.from_channel(receiver).on_another_thread());
        let job = env.submit().unwrap();
        assert!(send(1));
        let report = drained(job, &received, 1);
        assert!(report.notes.is_empty(), "{report}");
        assert_eq!((received.take(), received.finished()), (vec![1], 1));
        drop(env);
        assert!(!send(2), "the receiver is gone with the job");
    });
}

#[test]
fn contract_27_a_cancel_ends_a_channel_into_which_nobody_sends() {
    with_each_channel!(|send, receiver| {
        let env = Environment::local("quiet");
        let received = watched!(env.from_channel(receiver));
        let job = env.submit().unwrap();
        assert!(send(1));
        received.wait_for(1);
        job.cancel();
        let report = failed(job.wait());
        assert_eq!(report.outcome, Outcome::Cancelled);
        assert!(report.left.is_empty() && report.phases.drain < Duration::from_secs(5), "{report}");
        assert!(!send(2));
    });
}

#[test]
fn a_drain_leaves_what_is_in_the_channel_and_the_report_says_how_much() {
    with_each_channel!(|send, receiver| {
        let env = Environment::local("left");
        let gate = Gate::new();
        let held = gate.clone();
        let out = env.from_channel(receiver).named("orders").inspect(move |_| held.pass()).collect();
        let job = env.submit().unwrap();
        assert!((1..=3).all(&send));
        gate.await_arrivals(1);
        job.drain();
        while job.status() != sage::JobState::Draining {
            thread::yield_now();
        }
        gate.open();
        let report = job.wait().unwrap();
        assert_eq!(out.take(), [1]);
        assert_eq!(report.notes, ["`orders` left 2 records in its channel"]);
    });
}

#[test]
fn what_a_drain_has_left_in_a_channel_is_there_for_a_second_receiver() {
    leak_free(|_| {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let rest = receiver.clone();
        let env = Environment::local("rest");
        let gate = Gate::new();
        let held = gate.clone();
        env.from_channel(receiver).sink(move |_| held.pass());
        let job = env.submit().unwrap();
        (1..=3).for_each(|n| sender.send(n).unwrap());
        gate.await_arrivals(1);
        job.drain();
        while job.status() != sage::JobState::Draining {
            thread::yield_now();
        }
        gate.open();
        job.wait().unwrap();
        assert_eq!(rest.try_iter().collect::<Vec<_>>(), [2, 3]);
    });
}

#[test]
fn a_channel_ends_when_nobody_wants_more_of_it() {
    with_each_channel!(|send, receiver| {
        let env = Environment::local("two");
        let out = env.from_channel(receiver).on_another_thread().take(2).collect();
        let job = env.submit().unwrap();
        assert!(send(1) && send(2));
        // It waits for a third.
        job.wait().unwrap();
        assert_eq!(out.take(), [1, 2]);
    });
}

#[test]
fn a_channel_stands_still_while_its_job_is_paused() {
    with_each_channel!(|send, receiver| {
        let env = Environment::local("paused");
        let received = watched!(env.from_channel(receiver));
        let job = env.submit().unwrap();
        assert!(send(1));
        received.wait_for(1);
        job.pause();
        while job.status() != sage::JobState::Paused {
            thread::yield_now();
        }
        assert!(send(2));
        job.resume();
        assert_eq!(received.wait_for(2), [1, 2]);
        job.drain();
        job.wait().unwrap();
    });
}

#[test]
fn a_window_by_the_clock_fires_while_nobody_sends() {
    with_each_channel!(|send, receiver| {
        let (hands, clock) = testing::clock(Timestamp::from_millis(0));
        let env = Environment::local("minutes").clock(clock);
        let journal = Journal::new();
        let seen = journal.clone();
        let received = watched!(
            env.from_channel(receiver)
                .key_by(|_| ())
                .window_by_clock(Tumbling::of(Duration::from_secs(60)))
                .fold(0, move |count, n| {
                    *count += 1;
                    seen.note(n);
                })
                .map(|count| count.value.value)
        );
        let job = env.submit().unwrap();
        assert!(send(7));
        journal.await_events("7", 1);
        hands.advance(Duration::from_secs(60));
        assert_eq!(received.wait_for(1), [1]);
        drained(job, &received, 1);
    });
}

#[test]
fn a_channel_is_read_once() {
    with_each_channel!(|send, receiver| {
        drop(send);
        let env = Environment::local("once");
        env.from_channel(receiver).sink(|_| {});
        env.run().unwrap();
        let again = env.submit().unwrap_err();
        assert!(matches!(&again, SubmitError::SourceConsumed { source_name } if source_name == "channel-1"), "{again}");
    });
}

#[test]
fn contract_27_a_drain_and_a_cancel_end_a_stream_that_gives_nothing() {
    leak_free(|_| {
        for cancel in [false, true] {
            let env = Environment::local("pending");
            let received = watched!(env.from_stream(stream::iter([1]).chain(stream::pending())));
            let job = env.submit().unwrap();
            if cancel {
                received.wait_for(1);
                job.cancel();
                let report = failed(job.wait());
                assert!(report.left.is_empty() && report.phases.drain < Duration::from_secs(5), "{report}");
            } else {
                drained(job, &received, 1);
            }
        }
    });
}

/// Ticks by a timer of tokio, and notes that it is dropped inside of a runtime.
struct Ticking {
    interval: Option<tokio::time::Interval>,
    left: u64,
    dropped_inside: Arc<AtomicBool>,
}

impl Stream for Ticking {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        let interval = self.interval.get_or_insert_with(|| tokio::time::interval(Duration::from_millis(1)));
        std::task::ready!(interval.poll_tick(cx));
        match self.left {
            0 => Poll::Ready(None),
            left => {
                self.left = left - 1;
                Poll::Ready(Some(left))
            }
        }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.dropped_inside.store(tokio::runtime::Handle::try_current().is_ok(), Ordering::SeqCst);
    }
}

#[test]
fn a_stream_has_the_jobs_runtime_and_is_dropped_there_before_the_job_is_over() {
    leak_free(|_| {
        for left in [3, u64::MAX] {
            let dropped_inside = Arc::new(AtomicBool::new(false));
            let env = Environment::local("ticking");
            let ticking = Ticking { interval: None, left, dropped_inside: dropped_inside.clone() };
            let received = watched!(env.from_stream(ticking));
            let job = env.submit().unwrap();
            if left == 3 {
                job.wait().unwrap();
                assert_eq!(received.take(), [3, 2, 1]);
            } else {
                received.wait_for(2);
                job.cancel();
                failed(job.wait());
            }
            assert!(dropped_inside.load(Ordering::SeqCst), "{left}");
        }
    });
}

#[test]
fn a_function_behind_a_stream_may_block() {
    leak_free(|_| {
        let env = Environment::local("blocks");
        let out = env
            .from_stream(stream::iter(0..3))
            .map(|n| {
                assert!(tokio::runtime::Handle::try_current().is_err(), "this is no place to block");
                n
            })
            .collect();
        env.run().unwrap();
        assert_eq!(out.take(), [0, 1, 2]);
    });
}

#[test]
fn contract_15_a_stream_that_panics_fails_the_job_and_is_named() {
    leak_free(|_| {
        let env = Environment::local("panics");
        let broken = stream::iter(0..3).map(|n| if n == 2 { panic!("no third item") } else { n });
        env.from_stream(broken).named("items").sink(|_| {});
        let report = failed(env.run());
        let cause = report.first_cause.as_ref().unwrap();
        assert_eq!(cause.place().to_string(), "operator `items`, record 3");
        assert!(cause.message.contains("no third item"), "{report}");
        assert!(report.left.is_empty(), "{report}");
    });
}

#[test]
fn contract_16_a_stream_that_is_woken_from_elsewhere_loses_nothing() {
    leak_free(|_| {
        let (mut sender, receiver) = futures::channel::mpsc::channel(0);
        let env = Environment::local("woken");
        let out = env.from_stream(receiver).on_another_thread().collect();
        let job = env.submit().unwrap();
        let sender = thread::spawn(move || {
            for n in 0..2000_u64 {
                let sent = futures::executor::block_on(futures::SinkExt::send(&mut sender, n));
                sent.expect("the job goes on");
            }
        });
        job.wait().unwrap();
        sender.join().unwrap();
        assert_eq!(out.take(), (0..2000).collect::<Vec<_>>());
    });
}
