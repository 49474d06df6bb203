//! Joins of two keyed streams by their keys, and pairs of two streams by their order.

use std::sync::Arc;

use pyo3::prelude::*;
use sage::{DataStream, Sliding, Timed, Tumbling, Windowed};

use crate::Record;
use crate::error::SubmitError;
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
    ($joined:expr, $step:expr, $how:expr, $pair:ident) => {{
        let joined = $joined;
        match $how {
            "inner" => joined.inner().parallelism($step.parallelism).named(&*$step.name).map($pair).boxed(),
            "left" => joined.left().parallelism($step.parallelism).named(&*$step.name).map($pair).boxed(),
            "full" => joined.full().parallelism($step.parallelism).named(&*$step.name).map($pair).boxed(),
            how => return Err(SubmitError::new_err(format!("there is no join `{how}`"))),
        }
    }};
}

/// Pairs the records of two streams by their order.
pub(crate) fn zip(
    py: Python<'_>,
    left: DataStream<Record>,
    right: DataStream<Record>,
    step: &Step,
) -> PyResult<DataStream<Record>> {
    let pairs = left.zip(right).max_ahead(step.required(py, "max_ahead")?).named(&*step.name);
    Ok(pairs.map(|(left, right)| Record::from(Value::Tuple([left.value, right.value].into()))).boxed())
}

/// Joins two keyed streams; in windows of event time, where the step has some.
pub(crate) fn join(
    py: Python<'_>,
    left: DataStream<Record>,
    right: DataStream<Record>,
    step: &Step,
) -> PyResult<DataStream<Record>> {
    let how: String = step.required(py, "how")?;
    let most: usize = step.required(py, "max_records")?;
    let windows: Option<String> = step.option(py, "windows")?;
    let Some(windows) = windows else {
        let joined = left.key_by(Record::key).join(right.key_by(Record::key)).max_records(most);
        return Ok(joined!(joined, step, &*how, pair));
    };
    let length = |name| step.seconds(py, name).map(Option::unwrap_or_default);
    let left = left.map(at_its_time).key_by(|timed| timed.value.key());
    let joined = left.join(right.map(at_its_time).key_by(|timed| timed.value.key()));
    Ok(match &*windows {
        "tumbling" => {
            let joined = joined.window(Tumbling::of(length("size")?)).max_records(most);
            joined!(joined, step, &*how, pair_in_window)
        }
        "sliding" => {
            let joined = joined.window(Sliding::of(length("size")?, length("every")?)).max_records(most);
            joined!(joined, step, &*how, pair_in_window)
        }
        windows => return Err(SubmitError::new_err(format!("streams cannot be joined in `{windows}` windows"))),
    })
}
