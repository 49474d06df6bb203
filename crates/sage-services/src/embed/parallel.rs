//! [`in_parallel`]: work on parts of a batch, on several threads.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Builder};

/// As many threads as the system has processors for.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Works on all parts, on this thread and on up to `threads - 1` others that have ended when this returns. The results
/// are in the order of the parts.
pub(crate) fn in_parallel<P: Sync, R: Send>(parts: &[P], threads: usize, work: impl Fn(&P) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(position) else { return done };
            done.push((position, work(part)));
        }
    };
    let mut done = thread::scope(|scope| {
        // Where no thread can be started, the others do its work.
        let start = |_| Builder::new().name("embed".to_owned()).spawn_scoped(scope, worker).ok();
        let others: Vec<_> = (1..threads.min(parts.len())).filter_map(start).collect();
        let mut done = worker();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|&(position, _)| position);
    done.into_iter().map(|(_, result)| result).collect()
}
