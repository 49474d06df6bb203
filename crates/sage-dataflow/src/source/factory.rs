//! Factories: how the source of each replica is made.

use std::sync::{Arc, Mutex};

use super::Source;
use crate::guarded::opaque;
use crate::sync::lock;

/// Makes the source of each replica.
pub trait SourceFactory: Send + 'static {
    /// The sources it makes.
    type Source: Source;
    /// Makes the source of `replica`; `None` if it can be made only once and was made before.
    fn make(&self, replica: usize) -> Option<Self::Source>;
}

/// A source that exists already and can be read once.
pub struct OneShot<S>(pub(crate) Arc<Mutex<Option<S>>>);
opaque!(OneShot<S>);

impl<S: Source> SourceFactory for OneShot<S> {
    type Source = S;
    fn make(&self, _replica: usize) -> Option<S> {
        lock(&self.0).take()
    }
}

/// A function that makes a source per run, for one replica: two would read the same records.
pub struct PerRun<F>(pub(crate) F);
opaque!(PerRun<F>);

impl<S: Source, F: Fn() -> S + Send + 'static> SourceFactory for PerRun<F> {
    type Source = S;
    fn make(&self, _replica: usize) -> Option<S> {
        Some((self.0)())
    }
}

/// A function that makes a source per replica and run.
pub struct PerReplica<F>(pub(crate) F);
opaque!(PerReplica<F>);

impl<S: Source, F: Fn(usize) -> S + Send + 'static> SourceFactory for PerReplica<F> {
    type Source = S;
    fn make(&self, replica: usize) -> Option<S> {
        Some((self.0)(replica))
    }
}
