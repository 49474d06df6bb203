//! Joins of two keyed streams by their keys, and pairs of two streams by their order.

use std::sync::Arc;

use pyo3::prelude::*;
use sage::{DataStream, Sliding, Timed, Tumbling, Windowed};

use crate::Record;
use crate::spec::{Spec, Windows};
use crate::steps::Step;
use crate::value::{Key, Value};
use crate::windows::{at_its_time, seconds};

/// What a pair has on either side: a record, or `None` where it has no partner.
trait Side {
    fn value(self) -> Value;
}

impl Side for Record {
    fn value(self) -> Value {
        self.value
    }
}

impl Side for Option<Record> {
    fn value(self) -> Value {
        self.map_or(Value::None, |record| record.value)
    }
}

fn pair<A: Side, B: Side>((key, left, right): (Arc<Key>, A, B)) -> Record {
    Record::from(Value::Tuple([key.value(), left.value(), right.value()].into()))
}

fn pair_in_window<A: Side, B: Side>(pair: Timed<Windowed<Arc<Key>, (A, B)>>) -> Record {
    let Windowed { key, window, value: (left, right) } = pair.value;
    let fields = [key.value(), seconds(window.start), seconds(window.end), left.value(), right.value()];
    Record { time: pair.time.millis(), ..Record::from(Value::Tuple(fields.into())) }
}

/// Ends a step that joins. A macro, as the types of the streams have no names here.
macro_rules! joined {
    ($joined:expr, $step:expr, $sides:expr, $pair:ident) => {{
        let joined = $joined;
        match $sides {
            (false, false) => joined.inner().parallelism($step.parallelism).named(&*$step.name).map($pair).boxed(),
            (true, false) => joined.left().parallelism($step.parallelism).named(&*$step.name).map($pair).boxed(),
            (_, true) => joined.full().parallelism($step.parallelism).named(&*$step.name).map($pair).boxed(),
        }
    }};
}

/// Pairs the records of two streams by their order.
pub(crate) fn zip(
    left: DataStream<Record>,
    right: DataStream<Record>,
    step: &Step,
    max_ahead: usize,
) -> DataStream<Record> {
    let pairs = left.zip(right).max_ahead(max_ahead).named(&*step.name);
    pairs.map(|(left, right)| Record::from(Value::Tuple([left.value, right.value].into()))).boxed()
}

/// Joins two keyed streams; in windows of event time, where the step has some.
pub(crate) fn join(
    left: DataStream<Record>,
    right: DataStream<Record>,
    step: &Step,
    spec: &Spec,
) -> PyResult<DataStream<Record>> {
    let &Spec::Join { lefts, rights, max_records: most, windows } = spec else { return Err(step.refused()) };
    let sides = (lefts, rights);
    let Some(windows) = windows else {
        let joined = left.key_by(Record::key).join(right.key_by(Record::key)).max_records(most);
        return Ok(joined!(joined, step, sides, pair));
    };
    let left = left.map(at_its_time).key_by(|timed| timed.value.key());
    let joined = left.join(right.map(at_its_time).key_by(|timed| timed.value.key()));
    Ok(match windows {
        Windows::Tumbling { size } => {
            joined!(joined.window(Tumbling::of(size.0)).max_records(most), step, sides, pair_in_window)
        }
        Windows::Sliding { size, every } => {
            joined!(joined.window(Sliding::of(size.0, every.0)).max_records(most), step, sides, pair_in_window)
        }
        Windows::Session { .. } | Windows::Count { .. } => return Err(step.refused()),
    })
}
