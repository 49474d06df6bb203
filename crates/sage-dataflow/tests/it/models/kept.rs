//! The layer of cache and journal under shuttle: of all equal calls, whenever they come, one is made.

#![expect(dead_code, reason = "the engine's files are compiled whole; a model uses a part of them")]
#![expect(unreachable_pub, reason = "what the engine's files make public is public in its crate")]
#![expect(unused_imports, reason = "the engine's files are compiled whole; a model uses a part of them")]

use sage::BoxError;

mod sync {
    pub(crate) use super::super::under_shuttle::sync::*;
    pub(crate) const FOREVER: std::time::Duration = std::time::Duration::from_secs(100 * 365 * 24 * 60 * 60);
}

#[path = "../../../src/service/policy/cache/mod.rs"]
mod cache;
#[path = "../../../src/service/policy/kept.rs"]
mod engine;
#[path = "../../../src/service/policy/flight.rs"]
mod flight;
#[path = "../../../src/service/policy/journal.rs"]
mod journal;
#[path = "../../../src/service/policy/key.rs"]
mod key;
#[path = "../../../src/service/policy/store/mod.rs"]
mod store;
#[path = "../../../src/service/policy/time.rs"]
mod time;
#[path = "../../../src/service/policy/turn.rs"]
mod turn;
#[path = "../../../src/service/policy/within.rs"]
mod within;

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Instant;

use cache::Cache;
use engine::{Asked, Kept, Whose};
use key::Codec;
use shuttle::future::{block_on, yield_now};
use shuttle::sync::Arc;
use shuttle::sync::atomic::AtomicU32;
use shuttle::thread;
pub use store::StoreError;

/// Time does not pass in a model.
#[derive(Clone)]
struct NoTime;

impl time::Time for NoTime {
    type Sleep = std::future::Pending<()>;

    fn now(&self) -> Instant {
        static NOW: OnceLock<Instant> = OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }

    fn sleep_until(&self, _: Instant) -> Self::Sleep {
        std::future::pending()
    }
}

struct Number;

impl Codec<u8> for Number {
    fn encode(&self, value: &u8, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.push(*value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<u8, BoxError> {
        Ok(bytes[0])
    }
}

#[test]
fn of_all_equal_calls_one_is_made() {
    shuttle::check_random(
        || {
            let whose = Whose { service: "llm", version: "1", method: "chat" };
            let cache = Cache::new().memory(10, 10_000);
            let kept = Kept::<u8, ()>::new(&whose, Arc::new(Number), &cache, None, None).expect("there is randomness");
            let (kept, made) = (Arc::new(kept), Arc::new(AtomicU32::new(0)));
            let callers = (0..3).map(|_| {
                let (kept, made) = (kept.clone(), made.clone());
                thread::spawn(move || {
                    let asked = Asked { arguments: vec![1], sample: 0, tag: None, until: None };
                    let call = |_| async {
                        made.fetch_add(1, Ordering::SeqCst);
                        yield_now().await;
                        Ok(7)
                    };
                    let answer = block_on(kept.answer(&NoTime, asked, call, |()| false));
                    assert!(matches!(answer, Ok(7)));
                })
            });
            let threads: Vec<_> = callers.collect();
            threads.into_iter().for_each(|thread| thread.join().expect("no caller panics"));
            assert_eq!(made.load(Ordering::SeqCst), 1);
        },
        1_000,
    );
}
