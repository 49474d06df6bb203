//! Windows of a keyed stream.
//!
//! What a window gathers here are the records themselves, or their number: the functions of a program run behind it,
//! over many results at a time, and the operator itself never waits for the interpreter. Those that fold their records
//! are in `folds.rs`.

use std::sync::Arc;

use pyo3::prelude::*;
use sage::{Count, DataStream, Pipe, Session, Sliding, Stream, Timed, Timestamp, Tumbling, Window, Windowed};

use crate::Record;
use crate::spec::{Seconds, Spec, Windows};
use crate::steps::Step;
use crate::thread::attach;
use crate::value::{Key, Value};

/// Gives each record the time it carries.
pub(crate) fn at_its_time(record: Record) -> Timed<Record> {
    Timed { time: Timestamp::from_millis(record.time), value: record }
}

/// The moment in seconds since 1970.
pub(crate) fn seconds(time: Timestamp) -> Value {
    Value::Float(time.millis() as f64 / 1000.0)
}

/// A result, as the functions behind a window get it: key, begin and end of the window, and what was gathered.
pub(crate) fn result(result: Timed<Windowed<Arc<Key>, Value>>) -> Record {
    let Windowed { key, window, value } = result.value;
    let fields = [key.value(), seconds(window.start), seconds(window.end), value];
    Record { time: result.time.millis(), ..Record::from(Value::Tuple(fields.into())) }
}

fn counted(result: Timed<Windowed<Arc<Key>, u64>>) -> Timed<Windowed<Arc<Key>, Value>> {
    result.map(|Windowed { key, window, value }| {
        let value = Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
        Windowed { key, window, value }
    })
}

/// The values of records, attached once for all of them.
fn values(_key: &Arc<Key>, _window: Window, records: &[Record]) -> Value {
    attach(|_py| Value::List(records.iter().map(|record| record.value.clone()).collect()))
}

/// Ends a step of windows. A macro, as the types of the streams have no names here.
macro_rules! gathered {
    ($windowed:expr, $step:expr, $is_count:expr, late: $late:expr) => {
        match ($is_count, $late) {
            (true, true) => {
                let (stream, late) = $windowed.count().parallelism($step.parallelism).named(&*$step.name).split_late();
                vec![stream.map(counted).map(result).boxed(), late.map(|late| late.value).boxed()]
            }
            (false, true) => {
                let (stream, late) =
                    $windowed.apply(values).parallelism($step.parallelism).named(&*$step.name).split_late();
                vec![stream.map(result).boxed(), late.map(|late| late.value).boxed()]
            }
            (is_count, false) => gathered!($windowed, $step, is_count),
        }
    };
    ($windowed:expr, $step:expr, $is_count:expr) => {
        if $is_count {
            let stream = $windowed.count().parallelism($step.parallelism).named(&*$step.name);
            vec![stream.map(counted).map(result).boxed()]
        } else {
            let stream = $windowed.apply(values).parallelism($step.parallelism).named(&*$step.name);
            vec![stream.map(result).boxed()]
        }
    };
}

/// Cuts a keyed stream into windows; its second output are the records that came too late, if they are asked for.
pub(crate) fn window<P: Pipe<Out = Record>>(
    stream: Stream<P>,
    step: &Step,
    spec: &Spec,
) -> PyResult<Vec<DataStream<Record>>> {
    let &Spec::Window { windows, counts: is_count, lateness: Seconds(lateness), by_clock, late, .. } = spec else {
        return Err(step.refused());
    };
    if by_clock {
        let keyed = stream.key_by(Record::key);
        return Ok(match windows {
            Windows::Tumbling { size } => gathered!(keyed.window_by_clock(Tumbling::of(size.0)), step, is_count),
            Windows::Sliding { size, every } => {
                gathered!(keyed.window_by_clock(Sliding::of(size.0, every.0)), step, is_count)
            }
            Windows::Session { gap } => gathered!(keyed.window_by_clock(Session::gap(gap.0)), step, is_count),
            Windows::Count { .. } => return Err(step.refused()),
        });
    }
    let keyed = stream.map(at_its_time).key_by(|timed| timed.value.key());
    Ok(match windows {
        Windows::Tumbling { size } => {
            gathered!(keyed.window(Tumbling::of(size.0)).allowed_lateness(lateness), step, is_count, late: late)
        }
        Windows::Sliding { size, every } => {
            let windowed = keyed.window(Sliding::of(size.0, every.0)).allowed_lateness(lateness);
            gathered!(windowed, step, is_count, late: late)
        }
        Windows::Session { gap } => {
            gathered!(keyed.window(Session::gap(gap.0)).allowed_lateness(lateness), step, is_count, late: late)
        }
        Windows::Count { records } => gathered!(keyed.window(Count::of(records)), step, is_count),
    })
}
