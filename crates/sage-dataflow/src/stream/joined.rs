//! Joins of two streams that are grouped by key.

use super::Stream;
use super::connected::Joint;
use super::factory::Cloned;
use super::keyed::KeyedStream;
use super::pipe::{ParallelStep, Pipe};
use crate::guarded::opaque;
use crate::key::KeySelector;
use crate::operator::join::{DEFAULT_RECORDS, limit_problem};
use crate::operator::{Full, In2, Inner, Join, Joining, Left};

/// Two streams grouped by keys of the same type, to be joined by [`inner`](Self::inner), [`left`](Self::left) or
/// [`full`](Self::full). [`KeyedStream::join`] makes it.
#[must_use = "joined streams that no operator takes are an error when their environment is submitted"]
pub struct JoinedStreams<P: Pipe, S, Q: Pipe, R> {
    pub(super) left: KeyedStream<P, S>,
    pub(super) right: KeyedStream<Q, R>,
    pub(super) max_records: usize,
}
opaque!([P: Pipe, S, Q: Pipe, R] JoinedStreams<P, S, Q, R>);

impl<P: Pipe, S: KeySelector<P::Out>> KeyedStream<P, S> {
    /// Joins this stream, the left one, with another that is grouped by a key of the same type.
    ///
    /// Both streams must end, or be joined in windows of event time by [`window`](JoinedStreams::window). The right
    /// stream is kept in memory as a table, so let it be the smaller one. The left stream is kept in memory until the
    /// right one has ended. Equal keys go to the same replica. Keys and records are cloned once for each match, except
    /// for a left record's last match; put large ones behind an `Arc`.
    ///
    /// ```
    /// let env = sage::Environment::local("join");
    /// let orders = env.from_iter([("tea", 2), ("nuts", 1), ("tea", 3)]).key_by(|order| order.0);
    /// let prices = env.from_iter([("tea", 5)]).key_by(|price| price.0);
    /// let sums = orders.join(prices).left().map(|(item, order, price)| (item, price.map(|price| price.1 * order.1)));
    /// let sums = sums.collect();
    /// env.run()?;
    /// let mut sums = sums.take();
    /// sums.sort();
    /// assert_eq!(sums, [("nuts", None), ("tea", Some(10)), ("tea", Some(15))]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join<Q, R>(self, right: KeyedStream<Q, R>) -> JoinedStreams<P, S, Q, R>
    where
        Q: Pipe,
        R: KeySelector<Q::Out, Key = S::Key>,
    {
        JoinedStreams { left: self, right, max_records: DEFAULT_RECORDS }
    }
}

impl<P, S, Q, R> JoinedStreams<P, S, Q, R>
where
    P: Pipe,
    P::Out: Clone,
    S: KeySelector<P::Out>,
    S::Key: Clone,
    Q: Pipe,
    Q::Out: Clone,
    R: KeySelector<Q::Out, Key = S::Key>,
{
    /// Sets how many records of each stream a replica may keep in memory, 1 or more; more than 4,294,967,294 count as
    /// that. Default: 100 million. One more fails the job with a [`JoinError`](crate::JoinError). A zero is a
    /// [`SubmitError::OperatorOption`](crate::SubmitError::OperatorOption).
    pub fn max_records(mut self, records: usize) -> Self {
        self.max_records = records;
        self
    }

    /// Emits the pairs of records with equal keys, in no particular order.
    pub fn inner(self) -> Stream<impl ParallelStep<In = In2<P::Out, Q::Out>, Out = (S::Key, P::Out, Q::Out)>> {
        self.joined::<Inner>("inner-join")
    }

    /// Emits the pairs of records with equal keys, and the left records without a partner, in no particular order.
    pub fn left(self) -> Stream<impl ParallelStep<In = In2<P::Out, Q::Out>, Out = (S::Key, P::Out, Option<Q::Out>)>> {
        self.joined::<Left>("left-join")
    }

    /// Emits the pairs of records with equal keys, and the records of both streams without a partner, in no particular
    /// order. The right records without a partner come at the end of input.
    pub fn full(
        self,
    ) -> Stream<impl ParallelStep<In = In2<P::Out, Q::Out>, Out = (S::Key, Option<P::Out>, Option<Q::Out>)>> {
        self.joined::<Full>("full-join")
    }

    fn joined<J>(self, kind: &'static str) -> Stream<impl ParallelStep<In = In2<P::Out, Q::Out>, Out = J::Out>>
    where
        J: Joining<S::Key, P::Out, Q::Out>,
    {
        let Self { left, right, max_records } = self;
        let replicas = left.stream.replicas().max(right.stream.replicas());
        let joint = Joint::new(&left.stream.graph, kind, false, replicas);
        let operator = Join::<_, _, _, _, _, J>::new(left.key.clone(), right.key.clone(), max_records);
        joint.keyed_input::<0, _, _>(left);
        joint.keyed_input::<1, _, _>(right);
        joint.then(Cloned::new(operator)).checked(limit_problem(max_records))
    }
}
