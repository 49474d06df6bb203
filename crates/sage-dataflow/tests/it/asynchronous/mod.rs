//! `map_async`: what comes out and in which order, what fails and whom it names, and what is left when it ends early.

mod endings;
mod failures;
mod letters;
mod results;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::probes::PATIENCE;

/// Where futures wait until the test lets them go on, in the order it likes. Tells how many there are.
#[derive(Clone, Default)]
struct Desk(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    alive: usize,
    most: usize,
    made: usize,
}

/// Counts a future of [`Desk::visit`] for as long as it lives.
struct Visit(Desk);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.change(|state| state.alive -= 1);
    }
}

impl Desk {
    fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.0.1.notify_all();
        result
    }

    #[track_caller]
    fn wait_while(&self, what: &str, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.0.1.wait_timeout_while(self.lock(), PATIENCE, |state| condition(state));
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "{what}: {} alive, waiting: {:?}", state.alive, state.waiting.keys());
        state
    }

    /// A future that counts as alive from here on.
    fn enter(&self) -> Visit {
        self.change(|state| {
            state.alive += 1;
            state.made += 1;
            state.most = state.most.max(state.alive);
        });
        Visit(self.clone())
    }

    /// Waits until [`release`](Self::release) is called with this number.
    fn visit(&self, number: u64) -> impl Future<Output = u64> + Send + use<> {
        let (desk, visit) = (self.clone(), self.enter());
        async move {
            let (release, released) = oneshot::channel();
            desk.change(|state| state.waiting.insert(number, release));
            released.await.expect("a test releases what it holds");
            drop(visit);
            number
        }
    }

    /// Lets a future go on, once it has come.
    #[track_caller]
    fn release(&self, number: u64) {
        drop(self.wait_while("it did not come", |state| !state.waiting.contains_key(&number)));
        let release = self.change(|state| state.waiting.remove(&number));
        release.expect("only a test releases").send(()).expect("its future waits");
    }

    /// Waits until exactly so many futures wait.
    #[track_caller]
    fn await_waiting(&self, count: usize) {
        drop(self.wait_while("they did not come", |state| state.waiting.len() != count));
    }

    fn alive(&self) -> usize {
        self.lock().alive
    }

    fn most(&self) -> usize {
        self.lock().most
    }

    fn made(&self) -> usize {
        self.lock().made
    }
}
