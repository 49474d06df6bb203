//! Python functions that follow each other, run over many records at a time.
//!
//! The Python package makes one function of them, which loops over an iterator of records; so the interpreter calls the
//! functions itself, as it would in a loop by hand. Which record one of them failed at, and which one, is found out
//! only then: from how far the iterator has got, and from the line in the traceback.

use std::sync::Arc;
use std::time::Instant;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyTuple};
use sage::{AtRecord, BoxError, CloseContext, Emit, Fault, FinishContext, OpenContext, Operator, Sink, StopReason};

use crate::Record;
use crate::blocks::{MOST_RECORDS, Pace, left, parts};
use crate::error::{NotAwaited, Raised};
use crate::thread::{Kept, attach, call, call_method};
use crate::value::Key;

/// Calls the method `close` of an adapter.
pub(crate) fn close(py: Python<'_>, adapter: &Py<PyAny>) -> Result<(), BoxError> {
    match call_method(py, adapter, "close") {
        Ok(_) => Ok(()),
        Err(exception) => Err(Raised::new(py, exception, None).into()),
    }
}

/// What comes with each record, into a chain or out of it.
#[derive(Clone, Copy, Default, FromPyObject)]
pub(crate) struct Form {
    #[pyo3(attribute)]
    keyed: bool,
    #[pyo3(attribute)]
    timed: bool,
}

impl Form {
    /// The object that the functions get: the record, with its key and its time before it where those come along.
    fn object(self, record: Record, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let Record { value, key, time, .. } = record;
        let value = value.into_object(py)?;
        if !self.keyed && !self.timed {
            return Ok(value);
        }
        let mut parts = Vec::with_capacity(3);
        if self.keyed {
            parts.push(key.map_or_else(|| Ok(py.None().into_bound(py)), |key| key.object(py))?);
        }
        if self.timed {
            parts.push(time.into_pyobject(py)?.into_any());
        }
        parts.push(value);
        Ok(PyTuple::new(py, parts)?.into_any())
    }

    /// The record that an object is which the functions gave.
    fn record(self, object: Bound<'_, PyAny>) -> PyResult<Record> {
        if !self.keyed && !self.timed {
            return Ok(Record::of(object));
        }
        let parts = object.cast::<PyTuple>()?;
        let key = if self.keyed { Some(Arc::new(Key::of(&parts.get_item(0)?)?)) } else { None };
        let time = if self.timed { parts.get_item(usize::from(self.keyed))?.extract()? } else { 0 };
        let value = parts.get_item(parts.len() - 1)?;
        Ok(Record { key, time, ..Record::of(value) })
    }
}

/// How a chain is run.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) takes: Form,
    pub(crate) gives: Form,
    /// How many records are gathered for one call, at most: one where each may fail for itself.
    pub(crate) most: usize,
    /// Whether blocks of a container come, which wait for no others.
    pub(crate) blocks: bool,
}

impl Manner {
    pub(crate) fn new(takes: Form, gives: Form) -> Self {
        Self { takes, gives, most: MOST_RECORDS, blocks: false }
    }
}

/// The functions of a task, and the records that wait for them.
pub(crate) struct Chain {
    /// Makes the adapter: methods `run(iterator, out)`, `finish(out)`, `blame(exception)` and `close()`.
    make: Py<PyAny>,
    adapter: Option<Py<PyAny>>,
    run: Option<Py<PyAny>>,
    waiting: Vec<Record>,
    /// How many records it was given before those that wait.
    before: u64,
    thread: Option<Kept>,
    manner: Manner,
    pace: Pace,
}

impl Chain {
    pub(crate) fn new(make: Py<PyAny>, manner: Manner) -> Self {
        Self {
            make,
            adapter: None,
            run: None,
            waiting: Vec::new(),
            before: 0,
            thread: None,
            manner,
            pace: Pace::new(manner.most),
        }
    }

    fn open(&mut self, cx: &OpenContext) -> Result<(), Raised> {
        self.thread = Kept::here();
        attach(|py| {
            let raised = |exception| Raised::new(py, exception, None);
            let replica = (cx.replica, cx.parallelism).into_pyobject(py).map_err(raised)?;
            let adapter = call(self.make.bind(py), &replica, None).map_err(raised)?.unbind();
            self.run = Some(adapter.getattr(py, intern!(py, "run")).map_err(raised)?);
            self.adapter = Some(adapter);
            Ok(())
        })
    }

    /// Takes a record; says whether it is time to run.
    fn take(&mut self, record: Record) -> bool {
        self.waiting.push(record);
        self.manner.blocks || self.waiting.len() >= self.pace.records
    }

    /// Runs the functions on what waits, and gives what comes out.
    fn run(&mut self) -> Result<Vec<Record>, BoxError> {
        if self.waiting.is_empty() {
            return Ok(Vec::new());
        }
        attach(|py| {
            let raised = |exception| Raised::new(py, exception, None);
            let (iterator, counted) = self.records(py).map_err(raised)?;
            let before = self.before;
            let count = left(&counted).map_err(raised)?;
            let out = PyList::empty(py);
            let Some(run) = &self.run else { return Ok(Vec::new()) };
            let arguments = (&iterator, &out).into_pyobject(py).map_err(raised)?;
            let begun = Instant::now();
            let ran = call(run.bind(py), &arguments, None);
            self.pace.took(begun.elapsed());
            let taken = |left: usize| count.saturating_sub(left) as u64;
            let taken = left(&counted).map_or(0, taken);
            self.before += taken;
            match ran {
                Ok(_) => self.given(&out).map_err(|exception| raised(exception).error()),
                Err(exception) => Err(self.blamed(py, exception, Some(before + taken))),
            }
        })
    }

    /// The records that wait, as an iterator, and one that knows how many are left.
    fn records<'py>(&mut self, py: Python<'py>) -> PyResult<(Bound<'py, PyIterator>, Bound<'py, PyAny>)> {
        if self.manner.blocks {
            let block = self.waiting.pop().map(|record| parts(py, record));
            return block
                .unwrap_or_else(|| Ok((PyList::empty(py).try_iter()?, PyList::empty(py).try_iter()?.into_any())));
        }
        let takes = self.manner.takes;
        let objects = self.waiting.drain(..).map(|record| takes.object(record, py));
        let iterator = PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)?.try_iter()?;
        Ok((iterator.clone(), iterator.into_any()))
    }

    /// Has the functions give what they kept until the end of input.
    fn finish(&mut self) -> Result<Vec<Record>, BoxError> {
        let mut records = self.run()?;
        let Some(adapter) = &self.adapter else { return Ok(records) };
        attach(|py| {
            let out = PyList::empty(py);
            let finish = adapter.bind(py).getattr(intern!(py, "finish"));
            let arguments = (&out,).into_pyobject(py);
            match finish.and_then(|finish| call(&finish, &arguments?, None)) {
                Ok(_) => records.extend(self.given(&out).map_err(|exception| Raised::new(py, exception, None))?),
                Err(exception) => return Err(self.blamed(py, exception, None)),
            }
            Ok(records)
        })
    }

    fn given(&self, out: &Bound<'_, PyList>) -> PyResult<Vec<Record>> {
        out.iter().map(|object| self.manner.gives.record(self.awaited(object)?)).collect()
    }

    /// Refuses what nobody awaits as a record.
    #[inline]
    fn awaited<'py>(&self, object: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let kind = object.get_type_ptr();
        let is_unawaited = kind == &raw mut ffi::PyCoro_Type || kind == &raw mut ffi::PyAsyncGen_Type;
        if is_unawaited { Err(self.unawaited(&object)) } else { Ok(object) }
    }

    #[cold]
    fn unawaited(&self, object: &Bound<'_, PyAny>) -> PyErr {
        let py = object.py();
        let Some(adapter) = &self.adapter else { return NotAwaited::new_err("a record is to be awaited") };
        match adapter.call_method1(py, intern!(py, "unawaited"), (object,)) {
            Ok(error) => PyErr::from_value(error.into_bound(py)),
            Err(error) => error,
        }
    }

    fn blamed(&self, py: Python<'_>, exception: PyErr, record: Option<u64>) -> BoxError {
        if self.manner.most == 1 {
            // The engine knows which record it was, and one function is all there is.
            return Raised::new(py, exception, None).error();
        }
        // With its traceback, which the value alone need not have.
        let raised = exception.clone_ref(py).into_value(py);
        let function = self.adapter.as_ref().and_then(|adapter| {
            let blamed = adapter.call_method1(py, intern!(py, "blame"), (raised,));
            blamed.and_then(|name| name.extract::<Option<String>>(py)).ok().flatten()
        });
        let raised = Raised::new(py, exception, function);
        match record {
            Some(record) => AtRecord::new(record, raised).into(),
            None => raised.into(),
        }
    }

    /// Has sinks make final what they wrote.
    fn publish(&mut self) -> Result<(), BoxError> {
        let Some(adapter) = &self.adapter else { return Ok(()) };
        attach(|py| match call_method(py, adapter, "publish") {
            Ok(_) => Ok(()),
            Err(exception) => Err(Raised::new(py, exception, None).into()),
        })
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        // What becomes of a file that is not final depends on it.
        let ending = match cx.reason() {
            StopReason::EndOfInput | StopReason::Drain => "end",
            StopReason::Signal(_) => "signal",
            _ => "else",
        };
        let _until_closed = self.thread.take();
        attach(|py| {
            self.waiting.clear();
            self.run = None;
            let Some(adapter) = self.adapter.take() else { return Ok(()) };
            let told = adapter.call_method1(py, intern!(py, "ended"), (ending,));
            let closed = close(py, &adapter);
            let raised = |exception| Raised::new(py, exception, None);
            let notes: Vec<String> = told
                .and_then(|_| adapter.call_method0(py, intern!(py, "notes")))
                .and_then(|notes| notes.extract(py))
                .map_err(raised)?;
            notes.into_iter().for_each(|note| cx.note(note));
            closed
        })
    }
}

/// A chain with records behind it.
pub(crate) struct Through(pub(crate) Chain);

impl Through {
    fn run(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.0.run().map_err(Fault::Error)?.into_iter().try_for_each(|record| out.emit(record))
    }
}

impl Operator for Through {
    type In = Record;
    type Out = Record;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        Ok(self.0.open(cx)?)
    }

    fn process(&mut self, record: Record, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        if self.0.take(record) { self.run(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.run(out)
    }

    fn finish(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.0.finish().map_err(Fault::Error)?.into_iter().try_for_each(|record| out.emit(record))
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.0.close(cx)
    }
}

/// A chain that ends in a sink.
pub(crate) struct Into(pub(crate) Chain);

impl Sink for Into {
    type In = Record;

    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        Ok(self.0.open(cx)?)
    }

    fn write(&mut self, record: Record) -> Result<(), BoxError> {
        if self.0.take(record) {
            self.0.run()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        self.0.run()?;
        Ok(())
    }

    fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
        self.0.finish()?;
        self.0.publish()
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.0.close(cx)
    }
}
