//! `map_async` on a stream, and the task it becomes.
//!
//! The operator always begins a chain, so that its task has an inbox to wait at: for records and for completions alike.
//! A source that is stuck in its iterator delays no result, and the operators behind it are fused as behind any other.
//!
//! Invariants of the task:
//!  1. Futures are made, polled and dropped on its own thread, inside the job's async runtime; what comes behind is
//!     never inside of it, so that it may block.
//!  2. It takes a record only when there is a slot for it, and reaches the end of its input when every slot is empty.
//!  3. While user code runs, the position names the record it runs for, which is not the one taken last. How many were
//!     taken is counted apart.
//!  4. It drives its chain: every `Stop::Attend` is answered where the record is pushed.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::Stream;
use super::failing::WithSide;
use super::pipe::{FromInlet, Pipe, is_wanted};
use crate::BoxError;
use crate::environment::SubmitError;
use crate::exchange::lane::{Inbox, Mark, Polled, Taker};
use crate::exchange::{Circle, Partitioning, RoundRobin};
use crate::graph::wiring::BuildContext;
use crate::graph::{Head, NodeId};
use crate::job::control::{Control, JobControl};
use crate::job::polling::{Polling, Rouser};
use crate::job::task::{Fatal, Fault, OpenContext, Push, Step, Stop, Task, TaskContext};
use crate::metrics::Counter;
use crate::operator::policy::{ErrorPolicy, Errors};
use crate::operator::side::Sorted;
use crate::operator::{
    AsyncFunction, Cloned, DeadLetter, Fallible, Flight, MAX_CAPACITY, Mourned, Order, Policy, Retry, Since, Sure,
};
use crate::service::enter;
use crate::sync::{FOREVER, park_for};

/// An inlet, and the async operator that takes its records.
pub struct MapAsync<I, F: AsyncFunction<I>> {
    inlet: FromInlet<I>,
    function: F,
    policy: Policy<I>,
    since: Option<Since<F::Future>>,
    node: NodeId,
}

impl<I: Send + 'static, F: AsyncFunction<I>> Pipe for MapAsync<I, F> {
    type Out = F::Out;

    fn build<N: Push<F::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError> {
        cx.building(self.node);
        let polling = cx.polling();
        let mut inbox = cx.inbox(self.inlet.inlet);
        inbox.works_on(self.policy.capacity);
        Ok(Box::new(AsyncTask {
            inbox,
            pace: FlightPace { at: Instant::now(), in_flight: 0, spent: Duration::ZERO, finished: 0 },
            in_flight: cx.in_flight(),
            dropped: 0,
            flight: Flight::new(self.function.clone(), self.policy.clone(), self.since, Rouser::new(&polling)),
            circle: cx.circle(&next),
            next,
            node: self.node,
            polling,
            runtime: None,
            control: cx.control(),
            ended: false,
            held: None,
            taken: 0,
            emitted: 0,
            taken_so_far: cx.taken(),
            // Of what leaves by two ways, the link behind counts what leaves by the main one.
            emitted_so_far: (!F::MOURNS).then(|| cx.emitted(self.node)),
            failing: Box::new(Failing {
                errors: cx.errors(self.node),
                context: cx.open_context(self.node),
                letters: 0,
            }),
        }))
    }
}

impl<P: Pipe> Stream<P> {
    /// Replaces each record by what the future that `function` makes of it gives. Up to `capacity` futures are in
    /// flight in each replica, 1 to 1,048,576; a zero is a [`SubmitError::OperatorOption`].
    ///
    /// When `capacity` records are in flight, no more are taken until one has left: that is backpressure. A result is
    /// sent on at once, also while no record comes in. Each record in flight takes the memory of its future, or of its
    /// result while that waits for its turn, and some 200 bytes; what the capacity allows is used only when it is
    /// needed.
    ///
    /// The futures run on the operator's own thread, one at a time, inside the job's tokio runtime, so that timers and
    /// I/O work in them and one that computes for long holds the others up. A cancel drops them; a drain and the end of
    /// input wait for them. A future that panics fails the job, naming the operator and its record.
    ///
    /// The operator begins a chain of its own. See [`timeout`](Self::timeout) and [`parallelism`](Self::parallelism)
    /// for what can be set after it; order is kept in each replica.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Environment, Order};
    ///
    /// let env = Environment::local("pages");
    /// let pages = env
    ///     .from_iter([30, 10, 20])
    ///     .map_async(16, Order::Ordered, |millis| async move {
    ///         tokio::time::sleep(Duration::from_millis(millis)).await;
    ///         format!("after {millis} ms")
    ///     })
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(pages.take(), ["after 30 ms", "after 10 ms", "after 20 ms"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`SubmitError::OperatorOption`]: crate::SubmitError::OperatorOption
    pub fn map_async<U, F>(
        self,
        capacity: usize,
        order: Order,
        function: F,
    ) -> Stream<MapAsync<P::Out, Sure<F, P::Out>>>
    where
        U: Future + Send + 'static,
        U::Output: Send + 'static,
        F: FnMut(P::Out) -> U + Clone + Send + 'static,
    {
        self.asynchronous("map-async", capacity, order, Sure::new(function))
    }

    /// As [`map_async`](Self::map_async), for futures that may give an error, which fails the job, naming the operator
    /// and the record. See [`retry`](Self::retry) for trying again first.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Environment, Order, Retry};
    ///
    /// let env = Environment::local("fetch");
    /// let fetched = env
    ///     .from_iter(["1", "2"])
    ///     .try_map_async(16, Order::Unordered, |text| async move { text.parse::<u64>() })
    ///     .timeout(Duration::from_secs(5))
    ///     .retry(Retry::up_to(3))
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(fetched.take().iter().sum::<u64>(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_map_async<O, E, U, F>(
        self,
        capacity: usize,
        order: Order,
        function: F,
    ) -> Stream<MapAsync<P::Out, Fallible<F, P::Out, O, E>>>
    where
        O: Send + 'static,
        E: Into<BoxError> + 'static,
        U: Future<Output = Result<O, E>> + Send + 'static,
        F: FnMut(P::Out) -> U + Clone + Send + 'static,
    {
        self.asynchronous("try-map-async", capacity, order, Fallible::new(function))
    }

    fn asynchronous<F: AsyncFunction<P::Out>>(
        self,
        kind: &'static str,
        capacity: usize,
        order: Order,
        function: F,
    ) -> Stream<MapAsync<P::Out, F>> {
        let (graph, inlet) = match self.head {
            // It stands at an inlet already, whose records any replica may take.
            Head::Inlet(inlet) if self.nodes.is_empty() && self.pipe.retarget(Partitioning::RoundRobin).is_some() => {
                (self.graph, inlet)
            }
            _ => {
                let replicas = self.replicas();
                self.exchange(Partitioning::Forward, replicas, RoundRobin::new)
            }
        };
        let node = graph.with(|graph| {
            let node = graph.add_node(kind, false);
            if !(1..=MAX_CAPACITY).contains(&capacity) {
                graph.add_mistake(node, format!("the capacity is {capacity}; it may be 1 to 1048576"));
            }
            node
        });
        let policy = Policy { capacity, order, timeout: None, retry: None, copy: None };
        let pipe = MapAsync { inlet: FromInlet::new(inlet, true), function, policy, since: None, node };
        Stream { graph, pipe, nodes: vec![node], head: Head::Inlet(inlet) }
    }
}

impl<I, F> Stream<MapAsync<I, F>>
where
    I: Send + 'static,
    F: AsyncFunction<I>,
{
    /// Runs the async operator, and those after it, in `replicas` replicas, each with its own capacity. The records are
    /// dealt out to them in turn.
    pub fn parallelism(self, replicas: usize) -> Self {
        let inlet = self.pipe.inlet.inlet;
        self.graph.with(|graph| {
            graph.inlets[inlet.0].parallelism = replicas;
            let edges = graph.edges.iter_mut().filter(|edge| edge.to == inlet);
            edges.for_each(|edge| edge.partitioning = Partitioning::RoundRobin);
        });
        self
    }

    /// Says what becomes of a record whose future gives an error, or takes too long. Default: that of
    /// [`Environment::on_error`](crate::Environment::on_error). To keep the records, see
    /// [`dead_letters`](Self::dead_letters).
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        self.graph.with(|graph| graph.set_policy(self.pipe.node, policy));
        self
    }

    /// How long each record may take, from the moment it is taken, all attempts and the pauses between them included.
    /// Default: no limit. One that takes longer fails the job with [`AsyncError::TimedOut`], and its future is dropped.
    ///
    /// A future that is found complete when its time is over counts as complete. Times are kept to the millisecond.
    ///
    /// [`AsyncError::TimedOut`]: crate::AsyncError::TimedOut
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.pipe.policy.timeout = Some(limit);
        self
    }

    /// As [`timeout`](Self::timeout), counted from the moment that `since` gives for the record's first future. For one
    /// that waits for its turn elsewhere, such as for a thread, `since` gives `None` until it has begun, and its time
    /// does not run.
    pub fn timeout_since(mut self, limit: Duration, since: fn(&F::Future) -> Option<Instant>) -> Self {
        self.pipe.since = Some(since);
        self.timeout(limit)
    }
}

impl<I, F> Stream<MapAsync<I, F>>
where
    I: Clone + Send + 'static,
    F: AsyncFunction<I>,
{
    /// Sends the records whose future gives an error, or takes too long, to a stream of their own, each with the
    /// operator, the errors, the time and the number of attempts; the job goes on, and no error policy is asked. Like
    /// every stream, it must end in a sink. Each record is cloned, to have it if it fails. To be added last, after
    /// [`retry`](Stream::retry), [`timeout`](Self::timeout) and [`parallelism`](Self::parallelism).
    ///
    /// A letter leaves as a result would: it keeps its slot of the capacity until then, and in order waits for its
    /// turn.
    ///
    /// ```
    /// use sage::{Environment, Order};
    ///
    /// let env = Environment::local("fetch");
    /// let (numbers, dead) = env
    ///     .from_iter(["1", "two", "3"])
    ///     .try_map_async(16, Order::Ordered, |text| async move { text.parse::<u64>() })
    ///     .dead_letters();
    /// let (numbers, dead) = (numbers.collect(), dead.collect());
    /// env.run()?;
    /// assert_eq!(numbers.take(), [1, 3]);
    /// assert_eq!(dead.take()[0].record, "two");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dead_letters(self) -> AsyncWithLetters<I, F> {
        let Self { graph, pipe, nodes, head } = self;
        let MapAsync { inlet, function, mut policy, since, node } = pipe;
        policy.copy = Some(I::clone);
        let pipe = MapAsync { inlet, function: Mourned(function), policy, since, node };
        Stream { graph, pipe, nodes, head }.with_side(Cloned(Sorted(PhantomData)), node)
    }
}

/// The stream after an async operator, and that of its dead letters.
type AsyncWithLetters<I, F> =
    WithSide<MapAsync<I, Mourned<F>>, Cloned<Sorted<<F as AsyncFunction<I>>::Out, DeadLetter<I>>>, DeadLetter<I>>;

impl<I, F, O, E> Stream<MapAsync<I, Fallible<F, I, O, E>>>
where
    I: Clone + Send + 'static,
    Fallible<F, I, O, E>: AsyncFunction<I>,
{
    /// Makes the future of a record again, of a clone of the record, when it ended in an error. Default: one attempt.
    /// When the last one fails too, the job does, with [`RetriesExhausted`]. A panic is not tried again.
    ///
    /// The record keeps its slot, and in order its place, while it waits.
    ///
    /// [`RetriesExhausted`]: crate::RetriesExhausted
    pub fn retry(mut self, retry: Retry) -> Self {
        if let Some(message) = retry.mistake() {
            self.graph.with(|graph| graph.add_mistake(self.pipe.node, message));
        }
        self.pipe.policy.retry = Some(retry);
        self.pipe.policy.copy = Some(I::clone);
        self
    }
}

/// A chain that begins with an inbox and an async operator.
struct AsyncTask<I, F: AsyncFunction<I>, N> {
    inbox: Inbox<I>,
    pace: FlightPace,
    /// How many records are in flight, for those outside.
    in_flight: Arc<Counter>,
    /// What was in flight when it was closed, and dropped then.
    dropped: usize,
    flight: Flight<I, F>,
    next: N,
    circle: Option<Circle>,
    node: NodeId,
    polling: Polling,
    runtime: Option<Handle>,
    control: Arc<JobControl>,
    /// Whether the end of input was seen.
    ended: bool,
    /// What is passed on once everything taken before it has left; nothing is taken until then.
    held: Option<Held>,
    taken: u64,
    emitted: u64,
    taken_so_far: Arc<Counter>,
    emitted_so_far: Option<Arc<Counter>>,
    failing: Box<Failing>,
}

/// How long the records of a task are in flight.
struct FlightPace {
    /// When it was last measured, and how many were in flight from then on.
    at: Instant,
    in_flight: usize,
    /// Time in flight, summed over the records, since one was last finished.
    spent: Duration,
    /// How many records were finished so far.
    finished: u64,
}

impl FlightPace {
    /// Adds the time up to `now`.
    fn pass(&mut self, now: Instant) {
        let passed = now.duration_since(self.at);
        self.spent += passed.saturating_mul(u32::try_from(self.in_flight).unwrap_or(u32::MAX));
        self.at = now;
    }

    /// Learns how things stand after a step that began at `began`. Returns how many records were finished since the
    /// last time that there were any, and how long they took a task that has `capacity` of them in flight.
    fn step(&mut self, began: Instant, taken: u64, in_flight: usize, capacity: usize) -> Option<(usize, Duration)> {
        let now = Instant::now();
        self.in_flight = in_flight;
        self.at = now;
        let finished = taken - in_flight as u64;
        let count = finished - std::mem::replace(&mut self.finished, finished);
        if count == 0 {
            return None;
        }
        let in_turn = std::mem::take(&mut self.spent) / u32::try_from(capacity).unwrap_or(u32::MAX).max(1);
        Some((usize::try_from(count).unwrap_or(usize::MAX), in_turn.max(now.duration_since(began))))
    }
}

/// What becomes of the records that fail.
struct Failing {
    errors: Errors,
    context: OpenContext,
    /// How many became dead letters.
    letters: u64,
}

impl Failing {
    /// Decides on the record in a slot, which has failed.
    #[cold]
    fn settle<I, F: AsyncFunction<I>>(
        &mut self,
        flight: &mut Flight<I, F>,
        slot: u32,
        error: BoxError,
        taken: u64,
    ) -> Result<(), Fault> {
        if F::MOURNS
            && !Fatal::is(&error)
            && let Some((record, number, attempts)) = flight.take_failed(slot)
        {
            self.letters += 1;
            let letter = DeadLetter::new(record, number, attempts, &*error, &self.context, self.letters);
            if let Some(letter) = F::letter(letter) {
                flight.replace(slot, letter);
                return Ok(());
            }
        }
        self.errors.judge(error, taken)?;
        flight.skip(slot);
        Ok(())
    }
}

/// What came between two records.
enum Held {
    Mark(Mark),
    Probe(u64),
}

/// How long results and woken futures may wait while the task takes records, or polls futures, that keep it busy.
const LONG_BATCH: Duration = Duration::from_millis(1);

/// Why the task takes no more records from its inbox for now.
enum Refusal {
    /// Every slot is taken, or there are others to attend to.
    Enough,
    Stop(Stop),
}

/// Takes records from the inbox into flight.
struct Intake<'a, I, F: AsyncFunction<I>> {
    flight: &'a mut Flight<I, F>,
    taken: &'a mut u64,
    node: NodeId,
    control: &'a JobControl,
    failing: &'a mut Failing,
    cx: &'a mut TaskContext,
    began: Instant,
}

impl<I, F: AsyncFunction<I>> Taker<I> for Intake<'_, I, F> {
    type Refusal = Refusal;
    fn look(&mut self) -> Result<(), Refusal> {
        if self.control.load() == Control::Cancel {
            return Err(Refusal::Stop(Stop::Cancelled));
        }
        let others_wait = self.flight.has_result() || self.flight.is_roused();
        if self.flight.is_full() || (others_wait && self.began.elapsed() > LONG_BATCH) {
            return Err(Refusal::Enough);
        }
        Ok(())
    }

    fn take(&mut self, record: I) -> Result<(), Refusal> {
        *self.taken += 1;
        self.cx.resume(self.node, *self.taken);
        let Err((slot, error)) = self.flight.start(record, *self.taken) else { return Ok(()) };
        let settled = self.failing.settle(self.flight, slot, error, *self.taken);
        settled.map_err(|fault| Refusal::Stop(self.cx.fault(fault)))
    }

    fn took(&mut self, _count: usize) {}
}

impl<I: Send + 'static, F: AsyncFunction<I>, N: Push<F::Out>> AsyncTask<I, F, N> {
    /// Polls the futures that were woken.
    fn poll(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        if !self.flight.look() {
            return Ok(());
        }
        let _inside = self.runtime.as_ref().map(enter);
        let began = Instant::now();
        while let Some((slot, record)) = self.flight.next_woken() {
            if self.control.load() == Control::Cancel {
                return Err(Stop::Cancelled);
            }
            cx.resume(self.node, record);
            if let Err(error) = self.flight.poll(slot) {
                let settled = self.failing.settle(&mut self.flight, slot, error, self.taken);
                settled.map_err(|fault| cx.fault(fault))?;
            }
            if self.flight.has_result() && began.elapsed() > LONG_BATCH {
                break;
            }
        }
        Ok(())
    }

    /// Takes records, as long as there is room for them. Returns whether there were any.
    fn take(&mut self, cx: &mut TaskContext) -> Result<bool, Stop> {
        let Self { inbox, flight, taken, node, control, failing, .. } = self;
        let _inside = self.runtime.as_ref().map(enter);
        // A wait for fuller batches would begin anew with each completion, and might never end.
        inbox.hurry();
        match inbox.poll(&mut Intake { flight, taken, node: *node, control, failing, cx, began: Instant::now() }) {
            Ok(Polled::Taken) | Err(Refusal::Enough) => Ok(true),
            Ok(Polled::Nothing) => Ok(false),
            Ok(Polled::Marked(mark)) => {
                self.held = Some(Held::Mark(mark));
                Ok(true)
            }
            Ok(Polled::Probed(round)) => {
                self.held = Some(Held::Probe(round));
                Ok(true)
            }
            Ok(Polled::Finished) => {
                self.ended = true;
                Ok(true)
            }
            Ok(Polled::Aborted) => Err(Stop::Cancelled),
            Err(Refusal::Stop(stop)) => Err(stop),
        }
    }

    /// Sends on the results that can leave. Returns whether there were any.
    fn emit(&mut self, cx: &mut TaskContext) -> Result<bool, Stop> {
        if !self.flight.has_result() {
            return Ok(false);
        }
        let (flight, emitted, node, control) = (&mut self.flight, &mut self.emitted, self.node, &*self.control);
        cx.run(&mut self.next, |next, at| {
            while let Some((record, result)) = flight.next_result() {
                at.resume(node, record);
                *emitted += 1;
                match next.push(result, at) {
                    Ok(()) => {}
                    Err(Fault::Stop(Stop::Attend)) => next.attend(at)?,
                    Err(fault) => return Err(fault),
                }
                if control.load() == Control::Cancel {
                    return Err(Stop::Cancelled.into());
                }
            }
            Ok(true)
        })
    }

    /// Whether it takes records now.
    fn takes(&self) -> bool {
        !self.ended && !self.flight.is_full() && self.held.is_none()
    }

    /// Futures that are woken over and over, and give nothing, count as idle: others are to have their turn.
    fn work(&mut self, cx: &mut TaskContext) -> Result<Step, Stop> {
        if !self.flight.is_hurried() && self.control.load() == Control::Drain {
            self.flight.hurry();
        }
        self.poll(cx)?;
        let mut worked = self.emit(cx)?;
        if let Some(held) = self.held.take_if(|_| self.flight.is_empty()) {
            cx.run(&mut self.next, |next, at| match held {
                Held::Mark(mark) => next.watermark(mark, at),
                Held::Probe(round) => next.probe(round, at),
            })?;
            worked = true;
        }
        if self.takes() {
            worked |= self.take(cx)?;
            self.emit(cx)?;
        }
        cx.run_in_place(|at| self.next.between(at))?;
        Ok(match worked {
            _ if self.ended && self.flight.is_empty() => Step::End,
            true => Step::Again,
            false => Step::Idle,
        })
    }
}

impl<I: Send + 'static, F: AsyncFunction<I>, N: Push<F::Out>> Task for AsyncTask<I, F, N> {
    fn open(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.resume(self.node, 0);
        self.flight.settle();
        let runtime = self.polling.runtime.handle();
        self.runtime = Some(runtime.map_err(|error| cx.fault(error.into()))?);
        cx.run(&mut self.next, |next, at| next.open(at))
    }

    fn step(&mut self, cx: &mut TaskContext) -> Result<Step, Stop> {
        if !is_wanted(&self.next, self.circle.as_ref()) {
            return Err(Stop::Satisfied);
        }
        let began = Instant::now();
        self.pace.pass(began);
        let step = self.work(cx);
        cx.resume(self.node, self.taken);
        let in_flight = self.flight.taken();
        if let Some((records, time)) = self.pace.step(began, self.taken, in_flight, self.flight.capacity()) {
            self.inbox.took(records, time);
        }
        step
    }

    fn wait(&mut self, _cx: &mut TaskContext) {
        let (flight, control, wake_at) = (&self.flight, &self.control, self.next.wake_at());
        let (clock, wanted) = (control.clock(), || is_wanted(&self.next, self.circle.as_ref()));
        // Once the futures were told of a drain it is no news.
        let news = if flight.is_hurried() { Control::Cancel } else { Control::Drain };
        let interrupted = || flight.is_roused() || control.load() >= news || !wanted() || clock.is_due(wake_at);
        let limit = wake_at.and_then(|moment| clock.until(moment));
        if interrupted() {
            return;
        }
        if self.takes() {
            self.inbox.hurry();
            self.inbox.wait(interrupted, limit);
            return;
        }
        park_for(limit.unwrap_or(FOREVER), || !interrupted());
    }

    fn publish(&mut self, _cx: &TaskContext) {
        self.taken_so_far.publish(self.taken);
        self.in_flight.publish((self.flight.taken() + self.dropped) as u64);
        if let Some(emitted_so_far) = &self.emitted_so_far {
            emitted_so_far.publish(self.emitted);
        }
        self.failing.context.passed.retries.publish(self.flight.retries());
        self.next.publish();
    }

    fn flush(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.run(&mut self.next, |next, at| next.flush(at))
    }

    fn finish(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        self.failing.errors.finish(self.taken).map_err(|fault| cx.fault(fault))?;
        cx.run(&mut self.next, |next, at| next.finish(at))?;
        self.inbox.satisfied();
        Ok(())
    }

    /// Drops what is in flight, one by one, so that a future that panics when it is dropped keeps no other.
    fn close(&mut self, cx: &mut TaskContext) {
        self.dropped = self.flight.taken();
        let mut more = true;
        while more {
            let (flight, runtime) = (&mut self.flight, &self.runtime);
            cx.closing(self.node, |_| {
                let _inside = runtime.as_ref().map(enter);
                more = flight.clear_one();
                Ok(())
            });
        }
        self.next.close(cx);
    }

    fn is_source(&self) -> bool {
        false
    }
}
