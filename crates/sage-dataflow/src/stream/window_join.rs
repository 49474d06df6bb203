//! Joins of two streams in windows of event time.

use std::time::Duration;

use super::connected::Joint;
use super::factory::Cloned;
use super::joined::JoinedStreams;
use super::pipe::{ParallelStep, Pipe};
use super::{KeyedStream, Stream};
use crate::guarded::opaque;
use crate::key::KeySelector;
use crate::operator::grid::Grid;
use crate::operator::join::limit_problem;
use crate::operator::join::windowed::{Pairing, WindowJoin};
use crate::operator::{Cut, Full, In2, Inner, Left, OnSignal};
use crate::time::{Sliding, Timed, Tumbling, Windowed};

/// Windows that begin at the same times for every key: [`Tumbling`] or [`Sliding`]. Only the engine implements it.
pub trait Aligned: Send + 'static {
    #[doc(hidden)]
    fn problem(&self) -> Option<String>;
    /// Their length, and how far apart they begin.
    #[doc(hidden)]
    fn size_and_step(&self) -> (Duration, Duration);
}

impl Aligned for Tumbling {
    fn problem(&self) -> Option<String> {
        Tumbling::problem(self).map(str::to_owned)
    }
    fn size_and_step(&self) -> (Duration, Duration) {
        (self.size, self.size)
    }
}

impl Aligned for Sliding {
    fn problem(&self) -> Option<String> {
        Sliding::problem(self)
    }
    fn size_and_step(&self) -> (Duration, Duration) {
        (self.size, self.every)
    }
}

/// Two streams grouped by keys of the same type, to be joined in windows by [`inner`](Self::inner),
/// [`left`](Self::left) or [`full`](Self::full). [`JoinedStreams::window`] makes it.
///
/// A result is a [`Timed`] [`Windowed`](crate::Windowed): key, window and the pair of records. Its time is the last
/// millisecond of its window, so that windows can follow.
#[must_use = "joined streams that no operator takes are an error when their environment is submitted"]
pub struct WindowedJoin<P: Pipe, S, Q: Pipe, R, W> {
    left: KeyedStream<P, S>,
    right: KeyedStream<Q, R>,
    windows: W,
    max_records: usize,
    on_signal: OnSignal,
}
opaque!([P: Pipe, S, Q: Pipe, R, W] WindowedJoin<P, S, Q, R, W>);

/// What a join in windows gives.
type Paired<K, V> = Timed<Windowed<K, V>>;

impl<P, S, Q, R, A, B> JoinedStreams<P, S, Q, R>
where
    P: Pipe<Out = Timed<A>>,
    S: KeySelector<Timed<A>>,
    Q: Pipe<Out = Timed<B>>,
    R: KeySelector<Timed<B>, Key = S::Key>,
{
    /// Joins the records in each window of event time: two records meet if their keys are equal and their times are in
    /// the same window. Both streams may be endless.
    ///
    /// A window is kept in memory until the slower stream's watermark reaches its end. Then its pairs come out and it
    /// is freed. Windows come out in the order of their ends, keys within a window in no order; at the end of input
    /// all windows come out, and at that of a drain, but for one by a signal: see
    /// [`on_signal`](WindowedJoin::on_signal). A record that comes after its window is dropped, and
    /// [`OperatorReport::late`](crate::OperatorReport::late) counts it: there is no allowed lateness, so let the bound
    /// of [`OutOfOrder`](crate::OutOfOrder) cover the disorder. A record is cloned for each window it is in, and for
    /// each match; put large records behind an `Arc`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Environment, OutOfOrder, Timestamp, Tumbling};
    ///
    /// let env = Environment::local("clicks");
    /// let order = OutOfOrder::by(Duration::from_secs(1));
    /// let shown = env.from_iter([(100, "tea"), (200, "nuts"), (1_700, "tea")]);
    /// let clicked = env.from_iter([(600, "tea"), (2_100, "nuts")]);
    /// let at = |event: &(i64, &str)| Timestamp::from_millis(event.0);
    /// let shown = shown.with_timestamps(at, order).key_by(|shown| shown.value.1);
    /// let clicked = clicked.with_timestamps(at, order).key_by(|click| click.value.1);
    /// let pairs = shown
    ///     .join(clicked)
    ///     .window(Tumbling::of(Duration::from_secs(1)))
    ///     .left()
    ///     .map(|pair| (pair.value.window.start.millis(), pair.value.key, pair.value.value.1.map(|click| click.0)))
    ///     .collect();
    /// env.run()?;
    /// let mut pairs = pairs.take();
    /// pairs.sort();
    /// assert_eq!(pairs, [(0, "nuts", None), (0, "tea", Some(600)), (1_000, "tea", None)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn window<W: Aligned>(self, windows: W) -> WindowedJoin<P, S, Q, R, W> {
        let Self { left, right, max_records } = self;
        WindowedJoin { left, right, windows, max_records, on_signal: OnSignal::Drop }
    }
}

impl<P, S, Q, R, A, B, W> WindowedJoin<P, S, Q, R, W>
where
    P: Pipe<Out = Timed<A>>,
    A: Clone + Send + 'static,
    S: KeySelector<Timed<A>>,
    S::Key: Clone,
    Q: Pipe<Out = Timed<B>>,
    B: Clone + Send + 'static,
    R: KeySelector<Timed<B>, Key = S::Key>,
    W: Aligned,
{
    /// Sets how many records of each stream a replica may keep in its open windows, 1 or more. A record counts once in
    /// each of its windows. Default: 100 million. One more fails the job with a [`JoinError`](crate::JoinError). A zero
    /// is a [`SubmitError::OperatorOption`](crate::SubmitError::OperatorOption).
    pub fn max_records(mut self, records: usize) -> Self {
        self.max_records = records;
        self
    }

    /// Says what becomes of windows that are open when a signal, or the environment's time limit, drains the job.
    /// Default: [`OnSignal::Drop`].
    pub fn on_signal(mut self, on_signal: OnSignal) -> Self {
        self.on_signal = on_signal;
        self
    }

    /// Emits the pairs of records with equal keys in one window.
    pub fn inner(self) -> Stream<impl ParallelStep<In = In2<Timed<A>, Timed<B>>, Out = Paired<S::Key, (A, B)>>> {
        self.joined::<Inner>("window-inner-join")
    }

    /// Emits the pairs of records with equal keys in one window, and the left records without a partner in their
    /// window.
    pub fn left(self) -> Stream<impl ParallelStep<In = In2<Timed<A>, Timed<B>>, Out = Paired<S::Key, (A, Option<B>)>>> {
        self.joined::<Left>("window-left-join")
    }

    /// Emits the pairs of records with equal keys in one window, and the records of both streams without a partner in
    /// their window.
    pub fn full(
        self,
    ) -> Stream<impl ParallelStep<In = In2<Timed<A>, Timed<B>>, Out = Paired<S::Key, (Option<A>, Option<B>)>>> {
        self.joined::<Full>("window-full-join")
    }

    fn joined<J: Pairing<A, B>>(
        self,
        kind: &'static str,
    ) -> Stream<impl ParallelStep<In = In2<Timed<A>, Timed<B>>, Out = Paired<S::Key, J::Out>>> {
        let Self { left, right, windows, max_records, on_signal } = self;
        let (problem, (size, every)) = (windows.problem(), windows.size_and_step());
        let grid = Grid::new(size, every);
        let replicas = left.stream.replicas().max(right.stream.replicas());
        let joint = Joint::new(&left.stream.graph, kind, false, replicas);
        let (keys, cut) = ((left.key.clone(), right.key.clone()), Cut::new(on_signal));
        let operator = WindowJoin::<_, _, _, _, _, J>::new(keys.0, keys.1, grid, max_records, cut);
        joint.keyed_input::<0, _, _>(left);
        joint.keyed_input::<1, _, _>(right);
        joint.then(Cloned::new(operator)).checked(problem).checked(limit_problem(max_records))
    }
}
