//! Windows whose records are folded while they are open, so that a window keeps little more than the folded value.
//!
//! The function of a program is called for a block of records, as a thread that attaches may have to wait. What does
//! not fill a block goes on with the result, and is folded behind the window, where many results come together. Either
//! way the function sees the records of a window one by one, in their order.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use sage::{BoxError, Count, DataStream, FoldFunction, Pipe, Sliding, Stream, Timed, Tumbling, Windowed};

use crate::Record;
use crate::error::attempt;
use crate::object::Object;
use crate::records::Records;
use crate::spec::{Spec, Windows};
use crate::steps::Step;
use crate::thread::{self, attach, call};
use crate::value::{Key, Value};
use crate::windows::{at_its_time, ended, on_signal, parted, result};

/// How many records of a window wait for the function.
const BLOCK_RECORDS: usize = 256;

/// What a window has of its records.
#[derive(Clone, Default)]
struct Folded {
    /// A tuple of what they were made, none before the first block.
    so_far: Option<Object>,
    /// Those that wait; a record may be in several windows.
    waiting: Vec<Arc<Record>>,
}

impl Folded {
    fn take(&mut self, record: &Arc<Record>, function: &Py<PyAny>) -> Result<(), BoxError> {
        self.waiting.push(Arc::clone(record));
        if self.waiting.len() >= BLOCK_RECORDS {
            attempt(|py| self.fold(py, function))?;
        }
        Ok(())
    }

    /// Calls the function for the records that wait.
    fn fold(&mut self, py: Python<'_>, function: &Py<PyAny>) -> PyResult<()> {
        let so_far = match self.so_far.take() {
            Some(so_far) => so_far.into_bound(py),
            None => PyTuple::empty(py).into_any(),
        };
        let records = self.waiting.drain(..).map(|record| Arc::unwrap_or_clone(record).value.into_object(py));
        let records = Records::of_list(PyList::new(py, records.collect::<PyResult<Vec<_>>>()?)?)?;
        let arguments = (so_far, records.object(py)).into_pyobject(py)?;
        let of = thread::watched();
        records.begin(py, &of, usize::MAX);
        self.so_far = Some(of.run(None, || call(function.bind(py), &arguments, None))?.into());
        // Those that it has not come to within its time wait again, while the engine sees what is asked of it.
        self.waiting.extend(records.rest(py).into_iter().map(|record| Arc::new(Record::of(record))));
        Ok(())
    }

    /// A pair of what they were made, in a tuple if it is there, and the records that are left.
    fn value(self) -> Value {
        let so_far = self.so_far.map_or_else(|| Value::Tuple(Box::default()), Value::Object);
        let left = self.waiting.into_iter().map(|record| Arc::unwrap_or_clone(record).value);
        Value::Tuple([so_far, Value::List(left.collect())].into())
    }
}

/// The result of a window; attached once for all its records.
fn folded(window: Timed<Windowed<Arc<Key>, Folded>>) -> Record {
    result(window.map(|Windowed { key, window, value, partial }| {
        let value = attach(|_py| value.value());
        Windowed { key, window, value, partial }
    }))
}

/// The function of a program that folds.
#[derive(Clone)]
struct Folding(Object);

impl FoldFunction<Folded, &Arc<Record>> for Folding {
    fn fold(&mut self, folded: &mut Folded, record: &Arc<Record>) -> Result<(), BoxError> {
        folded.take(record, &self.0)
    }
}

/// Cuts a keyed stream into windows and folds their records; its outputs are those of `windows::window`.
pub(crate) fn window<P: Pipe<Out = Record>>(
    stream: Stream<P>,
    step: &Step,
    spec: &Spec,
) -> PyResult<Vec<DataStream<Record>>> {
    let &Spec::Window { windows, by_clock, late, emits_cut, .. } = spec else { return Err(step.refused()) };
    let on_signal = on_signal(emits_cut);
    let (start, function) = (Folded::default(), Folding(step.make.clone()));
    if by_clock {
        let keyed = stream.map(Arc::new).key_by(|record| record.key());
        return Ok(match windows {
            Windows::Tumbling { size } => {
                let windowed = keyed.window_by_clock(Tumbling::of(size.0)).on_signal(on_signal);
                ended(windowed.fold_with(start, function), step, folded)
            }
            Windows::Sliding { size, every } => {
                let windowed = keyed.window_by_clock(Sliding::of(size.0, every.0)).on_signal(on_signal);
                ended(windowed.fold_with(start, function), step, folded)
            }
            Windows::Session { .. } | Windows::Count { .. } => return Err(step.refused()),
        });
    }
    let keyed = stream.map(|record| at_its_time(record).map(Arc::new)).key_by(|timed| timed.value.key());
    let late_record = Arc::unwrap_or_clone;
    Ok(match windows {
        Windows::Tumbling { size } => {
            let windowed = keyed.window(Tumbling::of(size.0)).on_signal(on_signal);
            parted(windowed.fold_with(start, function), step, late, folded, late_record)
        }
        Windows::Sliding { size, every } => {
            let windowed = keyed.window(Sliding::of(size.0, every.0)).on_signal(on_signal);
            parted(windowed.fold_with(start, function), step, late, folded, late_record)
        }
        Windows::Count { records } => {
            let windowed = keyed.window(Count::of(records)).on_signal(on_signal);
            ended(windowed.fold_with(start, function), step, folded)
        }
        Windows::Session { .. } => return Err(step.refused()),
    })
}
