//! Single flight under shuttle: every caller gets a result, whoever leaves, and equal calls are never made side by
//! side.

#![expect(dead_code, reason = "the engine's files are compiled whole; a model uses a part of them")]
#![expect(unreachable_pub, reason = "what the engine's files make public is public in its crate")]

use super::under_shuttle::sync;

#[path = "../../../src/service/policy/flight.rs"]
mod engine;
#[path = "../../../src/service/policy/time.rs"]
mod time;
#[path = "../../../src/service/policy/turn.rs"]
mod turn;
#[path = "../../../src/service/policy/within.rs"]
mod within;

use std::sync::atomic::Ordering;
use std::time::Instant;

use engine::{Flight, Joined, Lead};
use shuttle::future::{block_on, yield_now};
use shuttle::sync::Arc;
use shuttle::sync::atomic::AtomicU32;
use shuttle::thread;

/// Time does not pass in a model.
#[derive(Clone)]
struct NoTime;

impl time::Time for NoTime {
    type Sleep = std::future::Pending<()>;

    fn now(&self) -> Instant {
        unreachable!("nobody asks")
    }

    fn sleep_until(&self, _: Instant) -> Self::Sleep {
        std::future::pending()
    }
}

struct Model {
    flight: Flight<u8, u32>,
    inside: AtomicU32,
    made: AtomicU32,
}

impl Model {
    fn new() -> Arc<Self> {
        Arc::new(Self { flight: Flight::new(), inside: AtomicU32::new(0), made: AtomicU32::new(0) })
    }

    async fn call(&self) -> u32 {
        let call = || async {
            assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two equal calls are made side by side");
            yield_now().await;
            self.inside.fetch_sub(1, Ordering::SeqCst);
            self.made.fetch_add(1, Ordering::SeqCst) + 1
        };
        self.flight.share(&NoTime, None, 1, call, |_| false).await.expect("nobody waits for a moment")
    }

    /// Makes the call, and leaves before its end.
    fn lead_and_leave(&self, joined: Joined<u8, u32>) {
        match joined {
            Joined::Leads(lead) => self.leave(lead),
            Joined::Follows(turn) => drop(turn),
        }
    }

    fn leave(&self, lead: Lead<u8, u32>) {
        thread::yield_now();
        drop(lead);
    }
}

#[test]
fn every_caller_gets_a_result_whoever_leaves() {
    shuttle::check_random(
        || {
            let model = Model::new();
            let leaving = (0..2).map(|_| {
                let model = model.clone();
                thread::spawn(move || model.lead_and_leave(model.flight.join(1)))
            });
            let staying = (0..3).map(|_| {
                let model = model.clone();
                thread::spawn(move || {
                    let result = block_on(model.call());
                    assert!((1..=3).contains(&result));
                })
            });
            let threads: Vec<_> = leaving.chain(staying).collect();
            threads.into_iter().for_each(|thread| thread.join().expect("no caller panics"));
            assert!(matches!(model.flight.join(1), Joined::Leads(_)), "nobody is left in the table");
        },
        2_000,
    );
}

#[test]
fn callers_that_are_there_together_share_one_call() {
    shuttle::check_random(
        || {
            let model = Model::new();
            let Joined::Leads(lead) = model.flight.join(1) else { panic!("the first one leads") };
            let followers = (0..2).map(|_| {
                let (model, joined) = (model.clone(), model.flight.join(1));
                thread::spawn(move || {
                    let Joined::Follows(turn) = joined else { panic!("it follows") };
                    assert!(matches!(block_on(turn), Some(engine::Landing::Result(7))));
                    drop(model);
                })
            });
            let threads: Vec<_> = followers.collect();
            lead.land(&7);
            threads.into_iter().for_each(|thread| thread.join().expect("no caller panics"));
        },
        500,
    );
}
