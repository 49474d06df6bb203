//! Declares the streams of a clocked plan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sage::{
    BoxError, Count, DataStream, Next, OutOfOrder, Pipe, Session, Sliding, Source, SourceContext, Stream, Timed,
    Tumbling, Windowed,
};

use super::build::{Builder, budget, failing_once, order, retry};
use super::plan::{Clock, Clocked, Joins, Meeting, Record, SPAN, Timely, Way, Windows, stamp};
use super::reference::{changed, copies, digest, gathered, given, paired};
use super::tree::Tree;

pub(super) type TimedStream = DataStream<Timed<Record>>;

pub(super) fn by(millis: u64) -> OutOfOrder {
    OutOfOrder::by(ms(millis))
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Gives its records, and then stays open until it is let go.
struct Open {
    records: std::vec::IntoIter<Timed<Record>>,
    held_by: Option<Arc<AtomicBool>>,
}

impl Source for Open {
    type Item = Timed<Record>;

    fn next(&mut self, cx: &SourceContext) -> Result<Next<Self::Item>, BoxError> {
        if let Some(record) = self.records.next() {
            return Ok(Next::Record(record));
        }
        if self.held_by.as_ref().is_none_or(|let_go| let_go.load(Ordering::Acquire)) {
            return Ok(Next::End);
        }
        cx.wait(Duration::from_micros(500));
        Ok(Next::Idle)
    }
}

fn key(timed: &Timed<Record>) -> u8 {
    timed.value.0
}

/// The records in windows, gathered by the expression; of the kind of windows the plan says.
macro_rules! in_windows {
    ($windows:expr, |$kind:ident| $gathered:expr) => {
        match $windows {
            Windows::Tumbling(size) => {
                let $kind = Tumbling::of(ms(size));
                $gathered
            }
            Windows::Sliding(size, every) => {
                let $kind = Sliding::of(ms(size), ms(every));
                $gathered
            }
            Windows::Session(gap) => {
                let $kind = Session::gap(ms(gap));
                $gathered
            }
        }
    };
}
pub(super) use in_windows;

/// What a window gave as a record that tells it.
fn told(way: Way) -> impl FnMut(Timed<Windowed<u8, Vec<u64>>>) -> Timed<Record> + Clone + Send {
    move |result| {
        assert_eq!(result.time, result.value.window.last(), "a result has the last time of its window");
        result.map(|it| (it.key, gathered(way, it.window, &it.value)))
    }
}

impl Builder<'_> {
    pub(super) fn declare_clocked(&self, clocked: &Clocked) -> TimedStream {
        match clocked {
            Tree::Leaf(Clock::Stamped(plan)) => self.declare(plan).with_timestamps(stamp, by(SPAN)).on_another_thread(),
            Tree::Leaf(Clock::Events(events)) => {
                let (events, held_by) = (*events, self.held_by.clone());
                let source = move |replica| Open {
                    records: given(&events, replica, held_by.is_some()).into_iter(),
                    held_by: held_by.clone(),
                };
                let stream = self.env.from_source(source).parallelism(events.replicas);
                let timed = stream.with_timestamps(|timed: &Timed<Record>| timed.time, by(events.bound));
                timed.map(|timed| timed.value).on_another_thread()
            }
            Tree::One(step, n, inner) => one(*step, *n, self.declare_clocked(inner)),
            Tree::Two(meeting, n, left, right) => {
                meet(*meeting, *n, self.declare_clocked(left), self.declare_clocked(right))
            }
        }
    }
}

fn one(step: Timely, n: usize, stream: TimedStream) -> TimedStream {
    let failing =
        |nth: u64| move |timed: Timed<Record>| if timed.value.1.is_multiple_of(nth) { Err("nth") } else { Ok(timed) };
    let changing = |timed: Timed<Record>| timed.map(changed);
    match step {
        Timely::Map => stream.map(changing).parallelism(n).on_another_thread(),
        Timely::Filter(nth) => stream.filter(move |timed| timed.value.1 % nth == 0).parallelism(n).on_another_thread(),
        Timely::FlatMap(times) => {
            let copies =
                move |timed: Timed<Record>| (0..times).map(move |time| timed.map(|(key, value)| (key, value + time)));
            stream.flat_map(copies).parallelism(n).on_another_thread()
        }
        Timely::Skip(nth) => stream.try_map(failing(nth)).parallelism(n).on_error(budget()).on_another_thread(),
        Timely::DeadLetters(nth) => {
            let (alive, dead) = stream.try_map(failing(nth)).parallelism(n).dead_letters();
            alive.union(dead.map(move |letter| changing(letter.record)))
        }
        Timely::Retry(nth) => {
            let once = failing_once(nth, |timed: &Timed<Record>| timed.value.1);
            stream.try_map(once).parallelism(n).retry(retry()).on_another_thread()
        }
        Timely::OtherThread => stream.on_another_thread(),
        Timely::Rebalance => stream.rebalance(n),
        Timely::Broadcast => stream.broadcast(copies(n)),
        Timely::PartitionBy => stream.partition_by(n, |timed, n| timed.value.1 as usize % n),
        Timely::PartitionByKey => stream.key_by(key).partition(n),
        Timely::State => stream.key_by(key).map_with_state((), |(), timed| timed).parallelism(n).on_another_thread(),
        Timely::Distinct => stream.distinct().parallelism(n).on_another_thread(),
        Timely::Tee => {
            let [one, other] = stream.tee();
            one.map(changing).union(other)
        }
        Timely::Split(nth) => {
            let (main, side) = stream.split(move |timed| timed.value.1 % nth == 0);
            main.map(changing).union(side)
        }
        Timely::Async { capacity, ordered } => {
            let yielding = |timed: Timed<Record>| async move {
                for _ in 0..timed.value.1 % 3 {
                    tokio::task::yield_now().await;
                }
                timed
            };
            stream.map_async(capacity, order(ordered), yielding).parallelism(n).on_another_thread()
        }
        Timely::Window { windows, way, lateness } => {
            in_windows!(windows, |kind| {
                let windowed = stream.key_by(key).window(kind).allowed_lateness(ms(lateness));
                match way {
                    Way::Apply => windowed
                        .apply(|_, _, records: &[Record]| records.iter().map(|record| record.1).collect())
                        .parallelism(n)
                        .map(told(way))
                        .on_another_thread(),
                    Way::Fold => windowed
                        .fold(Vec::new(), |values: &mut Vec<u64>, record: &Record| values.push(record.1))
                        .parallelism(n)
                        .map(told(way))
                        .on_another_thread(),
                    Way::Reduce => windowed
                        .reduce(|a, b| a.max(b))
                        .parallelism(n)
                        .map(|result| result.map(|it| (it.key, digest(it.window, vec![it.value.1]))))
                        .on_another_thread(),
                    Way::Count => windowed
                        .count()
                        .parallelism(n)
                        .map(|result| result.map(|it| (it.key, digest(it.window, vec![it.value]))))
                        .on_another_thread(),
                }
            })
        }
    }
}

fn meet(meeting: Meeting, n: usize, a: TimedStream, b: TimedStream) -> TimedStream {
    match meeting {
        Meeting::Union => a.union(b),
        Meeting::Connect => {
            a.connect(b).co_map(|timed| timed.map(changed), |timed| timed).parallelism(n).on_another_thread()
        }
        Meeting::Join { size, every, joins } => {
            // Equal records are one: joins of joins would grow without bound.
            let joined = a.distinct().key_by(key).join(b.distinct().key_by(key));
            macro_rules! of {
                ($windowed:expr) => {{
                    let windowed = $windowed;
                    match joins {
                        Joins::Inner => pairs(windowed.inner().parallelism(n), |(a, b)| (Some(a), Some(b))),
                        Joins::Left => pairs(windowed.left().parallelism(n), |(a, b)| (Some(a), b)),
                        Joins::Full => pairs(windowed.full().parallelism(n), |pair| pair),
                    }
                }};
            }
            if size == every {
                of!(joined.window(Tumbling::of(ms(size))))
            } else {
                of!(joined.window(Sliding::of(ms(size), ms(every))))
            }
        }
    }
}

fn pairs<P, V>(joined: Stream<P>, both: fn(V) -> (Option<Record>, Option<Record>)) -> TimedStream
where
    P: Pipe<Out = Timed<Windowed<u8, V>>>,
    V: Send + 'static,
{
    let told = move |pair: Timed<Windowed<u8, V>>| {
        assert_eq!(pair.time, pair.value.window.last(), "a result has the last time of its window");
        pair.map(|it| {
            let (a, b) = both(it.value);
            paired(it.key, a.map(|a| a.1), b.map(|b| b.1))
        })
    };
    joined.map(told).distinct().on_another_thread()
}

/// All records, and how many there were in each window of so many.
pub(super) fn counted(stream: TimedStream, size: u64, n: usize) -> DataStream<Record> {
    let windows = stream.key_by(key).window(Count::of(size)).apply(|key, _, records: &[Record]| {
        let mut all = records.to_vec();
        all.push((*key, records.len() as u64));
        all
    });
    windows.parallelism(n).flat_map(|result| result.value.value).on_another_thread()
}

/// All records again, be they in a window or late.
pub(super) fn apart(stream: TimedStream, windows: Windows, bound: u64, n: usize) -> DataStream<Record> {
    let early = stream.with_timestamps(|timed| timed.time, by(bound)).map(|timed| timed.value);
    in_windows!(windows, |kind| {
        let windowed = early.key_by(key).window(kind).apply(|_, _, records: &[Record]| records.to_vec());
        let (windows, late) = windowed.parallelism(n).split_late();
        windows.flat_map(|result| result.value.value).union(late.map(|timed| timed.value))
    })
}
