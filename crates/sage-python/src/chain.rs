//! Python functions that follow each other, run over many records at a time.
//!
//! The Python package makes one function of them, which loops over an iterator of records; so the interpreter calls the
//! functions itself, as it would in a loop by hand. Which record one of them failed at, and which one, is found out
//! only then: from how far the iterator has got, and from the line in the traceback.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList};
use sage::{BoxError, CloseContext, Emit, Fault, FinishContext, OpenContext, Operator, Sink};

use crate::Object;
use crate::error::Raised;
use crate::thread::{Kept, attach, call, call_method};

/// How many records are gathered for one call, at most.
const MOST_RECORDS: usize = 512;

/// Calls the method `close` of an adapter.
pub(crate) fn close(py: Python<'_>, adapter: &Py<PyAny>) -> Result<(), BoxError> {
    match call_method(py, adapter, "close") {
        Ok(_) => Ok(()),
        Err(exception) => Err(Raised::new(py, exception, None, None).into()),
    }
}

/// The functions of a task, and the records that wait for them.
pub(crate) struct Chain {
    /// Makes the adapter: methods `run(iterator, out)`, `blame(exception)` and `close()`.
    make: Py<PyAny>,
    adapter: Option<Py<PyAny>>,
    run: Option<Py<PyAny>>,
    waiting: Vec<Py<PyAny>>,
    /// How many records it was given before those that wait.
    before: u64,
    thread: Option<Kept>,
    /// Whether what comes out are pairs of a key's hash and the record.
    is_keyed: bool,
}

impl Chain {
    pub(crate) fn new(make: Py<PyAny>, is_keyed: bool) -> Self {
        Self { make, adapter: None, run: None, waiting: Vec::new(), before: 0, thread: None, is_keyed }
    }

    fn open(&mut self, cx: &OpenContext) -> Result<(), Raised> {
        self.thread = Kept::here();
        attach(|py| {
            let raised = |exception| Raised::new(py, exception, None, None);
            let replica = (cx.replica, cx.parallelism).into_pyobject(py).map_err(raised)?;
            let adapter = call(self.make.bind(py), &replica, None).map_err(raised)?.unbind();
            self.run = Some(adapter.getattr(py, intern!(py, "run")).map_err(raised)?);
            self.adapter = Some(adapter);
            Ok(())
        })
    }

    /// Takes a record; says whether it is time to run.
    fn take(&mut self, record: Object) -> bool {
        self.waiting.push(record.value);
        self.waiting.len() >= MOST_RECORDS
    }

    /// Runs the functions on what waits, and gives what comes out.
    fn run(&mut self) -> Result<Vec<Object>, Raised> {
        let Some(run) = &self.run else { return Ok(Vec::new()) };
        if self.waiting.is_empty() {
            return Ok(Vec::new());
        }
        attach(|py| {
            let count = self.waiting.len() as u64;
            let before = self.before;
            self.before += count;
            let raised = |exception| Raised::new(py, exception, None, None);
            let records = PyList::new(py, self.waiting.drain(..)).map_err(raised)?;
            let iterator = records.try_iter().map_err(raised)?;
            let out = PyList::empty(py);
            let arguments = (&iterator, &out).into_pyobject(py).map_err(raised)?;
            match call(run.bind(py), &arguments, None) {
                Ok(_) if self.is_keyed => {
                    let object = |pair: Bound<'_, PyAny>| {
                        let (hash, value) = pair.extract()?;
                        Ok(Object { value, hash })
                    };
                    out.iter().map(object).collect::<PyResult<_>>().map_err(raised)
                }
                Ok(_) => Ok(out.iter().map(|value| Object { value: value.unbind(), hash: 0 }).collect()),
                Err(exception) => {
                    let left = iterator.call_method0(intern!(py, "__length_hint__"));
                    let left = left.and_then(|left| left.cast_into::<PyInt>().map_err(PyErr::from)?.extract::<u64>());
                    let record = left.ok().map(|left| before + count.saturating_sub(left));
                    // With its traceback, which the value alone need not have.
                    let raised = exception.clone_ref(py).into_value(py);
                    let function = self.adapter.as_ref().and_then(|adapter| {
                        let blamed = adapter.call_method1(py, intern!(py, "blame"), (raised,));
                        blamed.and_then(|name| name.extract::<Option<String>>(py)).ok().flatten()
                    });
                    Err(Raised::new(py, exception, function, record))
                }
            }
        })
    }

    fn close(&mut self) -> Result<(), BoxError> {
        let _until_closed = self.thread.take();
        attach(|py| {
            self.waiting.clear();
            self.run = None;
            self.adapter.take().map_or(Ok(()), |adapter| close(py, &adapter))
        })
    }
}

/// A chain with records behind it.
pub(crate) struct Through(pub(crate) Chain);

impl Through {
    fn run(&mut self, out: &mut impl Emit<Object>) -> Result<(), Fault> {
        self.0.run()?.into_iter().try_for_each(|record| out.emit(record))
    }
}

impl Operator for Through {
    type In = Object;
    type Out = Object;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        Ok(self.0.open(cx)?)
    }

    fn process(&mut self, record: Object, out: &mut impl Emit<Object>) -> Result<(), Fault> {
        if self.0.take(record) { self.run(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut impl Emit<Object>) -> Result<(), Fault> {
        self.run(out)
    }

    fn finish(&mut self, out: &mut impl Emit<Object>) -> Result<(), Fault> {
        self.run(out)
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.0.close()
    }
}

/// A chain that ends in a sink.
pub(crate) struct Into(pub(crate) Chain);

impl Sink for Into {
    type In = Object;

    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        Ok(self.0.open(cx)?)
    }

    fn write(&mut self, record: Object) -> Result<(), BoxError> {
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
        self.0.run()?;
        Ok(())
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.0.close()
    }
}
