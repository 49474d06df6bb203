//! The layers, each by itself. Apart from them, as the models compile the layers with primitives of their own.

mod breaker;
mod cache;
mod concurrency;
mod disk;
mod flight;
mod journal;
mod kept;
mod key;
mod outage;
mod rate;
mod restart;
mod retry_budget;
mod store;
mod turn;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use super::time::Time;
use super::time::tests::ManualTime;

/// Callers of a layer. One is polled when it was woken, and not else.
struct Callers<'a, R> {
    time: ManualTime,
    callers: Vec<(Arc<Woken>, Option<Pin<Box<dyn Future<Output = R> + 'a>>>)>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a, R> Callers<'a, R> {
    fn new(time: &ManualTime) -> Self {
        Self { time: time.clone(), callers: Vec::new() }
    }

    /// Adds a caller, and returns its number.
    fn call(&mut self, call: impl Future<Output = R> + 'a) -> usize {
        self.callers.push((Arc::new(Woken(AtomicBool::new(true))), Some(Box::pin(call))));
        self.callers.len() - 1
    }

    /// Drops a caller, whatever it does.
    fn leaves(&mut self, caller: usize) {
        self.callers[caller].1 = None;
    }

    /// Polls all that were woken, until none is. Returns what those that ended got.
    fn run(&mut self) -> Vec<(usize, R)> {
        let mut ended = Vec::new();
        while let Some(number) = self.callers.iter().position(|(woken, call)| call.is_some() && woken.is_set()) {
            ended.extend(self.poll(number).map(|result| (number, result)));
        }
        ended
    }

    /// Polls one caller, woken or not.
    fn poll(&mut self, caller: usize) -> Option<R> {
        let (woken, slot) = &mut self.callers[caller];
        woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(woken.clone());
        let call = slot.as_mut().expect("it has not ended");
        let Poll::Ready(result) = call.as_mut().poll(&mut Context::from_waker(&waker)) else { return None };
        *slot = None;
        Some(result)
    }

    /// As [`run`](Self::run), and moves the time on to each moment that somebody waits for, up to `end`.
    fn run_until(&mut self, end: Instant) -> Vec<(usize, R)> {
        let mut ended = self.run();
        while let Some(next) = self.time.next().filter(|&next| next <= end) {
            self.time.advance(next.saturating_duration_since(self.time.now()));
            ended.extend(self.run());
        }
        self.time.advance(end.saturating_duration_since(self.time.now()));
        ended.extend(self.run());
        ended
    }
}

impl Woken {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
