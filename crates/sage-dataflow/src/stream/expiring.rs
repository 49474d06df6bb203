//! Streams grouped by key whose states expire.

use std::time::Duration;

use super::Stream;
use super::keyed::{Aggregated, KeyedStream};
use super::pipe::{ParallelStep, Pipe};
use crate::guarded::opaque;
use crate::key::KeySelector;
use crate::operator::{
    Distinct, Expiring, ExpiringByEvents, FlatMapWithState, MapWithState, Output, StateFunction, WithState,
};
use crate::time::{Timed, Timestamp};

/// States expire by the job's clock.
#[derive(Debug, Clone, Copy)]
pub struct ByClockTime;

/// States expire by the times of records.
#[derive(Debug, Clone, Copy)]
pub struct ByEventTime;

/// A keyed stream for an operator whose states expire. [`KeyedStream::expire_after`] and
/// [`KeyedStream::expire_after_by_time`] make it.
#[must_use = "a stream that does not end in a sink is an error when its environment is submitted"]
pub struct ExpiringStream<P: Pipe, S, B> {
    pub(super) keyed: KeyedStream<P, S>,
    pub(super) ttl: Duration,
    pub(super) by: B,
}
opaque!([P: Pipe, S, B] ExpiringStream<P, S, B>);

/// The steps on a stream whose states expire by one kind of time.
macro_rules! steps {
    ([$($parameters:tt)*] $By:ident, $States:ident, $time:expr) => {
        impl<$($parameters)*> ExpiringStream<P, S, $By> {
            /// As [`KeyedStream::map_with_state`].
            pub fn map_with_state<A, O, G>(
                self,
                initial: A,
                function: G,
            ) -> Stream<impl ParallelStep<In = P::Out, Out = O>>
            where
                A: Clone + Send + 'static,
                O: Send + 'static,
                G: FnMut(&mut A, P::Out) -> O + Clone + Send + 'static,
            {
                self.with_state("map-with-state", initial, MapWithState(function))
            }

            /// As [`KeyedStream::flat_map_with_state`].
            pub fn flat_map_with_state<A, O, G>(
                self,
                initial: A,
                function: G,
            ) -> Stream<impl ParallelStep<In = P::Out, Out = O>>
            where
                A: Clone + Send + 'static,
                O: Send + 'static,
                G: FnMut(&mut A, P::Out, &mut Output<'_, O>) + Clone + Send + 'static,
            {
                self.with_state("flat-map-with-state", initial, FlatMapWithState(function))
            }

            /// As [`KeyedStream::distinct`], but the first record of a key after the key was forgotten is emitted too.
            pub fn distinct(self) -> Stream<impl ParallelStep<In = P::Out, Out = P::Out>> {
                self.with_state("distinct", false, Distinct)
            }

            fn with_state<A, O, F>(
                self,
                kind: &'static str,
                initial: A,
                function: F,
            ) -> Aggregated<P, WithState<S, F, P::Out, A, O, $States<S::Key, A>>, S>
            where
                A: Clone + Send + 'static,
                O: Send + 'static,
                F: StateFunction<P::Out, A, O>,
            {
                let $By = self.by;
                let problem = (self.ttl.as_millis() < 1)
                    .then_some("its states expire in less than 1 ms; give `expire_after` a longer time");
                self.keyed.with_state(kind, initial, function, $States::new(self.ttl), $time).checked(problem)
            }
        }
    };
}

steps!([P: Pipe, S: KeySelector<P::Out>] ByClockTime, Expiring, |_| Timestamp::MIN);
steps!(
    [P: Pipe<Out = Timed<T>>, T: Send + 'static, S: KeySelector<Timed<T>>] ByEventTime, ExpiringByEvents,
    |record| record.time
);
