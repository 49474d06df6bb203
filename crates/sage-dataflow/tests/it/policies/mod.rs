//! Services with a policy.

mod again;
mod attempts;
mod batches;
mod breakers;
mod endings;
mod kept;
mod limits;
mod outages;
mod pipelines;
mod throttled;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use sage::{BoxError, Environment, Method, Order, Policy, PolicyService, Service};

/// A service that does what the test says.
pub(super) struct Plain;

impl Service for Plain {}

pub(super) fn plain(env: &Environment, policy: Policy) -> PolicyService<Plain> {
    env.register_service("plain", || Plain).policy(policy).build()
}

/// Calls a method for each number, so many at a time.
pub(super) fn calls(env: &Environment, numbers: std::ops::Range<u32>, at_once: usize, method: Method<u32, String>) {
    let called = move |n| {
        let method = method.clone();
        async move { method.call(n).await }
    };
    env.from_iter(numbers).try_map_async(at_once, Order::Unordered, called).sink(|_| {});
}

/// What a service was asked, in turn.
pub(super) struct Asked<T> {
    told: Arc<Mutex<Sender<T>>>,
    heard: Receiver<T>,
}

impl<T: Send + 'static> Asked<T> {
    pub(super) fn new() -> Self {
        let (told, heard) = channel();
        Self { told: Arc::new(Mutex::new(told)), heard }
    }

    /// Tells that something was asked.
    pub(super) fn teller(&self) -> impl Fn(T) + Clone + Send + Sync + use<T> {
        let told = self.told.clone();
        move |asked| drop(told.lock().expect("no teller panics").send(asked))
    }

    /// Waits for the next.
    #[track_caller]
    pub(super) fn next(&self) -> T {
        self.heard.recv_timeout(crate::probes::PATIENCE).expect("the service is asked")
    }

    /// What was asked since.
    pub(super) fn rest(&self) -> Vec<T> {
        self.heard.try_iter().collect()
    }
}

/// Fails the first `failures` times, and then answers.
pub(super) fn flaky(failures: usize) -> impl Fn(u32) -> Result<String, BoxError> + Clone + Send + Sync + 'static {
    let left = Arc::new(Mutex::new(failures));
    move |n| {
        let mut left = left.lock().expect("no answer panics");
        if *left > 0 {
            *left -= 1;
            return Err("it is tired".into());
        }
        Ok(n.to_string())
    }
}
