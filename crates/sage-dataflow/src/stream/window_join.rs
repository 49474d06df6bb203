//! Joins of two streams in windows of event time.

use std::time::Duration;

use super::connected::Joint;
use super::factory::Cloned;
use super::joined::JoinedStreams;
use super::pipe::{ParallelStep, Pipe};
use super::{KeyedStream, Stream};
use crate::key::KeySelector;
use crate::operator::grid::Grid;
use crate::operator::join::limit_problem;
use crate::operator::join::windowed::{Pairing, WindowJoin};
use crate::operator::{Full, In2, Inner, Left};
use crate::time::{Sliding, Timed, Tumbling, Windowed};

/// Windows that begin at the same times for every key: [`Tumbling`] or [`Sliding`]. Implemented by the engine alone.
pub trait Aligned: Send + 'static {
    #[doc(hidden)]
    fn problem(&self) -> Option<String>;
    /// How long they are and how far apart they begin.
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

/// Two streams grouped by keys of the same type, about to be joined in windows: [`inner`](Self::inner),
/// [`left`](Self::left) or [`full`](Self::full). Made by [`JoinedStreams::window`].
///
/// A result is a [`Timed`] [`Windowed`](crate::Windowed): key, window and the pair of records, at the last millisecond
/// of its window, so that windows can follow.
#[must_use = "joined streams that no operator takes are an error when their environment is submitted"]
pub struct WindowedJoin<P: Pipe, S, Q: Pipe, R, W> {
    left: KeyedStream<P, S>,
    right: KeyedStream<Q, R>,
    windows: W,
    max_records: usize,
}

/// What a join in windows gives.
type Paired<K, V> = Timed<Windowed<K, V>>;

impl<P, S, Q, R, A, B> JoinedStreams<P, S, Q, R>
where
    P: Pipe<Out = Timed<A>>,
    S: KeySelector<Timed<A>>,
    Q: Pipe<Out = Timed<B>>,
    R: KeySelector<Timed<B>, Key = S::Key>,
{
    /// Joins the records of each window of event time: those of equal keys whose times are in the same one. Both
    /// streams may be endless.
    ///
    /// A window is kept in memory until the watermark of the two streams, that of the slower one, reaches its end; then
    /// its pairs come out, windows in the order of their ends and keys in no order, and it is freed. At the end of
    /// input, and of a drain, all windows come out. Records that come later than that are dropped and counted as
    /// [`OperatorReport::late`](crate::OperatorReport::late): there is no allowed lateness, so let the bound of
    /// [`OutOfOrder`](crate::OutOfOrder) cover the disorder. A record is cloned for each window it is in, and for each
    /// match; put large ones behind an `Arc`.
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
        WindowedJoin { left, right, windows, max_records }
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
    /// How many records of each stream a replica may keep in its open windows, one in several windows counted in each;
    /// 100 million unless said. One more fails the job with a [`JoinError`](crate::JoinError). A zero is a
    /// [`SubmitError::OperatorOption`](crate::SubmitError::OperatorOption).
    pub fn max_records(mut self, records: usize) -> Self {
        self.max_records = records;
        self
    }

    /// The pairs of records with equal keys in one window.
    pub fn inner(self) -> Stream<impl ParallelStep<In = In2<Timed<A>, Timed<B>>, Out = Paired<S::Key, (A, B)>>> {
        self.joined::<Inner>("window-inner-join")
    }

    /// The pairs of records with equal keys in one window, and the left records that have no partner in theirs.
    pub fn left(self) -> Stream<impl ParallelStep<In = In2<Timed<A>, Timed<B>>, Out = Paired<S::Key, (A, Option<B>)>>> {
        self.joined::<Left>("window-left-join")
    }

    /// The pairs of records with equal keys in one window, and the records of both streams that have no partner in
    /// theirs.
    pub fn full(
        self,
    ) -> Stream<impl ParallelStep<In = In2<Timed<A>, Timed<B>>, Out = Paired<S::Key, (Option<A>, Option<B>)>>> {
        self.joined::<Full>("window-full-join")
    }

    fn joined<J: Pairing<A, B>>(
        self,
        kind: &'static str,
    ) -> Stream<impl ParallelStep<In = In2<Timed<A>, Timed<B>>, Out = Paired<S::Key, J::Out>>> {
        let Self { left, right, windows, max_records } = self;
        let (problem, (size, every)) = (windows.problem(), windows.size_and_step());
        let grid = Grid::new(size, every);
        let replicas = left.stream.replicas().max(right.stream.replicas());
        let joint = Joint::new(&left.stream.graph, kind, false, replicas);
        let operator = WindowJoin::<_, _, _, _, _, J>::new(left.key.clone(), right.key.clone(), grid, max_records);
        joint.keyed_input::<0, _, _>(left);
        joint.keyed_input::<1, _, _>(right);
        joint.then(Cloned::new(operator)).checked(problem).checked(limit_problem(max_records))
    }
}
