//! Streams in event time: timestamps, and windows over keyed streams.

use std::time::Duration;

use super::keyed::Aggregated;
use super::pipe::{Pipe, Then};
use super::{KeyedStream, Stream};
use crate::operator::{
    Aggregate, AlignedWindows, Applied, Cloned, CountWindows, Counted, Dropped, Folded, HandedTo, KeySelector,
    LateRecords, Operator, Reduced, SessionWindows, Timestamps,
};
use crate::time::{Count, OutOfOrder, Session, Sliding, Timed, Timestamp, Tumbling, Window, Windowed, millis};

impl<P: Pipe> Stream<P> {
    /// Gives each record the time at which it happened, and begins a watermark: the latest time seen minus the bound of
    /// `order`, and the end of time at the end of input.
    ///
    /// The watermark goes along with the records, at most once per batch and when the input runs dry. It stays behind
    /// those that were before it, also behind an exchange, where the slowest of the producers counts. An operator of
    /// one's own that holds records back makes them late. Of several `with_timestamps` in a row the last one counts.
    ///
    /// A source that blocks inside its own `next` gives no watermark meanwhile, though its records have gone on; put
    /// [`boxed`](Self::boxed) between it and this, or let it answer [`Next::Idle`](crate::Next::Idle).
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Environment, OutOfOrder, Timestamp, Tumbling};
    ///
    /// let env = Environment::local("clicks");
    /// let counts = env
    ///     .from_iter([(1_000, "a"), (1_500, "a"), (900, "b"), (2_100, "a")])
    ///     .with_timestamps(|&(millis, _)| Timestamp::from_millis(millis), OutOfOrder::by(Duration::from_secs(1)))
    ///     .key_by(|click| click.value.1)
    ///     .window(Tumbling::of(Duration::from_secs(1)))
    ///     .count()
    ///     .map(|count| (count.value.window.start.millis(), count.value.key, count.value.value))
    ///     .collect();
    /// env.run()?;
    /// let mut counts = counts.take();
    /// counts.sort();
    /// assert_eq!(counts, [(0, "b", 1), (1_000, "a", 2), (2_000, "a", 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_timestamps<F>(self, function: F, order: OutOfOrder) -> Stream<Then<P, Cloned<Timestamps<F, P::Out>>>>
    where
        F: FnMut(&P::Out) -> Timestamp + Clone + Send + 'static,
    {
        self.then("timestamps", Cloned(Timestamps::new(function, order))).checked(order.problem())
    }
}

impl<P, F> Stream<Then<P, F>>
where
    Then<P, F>: Pipe,
{
    /// Notes what is wrong with the operator just added.
    pub(super) fn checked(self, problem: Option<&'static str>) -> Self {
        if let Some(problem) = problem {
            let node = self.pipe.node;
            self.graph.with(|graph| graph.add_mistake(node, problem.to_owned()));
        }
        self
    }
}

/// A kind of windows: [`Tumbling`], [`Sliding`], [`Session`] or [`Count`]. Implemented by the engine alone.
pub trait Windowing<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>, L>: Send + 'static {
    /// What gathers records in them.
    type Operator: Operator<In = Timed<T>, Out = Timed<Windowed<S::Key, A::Out>>> + Clone;

    #[doc(hidden)]
    fn problem(&self) -> Option<&'static str>;
    #[doc(hidden)]
    fn operator(self, lateness: i64, key: S, aggregate: A, late: L) -> Self::Operator;
}

impl<S, T, A, L> Windowing<S, T, A, L> for Tumbling
where
    S: KeySelector<Timed<T>>,
    S::Key: Clone,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
    L: LateRecords<T>,
{
    type Operator = AlignedWindows<S, T, A, L>;

    fn problem(&self) -> Option<&'static str> {
        Tumbling::problem(self)
    }

    fn operator(self, lateness: i64, key: S, aggregate: A, late: L) -> Self::Operator {
        let size = millis(self.size).max(1);
        AlignedWindows::new(size, size, lateness, key, aggregate, late)
    }
}

impl<S, T, A, L> Windowing<S, T, A, L> for Sliding
where
    S: KeySelector<Timed<T>>,
    S::Key: Clone,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
    L: LateRecords<T>,
{
    type Operator = AlignedWindows<S, T, A, L>;

    fn problem(&self) -> Option<&'static str> {
        Sliding::problem(self)
    }

    fn operator(self, lateness: i64, key: S, aggregate: A, late: L) -> Self::Operator {
        let (size, every) = (millis(self.size).max(1), millis(self.every).max(1));
        AlignedWindows::new(size, every, lateness, key, aggregate, late)
    }
}

impl<S, T, A, L> Windowing<S, T, A, L> for Session
where
    S: KeySelector<Timed<T>>,
    S::Key: Clone,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
    L: LateRecords<T>,
{
    type Operator = SessionWindows<S, T, A, L>;

    fn problem(&self) -> Option<&'static str> {
        (millis(self.gap) < 1)
            .then_some("the gap between sessions is shorter than 1 ms; give `Session::gap` a longer time")
    }

    fn operator(self, lateness: i64, key: S, aggregate: A, late: L) -> Self::Operator {
        SessionWindows::new(millis(self.gap).max(1), lateness, key, aggregate, late)
    }
}

impl<S, T, A, L> Windowing<S, T, A, L> for Count
where
    S: KeySelector<Timed<T>>,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
    L: LateRecords<T>,
{
    type Operator = CountWindows<S, T, A>;

    fn problem(&self) -> Option<&'static str> {
        (self.records == 0).then_some("the windows have no record; give `Count::of` 1 at least")
    }

    fn operator(self, _lateness: i64, key: S, aggregate: A, _late: L) -> Self::Operator {
        CountWindows::new(self.records, key, aggregate)
    }
}

impl<P, T, S> KeyedStream<P, S>
where
    P: Pipe<Out = Timed<T>>,
    T: Send + 'static,
    S: KeySelector<Timed<T>>,
{
    /// Cuts the records of each key into windows of event time, for the aggregation that follows.
    ///
    /// A window fires when the watermark reaches its end, windows in the order of their ends and keys in no order. At the
    /// end of input, and of a drain, all of them fire. What a key had in a window is freed then.
    pub fn window<W>(self, windows: W) -> WindowedStream<P, S, W, Dropped> {
        WindowedStream { keyed: self, windows, lateness: Duration::ZERO, late: Dropped }
    }
}

/// A keyed stream in windows.
///
/// A result is a [`Timed`] [`Windowed`]: key, window and value, at the last millisecond of its window, so that windows
/// can follow windows.
#[must_use = "a stream that does not end in a sink is an error when its environment is submitted"]
pub struct WindowedStream<P: Pipe, S, W, L> {
    keyed: KeyedStream<P, S>,
    windows: W,
    lateness: Duration,
    late: L,
}

impl<P, T, S, W, L> WindowedStream<P, S, W, L>
where
    P: Pipe<Out = Timed<T>>,
    T: Send + 'static,
    S: KeySelector<Timed<T>>,
    L: LateRecords<T>,
{
    /// Keeps what a window has gathered until the watermark is `lateness` past its end. A record that comes late, but
    /// within that time, makes its window fire again at once, with all that it now has. Default: zero.
    ///
    /// A session that has fired may grow, or be merged with another, by a late record; the result that follows
    /// replaces those of the parts. Results of late firings are themselves late for windows behind these. Windows by
    /// count know no lateness.
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { lateness, ..self }
    }

    /// Hands records that are too late for every window they belong to, to `function`, instead of dropping them. Either
    /// way they are counted, as [`OperatorReport::late`](crate::OperatorReport::late).
    pub fn late_to<F>(self, function: F) -> WindowedStream<P, S, W, HandedTo<F>>
    where
        F: FnMut(Timed<T>) + Clone + Send + 'static,
    {
        WindowedStream { keyed: self.keyed, windows: self.windows, lateness: self.lateness, late: HandedTo(function) }
    }

    /// Folds the records of each key and window into an accumulator that starts as a clone of `initial`, in the order in
    /// which they come. The function is given a reference, as a record may be in several windows.
    ///
    /// Sessions keep their records and fold them when they fire, since two accumulators cannot be made one; those of a
    /// session that was merged come in no particular order. [`reduce`](Self::reduce) and [`count`](Self::count) keep no
    /// records.
    pub fn fold<A, F>(self, initial: A, function: F) -> Aggregated<P, W::Operator, S>
    where
        A: Clone + Send + 'static,
        F: FnMut(&mut A, &T) + Clone + Send + 'static,
        W: Windowing<S, T, Folded<A, F>, L>,
    {
        self.aggregate("window-fold", Folded { initial, function })
    }

    /// Reduces the records of each key and window to one.
    pub fn reduce<F>(self, function: F) -> Aggregated<P, W::Operator, S>
    where
        T: Clone,
        F: FnMut(T, T) -> T + Clone + Send + 'static,
        W: Windowing<S, T, Reduced<F>, L>,
    {
        self.aggregate("window-reduce", Reduced { function })
    }

    /// Counts the records of each key and window.
    pub fn count(self) -> Aggregated<P, W::Operator, S>
    where
        W: Windowing<S, T, Counted, L>,
    {
        self.aggregate("window-count", Counted)
    }

    /// Keeps the records of each key and window, and gives all of them to `function` when the window fires. Memory grows
    /// with their number.
    pub fn apply<O, F>(self, function: F) -> Aggregated<P, W::Operator, S>
    where
        T: Clone,
        O: Send + 'static,
        F: FnMut(&S::Key, Window, &[T]) -> O + Clone + Send + 'static,
        W: Windowing<S, T, Applied<F>, L>,
    {
        self.aggregate("window-apply", Applied { function })
    }

    fn aggregate<A>(self, kind: &'static str, aggregate: A) -> Aggregated<P, W::Operator, S>
    where
        A: Aggregate<S::Key, T>,
        W: Windowing<S, T, A, L>,
    {
        let problem = self.windows.problem();
        let key = self.keyed.key.clone();
        let operator = self.windows.operator(millis(self.lateness), key, aggregate, self.late);
        self.keyed.keyed(kind, operator).checked(problem)
    }
}
