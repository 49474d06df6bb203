//! Windows of a keyed stream.
//!
//! What a window gathers here are the records themselves, or their number: the functions of a program run behind it,
//! over many results at a time, and the operator itself never waits for the interpreter. Those that fold their records
//! are in `folds.rs`.

use std::sync::Arc;

use pyo3::prelude::*;
use sage::{
    Count, DataStream, OnSignal, ParallelStep, Pipe, Session, Sliding, Stream, Timed, Timestamp, Tumbling, Window,
    WindowStep, Windowed,
};

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

/// What becomes of windows that a signal cuts.
pub(crate) fn on_signal(emits_cut: bool) -> OnSignal {
    if emits_cut { OnSignal::Emit } else { OnSignal::Drop }
}

/// What a result has: these fields, and one more behind them if it is partial.
pub(crate) fn fields<const N: usize>(fields: [Value; N], partial: bool) -> Value {
    let partial = partial.then_some(Value::Bool(true));
    Value::Tuple(fields.into_iter().chain(partial).collect())
}

/// A result, as the functions behind a window get it: key, begin and end of the window, and what was gathered.
pub(crate) fn result(result: Timed<Windowed<Arc<Key>, Value>>) -> Record {
    let Windowed { key, window, value, partial } = result.value;
    let fields = fields([key.value(), seconds(window.start), seconds(window.end), value], partial);
    Record { time: result.time.millis(), ..Record::from(fields) }
}

fn counted(count: Timed<Windowed<Arc<Key>, u64>>) -> Record {
    result(count.map(|Windowed { key, window, value, partial }| {
        let value = Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
        Windowed { key, window, value, partial }
    }))
}

/// The values of records, attached once for all of them.
fn values(_key: &Arc<Key>, _window: Window, records: &[Record]) -> Value {
    attach(|_py| Value::List(records.iter().map(|record| record.value.clone()).collect()))
}

/// Ends a step of windows.
pub(crate) fn ended<P: ParallelStep>(stream: Stream<P>, step: &Step, result: fn(P::Out) -> Record) -> Outputs {
    vec![stream.parallelism(step.parallelism).named(&*step.name).map(result).on_another_thread()]
}

/// Ends a step of windows; its second output are the records that came too late, if they are asked for.
pub(crate) fn parted<P: WindowStep>(
    stream: Stream<P>,
    step: &Step,
    late: bool,
    result: fn(P::Out) -> Record,
    record: fn(P::Late) -> Record,
) -> Outputs {
    if !late {
        return ended(stream, step, result);
    }
    let (stream, late) = stream.split_late();
    let mut outputs = ended(stream, step, result);
    outputs.push(late.map(move |late| record(late.value)).on_another_thread());
    outputs
}

type Outputs = Vec<DataStream<Record>>;

/// Cuts a keyed stream into windows; its second output are the records that came too late, if they are asked for.
pub(crate) fn window<P: Pipe<Out = Record>>(
    stream: Stream<P>,
    step: &Step,
    spec: &Spec,
) -> PyResult<Vec<DataStream<Record>>> {
    let &Spec::Window { windows, counts: is_count, lateness: Seconds(lateness), by_clock, late, emits_cut, .. } = spec
    else {
        return Err(step.refused());
    };
    let on_signal = on_signal(emits_cut);
    if by_clock {
        let keyed = stream.key_by(Record::key);
        return Ok(match (windows, is_count) {
            (Windows::Tumbling { size }, true) => {
                ended(keyed.window_by_clock(Tumbling::of(size.0)).on_signal(on_signal).count(), step, counted)
            }
            (Windows::Tumbling { size }, false) => {
                ended(keyed.window_by_clock(Tumbling::of(size.0)).on_signal(on_signal).apply(values), step, result)
            }
            (Windows::Sliding { size, every }, true) => {
                ended(keyed.window_by_clock(Sliding::of(size.0, every.0)).on_signal(on_signal).count(), step, counted)
            }
            (Windows::Sliding { size, every }, false) => ended(
                keyed.window_by_clock(Sliding::of(size.0, every.0)).on_signal(on_signal).apply(values),
                step,
                result,
            ),
            (Windows::Session { gap }, true) => {
                ended(keyed.window_by_clock(Session::gap(gap.0)).on_signal(on_signal).count(), step, counted)
            }
            (Windows::Session { gap }, false) => {
                ended(keyed.window_by_clock(Session::gap(gap.0)).on_signal(on_signal).apply(values), step, result)
            }
            (Windows::Count { .. }, _) => return Err(step.refused()),
        });
    }
    let keyed = stream.map(at_its_time).key_by(|timed| timed.value.key());
    let same = |late| late;
    Ok(match (windows, is_count) {
        (Windows::Tumbling { size }, true) => {
            let windowed = keyed.window(Tumbling::of(size.0)).allowed_lateness(lateness).on_signal(on_signal);
            parted(windowed.count(), step, late, counted, same)
        }
        (Windows::Tumbling { size }, false) => {
            let windowed = keyed.window(Tumbling::of(size.0)).allowed_lateness(lateness).on_signal(on_signal);
            parted(windowed.apply(values), step, late, result, same)
        }
        (Windows::Sliding { size, every }, true) => {
            let windowed = keyed.window(Sliding::of(size.0, every.0)).allowed_lateness(lateness).on_signal(on_signal);
            parted(windowed.count(), step, late, counted, same)
        }
        (Windows::Sliding { size, every }, false) => {
            let windowed = keyed.window(Sliding::of(size.0, every.0)).allowed_lateness(lateness).on_signal(on_signal);
            parted(windowed.apply(values), step, late, result, same)
        }
        (Windows::Session { gap }, true) => {
            let windowed = keyed.window(Session::gap(gap.0)).allowed_lateness(lateness).on_signal(on_signal);
            parted(windowed.count(), step, late, counted, same)
        }
        (Windows::Session { gap }, false) => {
            let windowed = keyed.window(Session::gap(gap.0)).allowed_lateness(lateness).on_signal(on_signal);
            parted(windowed.apply(values), step, late, result, same)
        }
        (Windows::Count { records }, true) => {
            ended(keyed.window(Count::of(records)).on_signal(on_signal).count(), step, counted)
        }
        (Windows::Count { records }, false) => {
            ended(keyed.window(Count::of(records)).on_signal(on_signal).apply(values), step, result)
        }
    })
}
