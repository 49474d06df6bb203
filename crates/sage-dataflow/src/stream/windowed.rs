//! Streams in event time: timestamps, and windows over keyed streams.

use std::convert::Infallible;
use std::time::Duration;

use super::keyed::Aggregated;
use super::lacking::InEventTime;
use super::pipe::{ParallelStep, Pipe};
use super::{KeyedStream, Stream};
use crate::chain::Stage;
use crate::guarded::opaque;
use crate::key::KeySelector;
use crate::operator::grid::{Grid, Lateness};
use crate::operator::{
    Aggregate, AlignedWindows, Applied, Clocked, CountWindows, Counted, Cut, Dropped, FoldFunction, Folded, HandedTo,
    LateRecords, OfValue, OnSignal, OpenWindows, Reduced, SessionWindows, SlidingWindows, Timestamps, Windows,
};
use crate::time::{Count, OutOfOrder, Session, Sliding, Timed, Timestamp, Tumbling, Window, Windowed};

impl<P: Pipe> Stream<P> {
    /// Gives each record its event time, and starts a watermark: the latest time seen minus the bound of `order`, and
    /// [`Timestamp::MAX`](crate::Timestamp::MAX) at the end of input.
    ///
    /// The watermark travels with the records, at most once per batch and when the input runs dry. It never overtakes a
    /// record, and behind an exchange the slowest producer's watermark counts. Of several `with_timestamps` in a row,
    /// the last one counts.
    ///
    /// While a source blocks inside its own `next`, its watermark does not advance, though its records have gone on.
    /// Put [`on_another_thread`](Self::on_another_thread) between the source and `with_timestamps`, or let the source
    /// answer [`Next::Idle`](crate::Next::Idle).
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
    pub fn with_timestamps<F>(
        self,
        function: F,
        order: OutOfOrder,
    ) -> Stream<impl ParallelStep<In = P::Out, Out = Timed<P::Out>>>
    where
        F: FnMut(&P::Out) -> Timestamp + Clone + Send + 'static,
    {
        self.then("timestamps", Timestamps::new(function, order)).checked(order.problem())
    }
}

/// The part of a record `R` that windows aggregate. Only the engine implements it.
pub trait WindowsOf<R>: Send + 'static {
    /// The aggregated part: the value of a [`Timed`] record, or, in windows by the clock, the whole record.
    type Value: Send + 'static;
}

impl<T: Send + 'static> WindowsOf<Timed<T>> for Tumbling {
    type Value = T;
}

impl<T: Send + 'static> WindowsOf<Timed<T>> for Sliding {
    type Value = T;
}

impl<T: Send + 'static> WindowsOf<Timed<T>> for Session {
    type Value = T;
}

impl<T: Send + 'static> WindowsOf<Timed<T>> for Count {
    type Value = T;
}

/// Windows that follow the job's clock instead of the records' times.
#[derive(Debug, Clone, Copy)]
pub struct ByClock<W>(W);

impl<R: Send + 'static, W: Send + 'static> WindowsOf<R> for ByClock<W> {
    type Value = R;
}

/// A kind of windows: [`Tumbling`], [`Sliding`], [`Session`] or [`Count`]. Only the engine implements it.
pub trait Windowing<S: KeySelector<R>, R, A: Aggregate<S::Key, Self::Value>, L>: WindowsOf<R> {
    /// The operator that fills the windows.
    type Operator: Stage<In = R, Out = Timed<Windowed<S::Key, A::Out>>, Side = Infallible> + Clone;

    #[doc(hidden)]
    fn problem(&self) -> Option<String>;
    #[doc(hidden)]
    fn operator(self, lateness: Lateness, key: S, aggregate: A, late: L, cut: Cut) -> Self::Operator;
}

impl<S, T, A, L, W> Windowing<S, Timed<T>, A, L> for W
where
    S: KeySelector<Timed<T>>,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
    L: LateRecords<T, Side = Infallible>,
    W: EventWindows<S, T, A> + WindowsOf<Timed<T>, Value = T>,
{
    type Operator = Windows<W::Open, L>;

    fn problem(&self) -> Option<String> {
        EventWindows::problem(self)
    }

    fn operator(self, lateness: Lateness, key: S, aggregate: A, late: L, cut: Cut) -> Self::Operator {
        Windows::new(self.open(lateness, key, aggregate), late, cut)
    }
}

impl<S, R, A, W> Windowing<S, R, A, Dropped> for ByClock<W>
where
    S: KeySelector<R>,
    R: Send + 'static,
    A: Aggregate<S::Key, R>,
    W: EventWindows<OfValue<S>, R, A>,
{
    type Operator = Clocked<W::Open>;

    fn problem(&self) -> Option<String> {
        self.0.problem()
    }

    fn operator(self, lateness: Lateness, key: S, aggregate: A, _late: Dropped, cut: Cut) -> Self::Operator {
        Clocked::new(self.0.open(lateness, OfValue(key), aggregate), cut)
    }
}

/// Windows over the times of records, of event time or given by the clock. Only the engine implements it.
pub trait EventWindows<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>>: Send + 'static {
    /// What is open.
    type Open: OpenWindows<Value = T, Key = S::Key, Result = A::Out>;

    #[doc(hidden)]
    fn problem(&self) -> Option<String>;
    #[doc(hidden)]
    fn open(self, lateness: Lateness, key: S, aggregate: A) -> Self::Open;
}

impl<S, T, A> EventWindows<S, T, A> for Tumbling
where
    S: KeySelector<Timed<T>, Key: Clone>,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
{
    type Open = AlignedWindows<S, T, A>;

    fn problem(&self) -> Option<String> {
        Tumbling::problem(self).map(str::to_owned)
    }

    fn open(self, lateness: Lateness, key: S, aggregate: A) -> Self::Open {
        AlignedWindows::new(Grid::new(self.size, self.size), lateness, key, aggregate)
    }
}

impl<S, T, A> EventWindows<S, T, A> for Sliding
where
    S: KeySelector<Timed<T>, Key: Clone>,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
{
    type Open = SlidingWindows<S, T, A>;

    fn problem(&self) -> Option<String> {
        Sliding::problem(self)
    }

    fn open(self, lateness: Lateness, key: S, aggregate: A) -> Self::Open {
        SlidingWindows::new(Grid::new(self.size, self.every), lateness, key, aggregate)
    }
}

impl<S, T, A> EventWindows<S, T, A> for Session
where
    S: KeySelector<Timed<T>, Key: Clone>,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
{
    type Open = SessionWindows<S, T, A>;

    fn problem(&self) -> Option<String> {
        (self.gap.as_millis() < 1)
            .then(|| "the gap between sessions is shorter than 1 ms; give `Session::gap` a longer time".to_owned())
    }

    fn open(self, lateness: Lateness, key: S, aggregate: A) -> Self::Open {
        SessionWindows::new(self.gap, lateness, key, aggregate)
    }
}

impl<S, T, A> EventWindows<S, T, A> for Count
where
    S: KeySelector<Timed<T>>,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
{
    type Open = CountWindows<S, T, A>;

    fn problem(&self) -> Option<String> {
        (self.records == 0).then(|| "the windows have no record; give `Count::of` 1 at least".to_owned())
    }

    fn open(self, _lateness: Lateness, key: S, aggregate: A) -> Self::Open {
        CountWindows::new(self.records, key, aggregate)
    }
}

impl<P: Pipe, S: KeySelector<P::Out>> KeyedStream<P, S> {
    /// Cuts the records of each key into windows of processing time, for the next aggregation: a record is in the
    /// windows that are open when it comes.
    ///
    /// A window fires when the environment's [`clock`](crate::Environment::clock) reaches its end, even if no record
    /// comes, and at the end of input. No record is late. Results have the form of those of [`window`](Self::window)
    /// and a watermark of their own, so windows of event time can follow. Windows by count are the same here as in
    /// `window`.
    ///
    /// In the chain of a source that blocks inside its own `next`, windows fire only when it returns. Put
    /// [`on_another_thread`](crate::Stream::on_another_thread) behind such a source, or let it wait with
    /// [`SourceContext::wait`](crate::SourceContext::wait), which ends when a window is due.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::testing::{self, ClockHands};
    /// use sage::{Environment, Timestamp, Tumbling};
    ///
    /// let (hands, clock): (ClockHands, _) = testing::clock(Timestamp::from_millis(0));
    /// let (words, source) = testing::source();
    /// let (counts, sink) = testing::sink();
    /// let env = Environment::local("minutes").clock(clock);
    /// env.from_source(move |_replica| source.clone())
    ///     .key_by(|word: &&str| *word)
    ///     .window_by_clock(Tumbling::of(Duration::from_secs(60)))
    ///     .count()
    ///     .map(|count| (count.value.key, count.value.value))
    ///     .sink_to(move |_replica| sink.clone());
    /// let job = env.submit()?;
    /// ["a", "a"].map(|word| words.send(word));
    /// words.settle();
    /// hands.advance(Duration::from_secs(60));
    /// assert_eq!(counts.wait_for(1), [("a", 2)]);
    /// words.end();
    /// job.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn window_by_clock<W>(self, windows: W) -> WindowedStream<P, S, ByClock<W>, Dropped> {
        WindowedStream::new(self, ByClock(windows))
    }

    /// Cuts the records of each key into windows of event time, for the next aggregation.
    ///
    /// A window fires when the watermark reaches its end. Windows fire in the order of their ends, keys within a window
    /// in no order. At the end of input all windows fire, and at that of a drain, but for one by a signal: see
    /// [`on_signal`](WindowedStream::on_signal). The memory of a key's window is freed when it fires.
    pub fn window<W>(self, windows: W) -> WindowedStream<P, S, W::Same, Dropped>
    where
        W: InEventTime<P::Out>,
    {
        WindowedStream::new(self, windows.same())
    }
}

/// A keyed stream in windows.
///
/// A result is a [`Timed`] [`Windowed`]: key, window and value. Its time is the last millisecond of its window, so that
/// windows can follow windows.
#[must_use = "a stream that does not end in a sink is an error when its environment is submitted"]
pub struct WindowedStream<P: Pipe, S, W, L> {
    keyed: KeyedStream<P, S>,
    windows: W,
    lateness: Duration,
    late: L,
    on_signal: OnSignal,
}
opaque!([P: Pipe, S, W, L] WindowedStream<P, S, W, L>);

impl<P: Pipe, S, W> WindowedStream<P, S, W, Dropped> {
    fn new(keyed: KeyedStream<P, S>, windows: W) -> Self {
        Self { keyed, windows, lateness: Duration::ZERO, late: Dropped, on_signal: OnSignal::Drop }
    }
}

impl<P: Pipe, S, W, L> WindowedStream<P, S, W, L> {
    /// Says what becomes of windows that are open when a signal, or the environment's time limit, drains the job.
    /// Default: [`OnSignal::Drop`].
    pub fn on_signal(self, on_signal: OnSignal) -> Self {
        Self { on_signal, ..self }
    }
}

impl<P, T, S, W, L> WindowedStream<P, S, W, L>
where
    P: Pipe<Out = Timed<T>>,
    T: Send + 'static,
    S: KeySelector<Timed<T>>,
    L: LateRecords<T>,
{
    /// Keeps a window's content until the watermark is `lateness` past its end. A record that comes late, but within
    /// that time, makes its window fire again at once, with all its records. Default: zero.
    ///
    /// A late record may extend a session that has fired, or merge it with another; the new result replaces the results
    /// of the parts. The result of a late firing is itself late for windows that follow. Windows by count have no
    /// lateness.
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { lateness, ..self }
    }

    /// Calls `function` with each record that is too late for all its windows, instead of dropping the record. Either
    /// way, [`OperatorReport::late`](crate::OperatorReport::late) counts it.
    pub fn late_to<F>(self, function: F) -> WindowedStream<P, S, W, HandedTo<F>>
    where
        F: FnMut(Timed<T>) + Clone + Send + 'static,
    {
        let Self { keyed, windows, lateness, on_signal, .. } = self;
        WindowedStream { keyed, windows, lateness, late: HandedTo(function), on_signal }
    }
}

impl<P, S, W, L> WindowedStream<P, S, W, L>
where
    P: Pipe,
    S: KeySelector<P::Out>,
    W: WindowsOf<P::Out>,
{
    /// Folds the records of each key and window into an accumulator that starts as a clone of `initial`, in the order
    /// in which they come. The function gets a reference, because a record may be in several windows.
    ///
    /// Sessions keep their records and fold them when they fire, because two accumulators cannot be merged. If a
    /// session was merged from others, its records come in no particular order. [`reduce`](Self::reduce) and
    /// [`count`](Self::count) keep no records.
    pub fn fold<A, F>(self, initial: A, function: F) -> Aggregated<P, W::Operator, S>
    where
        A: Clone + Send + 'static,
        F: FnMut(&mut A, &W::Value) + Clone + Send + 'static,
        W: Windowing<S, P::Out, Folded<A, F>, L>,
    {
        self.aggregate("window-fold", Folded { initial, function })
    }

    /// As [`fold`](Self::fold), for a function that may fail, or that has something to open and close. An error on a
    /// record of a session comes when that fires, and fails the job.
    pub fn fold_with<A, F>(self, initial: A, function: F) -> Aggregated<P, W::Operator, S>
    where
        A: Clone + Send + 'static,
        F: for<'a> FoldFunction<A, &'a W::Value>,
        W: Windowing<S, P::Out, Folded<A, F>, L>,
    {
        self.aggregate("window-fold", Folded { initial, function })
    }

    /// Reduces the records of each key and window to one.
    pub fn reduce<F>(self, function: F) -> Aggregated<P, W::Operator, S>
    where
        W::Value: Clone,
        F: FnMut(W::Value, W::Value) -> W::Value + Clone + Send + 'static,
        W: Windowing<S, P::Out, Reduced<F>, L>,
    {
        self.aggregate("window-reduce", Reduced { function })
    }

    /// Counts the records of each key and window. A record costs the same in however many sliding windows it is, unless
    /// lateness is allowed.
    pub fn count(self) -> Aggregated<P, W::Operator, S>
    where
        W: Windowing<S, P::Out, Counted, L>,
    {
        self.aggregate("window-count", Counted)
    }

    /// Keeps the records of each key and window, and calls `function` with all of them when the window fires. Memory
    /// grows with their number.
    pub fn apply<O, F>(self, function: F) -> Aggregated<P, W::Operator, S>
    where
        W::Value: Clone,
        O: Send + 'static,
        F: FnMut(&S::Key, Window, &[W::Value]) -> O + Clone + Send + 'static,
        W: Windowing<S, P::Out, Applied<F>, L>,
    {
        self.aggregate("window-apply", Applied { function })
    }

    fn aggregate<A>(self, kind: &'static str, aggregate: A) -> Aggregated<P, W::Operator, S>
    where
        A: Aggregate<S::Key, W::Value>,
        W: Windowing<S, P::Out, A, L>,
    {
        let problem = self.windows.problem();
        let key = self.keyed.key.clone();
        let (lateness, cut) = (Lateness::new(self.lateness), Cut::new(self.on_signal));
        let operator = self.windows.operator(lateness, key, aggregate, self.late, cut);
        self.keyed.keyed(kind, operator).checked(problem)
    }
}
