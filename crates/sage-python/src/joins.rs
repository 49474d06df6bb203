//! Joins of two keyed streams by their keys, and pairs of two streams by their order.

use std::sync::Arc;

use pyo3::prelude::*;
use sage::{
    Aligned, DataStream, KeySelector, ParallelStep, Pipe, Sliding, Stream, Timed, Tumbling, Windowed, WindowedJoin,
};

use crate::Record;
use crate::spec::{Spec, Windows};
use crate::steps::Step;
use crate::value::{Key, Value};
use crate::windows::{self, at_its_time, on_signal, seconds};

/// What a pair has on either side: a record, or `None` where it has no partner.
fn side(record: impl Into<Option<Record>>) -> Value {
    record.into().map_or(Value::None, |record| record.value)
}

fn pair<A: Into<Option<Record>>, B: Into<Option<Record>>>((key, left, right): (Arc<Key>, A, B)) -> Record {
    Record::from(Value::Tuple([key.value(), side(left), side(right)].into()))
}

fn pair_in_window<A, B>(pair: Timed<Windowed<Arc<Key>, (A, B)>>) -> Record
where
    A: Into<Option<Record>>,
    B: Into<Option<Record>>,
{
    let Windowed { key, window, value: (left, right), partial } = pair.value;
    let fields = [key.value(), seconds(window.start), seconds(window.end), side(left), side(right)];
    Record { time: pair.time.millis(), ..Record::from(windows::fields(fields, partial)) }
}

/// Ends a step that joins.
fn ended<P: ParallelStep>(joined: Stream<P>, step: &Step, pair: fn(P::Out) -> Record) -> DataStream<Record> {
    joined.parallelism(step.parallelism).named(&*step.name).map(pair).on_another_thread()
}

/// Joins in windows, of which records of the left side and of the right one come out alone if `sides` says so.
fn in_windows<P, S, Q, R, W>(
    joined: WindowedJoin<P, S, Q, R, W>,
    step: &Step,
    sides: (bool, bool),
) -> DataStream<Record>
where
    P: Pipe<Out = Timed<Record>>,
    S: KeySelector<Timed<Record>, Key = Arc<Key>>,
    Q: Pipe<Out = Timed<Record>>,
    R: KeySelector<Timed<Record>, Key = Arc<Key>>,
    W: Aligned,
{
    match sides {
        (false, false) => ended(joined.inner(), step, pair_in_window),
        (true, false) => ended(joined.left(), step, pair_in_window),
        (_, true) => ended(joined.full(), step, pair_in_window),
    }
}

/// Pairs the records of two streams by their order.
pub(crate) fn zip(
    left: DataStream<Record>,
    right: DataStream<Record>,
    step: &Step,
    max_ahead: usize,
) -> DataStream<Record> {
    let pairs = left.zip(right).max_ahead(max_ahead).named(&*step.name);
    pairs.map(|(left, right)| Record::from(Value::Tuple([left.value, right.value].into()))).on_another_thread()
}

/// Joins two keyed streams; in windows of event time, where the step has some.
pub(crate) fn join(
    left: DataStream<Record>,
    right: DataStream<Record>,
    step: &Step,
    spec: &Spec,
) -> PyResult<DataStream<Record>> {
    let &Spec::Join { lefts, rights, max_records: most, windows, emits_cut } = spec else { return Err(step.refused()) };
    let sides = (lefts, rights);
    let Some(windows) = windows else {
        let joined = left.key_by(Record::key).join(right.key_by(Record::key)).max_records(most);
        return Ok(match sides {
            (false, false) => ended(joined.inner(), step, pair),
            (true, false) => ended(joined.left(), step, pair),
            (_, true) => ended(joined.full(), step, pair),
        });
    };
    let left = left.map(at_its_time).key_by(|timed| timed.value.key());
    let joined = left.join(right.map(at_its_time).key_by(|timed| timed.value.key()));
    Ok(match windows {
        Windows::Tumbling { size } => {
            let windowed = joined.window(Tumbling::of(size.0)).on_signal(on_signal(emits_cut));
            in_windows(windowed.max_records(most), step, sides)
        }
        Windows::Sliding { size, every } => {
            let windowed = joined.window(Sliding::of(size.0, every.0)).on_signal(on_signal(emits_cut));
            in_windows(windowed.max_records(most), step, sides)
        }
        Windows::Session { .. } | Windows::Count { .. } => return Err(step.refused()),
    })
}
