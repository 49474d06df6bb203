//! Declares the streams of a plan.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sage::{DataStream, Environment, ErrorPolicy, In2, Order, Retry};

use super::plan::{Inside, Joins, Leaf, Leaving, Pair, Plan, Record, Step, source};
use super::reference::{changed, copies, paired};
use super::timely;
use super::tree::Tree;

/// Declares the streams of one graph.
pub(super) struct Builder<'a> {
    pub(super) env: &'a Environment,
    /// What holds the sources of clocked plans open, after a last record far in the future, until it is true.
    pub(super) held_by: Option<Arc<AtomicBool>>,
    loops: Cell<usize>,
}

pub(super) fn key(record: &Record) -> u8 {
    record.0
}

pub(super) fn failing(nth: u64) -> impl FnMut(Record) -> Result<Record, String> + Clone + Send {
    move |(key, value)| if value % nth == 0 { Err(format!("{value}")) } else { Ok((key, value)) }
}

/// Fails on every so manieth value the first time it sees it.
pub(super) fn failing_once<T: Send>(
    nth: u64,
    value: fn(&T) -> u64,
) -> impl FnMut(T) -> Result<T, &'static str> + Clone {
    let mut failed = false;
    move |record| {
        failed = !failed && value(&record).is_multiple_of(nth);
        if failed { Err("once") } else { Ok(record) }
    }
}

/// At once again.
pub(super) fn retry() -> Retry {
    Retry::up_to(2).backoff(Duration::ZERO, Duration::ZERO)
}

/// Skips, within a budget that is larger than any graph.
pub(super) fn budget() -> ErrorPolicy {
    ErrorPolicy::skip().at_most(1_000_000).at_most_share(1.0)
}

pub(super) fn order(ordered: bool) -> Order {
    if ordered { Order::Ordered } else { Order::Unordered }
}

/// A future that is pending as often as the value says, and then fails on every seventh.
async fn yielding(record: Record) -> Result<Record, &'static str> {
    for _ in 0..record.1 % 3 {
        tokio::task::yield_now().await;
    }
    if record.1.is_multiple_of(7) { Err("every seventh") } else { Ok(record) }
}

/// A record that goes round, and how often it still has to.
type Round = (Record, u64);

fn round((record, left): Round) -> Round {
    if left == 0 { (record, 0) } else { (changed(record), left - 1) }
}

impl<'a> Builder<'a> {
    pub(super) fn new(env: &'a Environment, held_by: Option<Arc<AtomicBool>>) -> Self {
        Self { env, held_by, loops: Cell::new(0) }
    }

    pub(super) fn declare(&self, plan: &Plan) -> DataStream<Record> {
        match plan {
            Tree::Leaf(Leaf::Source { records, replicas }) => {
                let (records, replicas) = (*records, *replicas);
                let part = move |replica| source(records).skip(replica).step_by(replicas);
                self.env.from_factory(part).parallelism(replicas).on_another_thread()
            }
            Tree::Leaf(Leaf::Clocked(leaving, n, clocked)) => self.leave(*leaving, *n, clocked),
            Tree::One(step, n, inner) => self.one(*step, *n, self.declare(inner)),
            Tree::Two(pair, n, left, right) => two(*pair, *n, self.declare(left), self.declare(right)),
        }
    }

    fn leave(&self, leaving: Leaving, n: usize, clocked: &super::plan::Clocked) -> DataStream<Record> {
        let stream = self.declare_clocked(clocked);
        match leaving {
            Leaving::Values => stream.map(|timed| timed.value).on_another_thread(),
            Leaving::Counted(size) => timely::counted(stream, size, n),
            Leaving::Apart(windows, bound) => timely::apart(stream, windows, bound, n),
        }
    }

    pub(super) fn one(&self, step: Step, n: usize, stream: DataStream<Record>) -> DataStream<Record> {
        match step {
            Step::Map => stream.map(changed).parallelism(n).on_another_thread(),
            Step::Filter(nth) => stream.filter(move |record| record.1 % nth == 0).parallelism(n).on_another_thread(),
            Step::FlatMap(times) => {
                let copies = move |(key, value): Record| (0..times).map(move |time| (key, value + time));
                stream.flat_map(copies).parallelism(n).on_another_thread()
            }
            Step::Chain(nth) => {
                let kept = stream.map(changed).filter(move |record| record.1 % nth == 0);
                kept.flat_map_into(|record, out| out.extend([record, changed(record)]))
                    .parallelism(n)
                    .on_another_thread()
            }
            Step::Dawdle(nth) => {
                let dawdle = move |record: &Record| {
                    if record.1.is_multiple_of(nth) {
                        std::thread::yield_now();
                    }
                };
                stream.inspect(dawdle).parallelism(n).on_another_thread()
            }
            Step::Skip(nth) => stream.try_map(failing(nth)).parallelism(n).on_error(budget()).on_another_thread(),
            Step::DeadLetters(nth) => {
                let (alive, dead) = stream.try_map(failing(nth)).parallelism(n).dead_letters();
                alive.union(dead.map(|letter| changed(letter.record)))
            }
            Step::Retry(nth) => stream
                .try_map(failing_once(nth, |record: &Record| record.1))
                .parallelism(n)
                .retry(retry())
                .on_another_thread(),
            Step::Rebalance => stream.rebalance(n),
            Step::Broadcast => stream.broadcast(copies(n)),
            Step::PartitionBy => stream.partition_by(n, |record, n| record.1 as usize % n),
            Step::PartitionByKey => stream.key_by(key).partition(n),
            Step::Sum => stream.key_by(key).fold(0, |sum, record| *sum += record.1).parallelism(n).on_another_thread(),
            Step::Largest => {
                let keyed = stream.key_by_ref(|record| &record.0);
                keyed.reduce(|a, b| a.max(b)).parallelism(n).map(|(_, record)| record).on_another_thread()
            }
            Step::Distinct => stream.distinct().parallelism(n).on_another_thread(),
            Step::Top(most) => {
                let top = stream.key_by(key).top_k(most, |record| record.1).parallelism(n);
                top.flat_map(|(_, records)| records).on_another_thread()
            }
            Step::Visits => {
                let visit = |visits: &mut u64, (key, _): Record| {
                    *visits += 1;
                    (key, *visits)
                };
                stream.key_by(key).map_with_state(0, visit).parallelism(n).on_another_thread()
            }
            Step::Whole => stream.fold(0, |sum, record| *sum += record.1).map(|sum| (0, sum)).on_another_thread(),
            Step::Take(limit) => stream.take(limit).count().map(|count| (0, count)).on_another_thread(),
            Step::Tee => {
                let [one, other] = stream.tee();
                one.map(changed).union(other)
            }
            Step::Five => {
                let [a, b, c, d, e] = stream.tee();
                let plus = |branch: u64| move |(key, value): Record| (key, value + branch);
                let five = a.connect(b).connect(c).connect(d).connect(e);
                five.co_map(plus(0), plus(1), plus(2), plus(3), plus(4)).parallelism(n).on_another_thread()
            }
            Step::Split(nth) => {
                let (main, side) = stream.split(move |record| record.1 % nth == 0);
                main.map(changed).union(side)
            }
            Step::SplitOk(nth) => {
                let results = stream.map(move |record| if record.1 % nth == 0 { Err(record) } else { Ok(record) });
                let (values, errors) = results.parallelism(n).split_ok();
                errors.map(changed).union(values)
            }
            Step::SelfJoin => {
                let [a, b] = stream.tee();
                let a = a.distinct().key_by(key);
                let b = b.filter(|record| record.1 % 2 == 0).distinct().map(|r| (r.0 ^ 1, r.1)).key_by(key);
                let value = |record: Option<Record>| record.map(|record| record.1);
                let pairs = a.join(b).full().parallelism(n);
                pairs.map(move |(key, a, b)| paired(key, value(a), value(b))).distinct().on_another_thread()
            }
            Step::Async { capacity, ordered, retry: false } => {
                let results = stream.try_map_async(capacity, order(ordered), yielding);
                results.on_error(budget()).parallelism(n).on_another_thread()
            }
            Step::Async { capacity, ordered, retry: true } => {
                let results = stream.try_map_async(capacity, order(ordered), yielding).retry(retry());
                results.timeout(Duration::from_secs(600)).on_error(budget()).parallelism(n).on_another_thread()
            }
            Step::Loop(rounds, inside) => self.round_and_round(rounds, inside, n, stream),
        }
    }

    fn round_and_round(&self, rounds: u64, inside: Inside, n: usize, stream: DataStream<Record>) -> DataStream<Record> {
        // Names are unique in an environment.
        let (again, feedback) = self.env.feedback(format!("loop {}", self.loops.replace(self.loops.get() + 1)));
        let entering = stream.map(move |record| (record, record.1 % rounds)).union(again);
        let passed = match inside {
            Inside::Replicas => entering.map(round).parallelism(n).on_another_thread(),
            Inside::Partition => {
                entering.partition_by(n, |(record, _), n| record.1 as usize % n).map(round).on_another_thread()
            }
            Inside::Visits => {
                let keyed = entering.key_by(|(record, _)| record.0);
                let visit = |visits: &mut u64, passing: Round, out: &mut sage::Output<'_, Round>| {
                    *visits += 1;
                    out.push(((passing.0.0, *visits), 0));
                    out.push(round(passing));
                };
                keyed.flat_map_with_state(0, visit).parallelism(n).on_another_thread()
            }
            Inside::Async => {
                let passing = |passing: Round| async move {
                    tokio::task::yield_now().await;
                    round(passing)
                };
                entering.map_async(4, Order::Unordered, passing).parallelism(n).on_another_thread()
            }
            Inside::Tee => {
                let [back, out] = entering.map(round).parallelism(n).tee();
                feedback.fill(back.filter(|(_, left)| *left > 0));
                return out.filter(|(_, left)| *left == 0).map(|(record, _)| record).on_another_thread();
            }
        };
        let (open, done) = passed.split(|(_, left)| *left > 0);
        feedback.fill(open);
        done.map(|(record, _)| record).on_another_thread()
    }
}

fn two(pair: Pair, n: usize, a: DataStream<Record>, b: DataStream<Record>) -> DataStream<Record> {
    match pair {
        Pair::Union => a.union(b),
        Pair::Connect => a.connect(b).co_map(changed, |record| record).parallelism(n).on_another_thread(),
        Pair::CoProcess => {
            let connected = a.key_by(key).connect(b.key_by_ref(|record| &record.0));
            let visit = |visits: &mut u64, record: In2<Record, Record>, out: &mut sage::Output<'_, Record>| {
                let (In2::A((key, _)) | In2::B((key, _))) = record;
                *visits += 1;
                out.push((key, *visits));
            };
            connected.co_process(0, visit).parallelism(n).on_another_thread()
        }
        Pair::Zip => a.zip(b).count().map(|count| (0, count)).on_another_thread(),
        Pair::Join(joins) => {
            let joined = a.distinct().key_by(key).join(b.distinct().key_by(key));
            let value = |record: Option<Record>| record.map(|record| record.1);
            let pairs = match joins {
                Joins::Inner => joined
                    .inner()
                    .parallelism(n)
                    .map(|(key, a, b)| paired(key, Some(a.1), Some(b.1)))
                    .on_another_thread(),
                Joins::Left => joined
                    .left()
                    .parallelism(n)
                    .map(move |(key, a, b)| paired(key, Some(a.1), value(b)))
                    .on_another_thread(),
                Joins::Full => joined
                    .full()
                    .parallelism(n)
                    .map(move |(key, a, b)| paired(key, value(a), value(b)))
                    .on_another_thread(),
            };
            pairs.distinct().on_another_thread()
        }
    }
}
