//! Async sinks at the end of a stream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use futures::channel::mpsc;
use futures::{Sink, StreamExt};
use sage::{Environment, Outcome};

use crate::contract::cancelled;
use crate::leaks::leak_free;
use crate::probes::{Journal, failed, sorted};

#[test]
fn contract_16_an_async_sink_gets_every_record_in_order_however_slow_its_reader_is() {
    leak_free(|_| {
        for room in [0, 3, 1000] {
            let (sender, mut receiver) = mpsc::channel(room);
            let env = Environment::local("forward");
            env.from_iter(0..2000_u32).forward(sender);
            let job = env.submit().unwrap();
            let reader = thread::spawn(move || {
                let mut got = Vec::new();
                while let Some(n) = futures::executor::block_on(receiver.next()) {
                    got.push(n);
                    thread::yield_now();
                }
                got
            });
            job.wait().unwrap();
            drop(env);
            assert_eq!(reader.join().unwrap(), (0..2000).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_parallel_stream_is_gathered_into_one_async_sink() {
    leak_free(|_| {
        let (sender, receiver) = mpsc::unbounded();
        let env = Environment::local("gathered");
        env.from_iter(0..100_u32).map(|n| n).parallelism(3).forward(sender).named("socket");
        let report = env.run().unwrap();
        assert_eq!(report.operator("socket").unwrap().records_in, 100);
        drop(env);
        assert_eq!(sorted(futures::executor::block_on(receiver.collect::<Vec<_>>())), (0..100).collect::<Vec<_>>());
    });
}

/// Notes what is done with it; takes no more than `room` records.
struct Noting {
    journal: Journal,
    room: u32,
}

impl Sink<u32> for Noting {
    type Error = String;

    fn poll_ready(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        if self.room == 0 {
            self.journal.note("full");
            return Poll::Pending;
        }
        self.room -= 1;
        Poll::Ready(Ok(()))
    }
    fn start_send(self: Pin<&mut Self>, record: u32) -> Result<(), String> {
        self.journal.note(record);
        if record == 13 { Err("unlucky".to_owned()) } else { Ok(()) }
    }
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.journal.note("close");
        Poll::Ready(Ok(()))
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        let place = if tokio::runtime::Handle::try_current().is_ok() { "inside" } else { "outside" };
        self.journal.note(format_args!("dropped {place}"));
    }
}

#[test]
fn an_async_sink_is_closed_at_the_end_of_input_and_dropped_in_the_runtime() {
    leak_free(|_| {
        let journal = Journal::new();
        let env = Environment::local("closed");
        env.from_iter([1, 2]).forward(Noting { journal: journal.clone(), room: 10 });
        env.run().unwrap();
        assert_eq!(journal.events(), ["1", "2", "close", "dropped inside"]);
    });
}

#[test]
fn contract_27_a_cancel_ends_a_wait_for_an_async_sink_which_is_not_closed() {
    leak_free(|_| {
        let journal = Journal::new();
        let env = Environment::local("full");
        env.from_iter(0..).forward(Noting { journal: journal.clone(), room: 2 });
        let job = env.submit().unwrap();
        journal.await_events("full", 1);
        let report = cancelled(&job);
        assert!(report.attached.is_empty(), "{report}");
        assert_eq!((journal.count("close"), journal.count("dropped inside")), (0, 1));
    });
}

#[test]
fn an_error_of_an_async_sink_fails_the_job_with_the_record() {
    leak_free(|_| {
        let journal = Journal::new();
        let env = Environment::local("unlucky");
        env.from_iter(11..20).forward(Noting { journal: journal.clone(), room: 10 }).named("socket");
        let report = failed(env.run());
        let cause = report.first_cause.as_ref().unwrap();
        assert_eq!((report.outcome, cause.message.as_str()), (Outcome::Failed, "unlucky"));
        assert_eq!(cause.place().to_string(), "operator `socket`, record 3");
        assert_eq!((journal.count("close"), journal.count("dropped inside")), (0, 1));
    });
}

#[test]
fn an_async_sink_is_used_once() {
    leak_free(|_| {
        let env = Environment::local("twice");
        env.from_collection(vec![1, 2]).forward(Noting { journal: Journal::new(), room: 10 });
        env.run().unwrap();
        let report = failed(env.run());
        let cause = report.first_cause.as_ref().unwrap();
        assert!(cause.message.contains("used by an earlier run"), "{report}");
        assert!(report.left.is_empty(), "{report}");
    });
}
