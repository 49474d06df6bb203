//! Python functions that follow each other, run over many records at a time.
//!
//! The Python package makes one function of them, which loops over an iterator of records; so the interpreter calls the
//! functions itself, as it would in a loop by hand. Which record one of them failed at, and which one, is found out
//! only then: from how far the iterator has got, and from the line in the traceback. A loop that takes long is ended
//! between two records, also between two that a function made of one; what it gave goes on, and the next loop begins
//! where it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use sage::{AtRecord, BoxError, CloseContext, OpenContext, StopReason};

use crate::Record;
use crate::blocks::Pace;
use crate::cutter::Loop;
use crate::error::{NotAwaited, Raised, attempt};
use crate::object::Object;
use crate::records::Records;
use crate::stage::{Form, Stage};
use crate::thread::{self, attach, call, call_method};
use crate::waits::Cancelled;

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

/// A loop: the number of its stage, and of the loop within that.
type Place = (usize, Option<usize>);

/// What a function raised.
pub(crate) struct Failure {
    pub(crate) exception: PyErr,
    /// Which one it was, of several, and with what it was at work, if there is more to say.
    pub(crate) function: Option<(String, String)>,
    /// How many records the functions were given by then, this one included; `None` at the end of input.
    pub(crate) record: Option<u64>,
}

impl Failure {
    /// As an error of the operator; `is_alone` where that is one function, at work on one record.
    pub(crate) fn error(self, py: Python<'_>, is_alone: bool) -> BoxError {
        let Self { exception, function, record } = self;
        if is_alone {
            return Raised::new(py, exception).error();
        }
        let raised = Raised::by(py, exception, function);
        match record {
            Some(record) => AtRecord::new(record, raised.error()).into(),
            None => raised.error(),
        }
    }
}

/// The functions of a task, and the records that wait for them.
///
/// They are stages, each a loop of its own: see `python/sage/_chain.py`. What a stage gives is what the next one takes.
/// A loop may end before its records do, and also within what a function made of one of them; so what is left to do is
/// looked for from the end of the chain on, and within a stage from the innermost loop on.
pub(crate) struct Chain {
    /// Makes the adapter: an attribute `stages`, and methods `blame(exception)` and `close()`.
    make: Object,
    adapter: Option<Py<PyAny>>,
    stages: Vec<Stage>,
    of: Option<Arc<Loop>>,
    waiting: Vec<Record>,
    /// How many records it was given before those that are left.
    before: u64,
    /// How many stages have given what they kept until the end of input; `None` before it.
    pub(crate) ended: Option<usize>,
    manner: Manner,
    pace: Pace,
    /// How many records it has worked on, for those outside.
    worked: Arc<AtomicU64>,
}

impl Chain {
    pub(crate) fn new(make: Object, manner: Manner, worked: Arc<AtomicU64>) -> Self {
        Self {
            make,
            adapter: None,
            stages: Vec::new(),
            of: None,
            waiting: Vec::new(),
            before: 0,
            ended: None,
            manner,
            pace: Pace::new(manner.most),
            worked,
        }
    }

    pub(crate) fn open(&mut self, cx: &OpenContext) -> Result<(), Raised> {
        attempt(|py| {
            let adapter = self.make.made_pausing(py, cx)?;
            self.begin(adapter, thread::watched())
        })
    }

    /// Takes its functions; `of` are the loops of this thread.
    pub(crate) fn begin(&mut self, adapter: Bound<'_, PyAny>, of: Arc<Loop>) -> PyResult<()> {
        self.of = Some(of);
        let py = adapter.py();
        let adapter = self.adapter.insert(adapter.unbind()).bind(py);
        let stages = adapter.getattr("stages")?.try_iter()?.map(|stage| Stage::of(&stage?));
        self.stages = stages.collect::<PyResult<_>>()?;
        Ok(())
    }

    /// Gives the first functions a list of records that nobody else has, in the form that they take them in. All that
    /// it was given before has to be done.
    pub(crate) fn feed(&mut self, records: Bound<'_, PyList>) -> PyResult<()> {
        if let Some(first) = self.stages.first_mut() {
            first.records = Some(Records::of_list(records)?);
        }
        Ok(())
    }

    /// Takes a record; says whether it is time to run.
    pub(crate) fn take(&mut self, record: Record) -> bool {
        self.waiting.push(record);
        self.manner.blocks || self.waiting.len() >= self.pace.records
    }

    /// Runs one loop on what waits or is left, and gives what comes out; `None` where nothing is left to do. The engine
    /// sees what is asked of it between two.
    pub(crate) fn work(&mut self) -> Result<Option<Vec<Record>>, BoxError> {
        if self.waiting.is_empty() && self.stages.is_empty() {
            return Ok(None);
        }
        let form = self.manner.gives;
        let ran = |chain: &mut Self, py: Python<'_>| chain.worked(py, |object| form.record(object));
        attach(|py| ran(self, py).map_err(|failure| self.error(py, *failure)))
    }

    /// The same on an attached thread; `made` makes of a result what goes on.
    pub(crate) fn worked<'py, R>(
        &mut self,
        py: Python<'py>,
        made: impl Fn(Bound<'py, PyAny>) -> PyResult<R>,
    ) -> Result<Option<Vec<R>>, Box<Failure>> {
        let next = self.next(py).map_err(|exception| self.failure(py, exception, None))?;
        let Some(place) = next else { return Ok(None) };
        self.run(py, place, made).map(Some)
    }

    /// The loop that is to be run.
    fn next(&mut self, py: Python<'_>) -> PyResult<Option<Place>> {
        loop {
            let left = |(number, stage): (usize, &Stage)| Some((number, stage.left(py)?));
            if let Some(next) = self.stages.iter().enumerate().rev().find_map(left) {
                return Ok(Some(next));
            }
            if !self.waiting.is_empty() {
                let records = self.records(py)?;
                let Some(first) = self.stages.first_mut() else { return Ok(None) };
                first.records = records;
                continue;
            }
            // The end of input goes through the stages one after the other.
            let Some(ended) = self.ended.filter(|ended| *ended < self.stages.len()) else { return Ok(None) };
            self.ended = Some(ended + 1);
            if let Some(kept) = &self.stages[ended].kept {
                let kept = call(kept.bind(py), &PyTuple::empty(py), None)?;
                self.stages[ended + 1].records = Some(Records::of(&kept, false)?);
            }
        }
    }

    /// The records that wait.
    fn records(&mut self, py: Python<'_>) -> PyResult<Option<Records>> {
        if self.manner.blocks {
            let block = self.waiting.pop().map(|block| Records::from_object(block.value.into_object(py)?));
            return block.transpose();
        }
        let takes = self.manner.takes;
        let objects = self.waiting.drain(..).map(|record| takes.object(record, py));
        let list = PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)?;
        Records::of_list(list).map(Some)
    }

    /// How many records a loop may take: one, where stages behind it work on what it gives, so that it is known which
    /// one they failed at.
    fn most(&self, stage: usize, level: Option<usize>) -> usize {
        if stage == 0 && level.is_none() && self.stages.len() > 1 && self.stages[0].kept.is_none() {
            1
        } else {
            usize::MAX
        }
    }

    /// Runs one loop.
    fn run<'py, R>(
        &mut self,
        py: Python<'py>,
        (number, level): Place,
        made: impl Fn(Bound<'py, PyAny>) -> PyResult<R>,
    ) -> Result<Vec<R>, Box<Failure>> {
        let most = self.most(number, level);
        let (Some(of), stage) = (&self.of, &self.stages[number]) else { return Ok(Vec::new()) };
        let records = match level {
            Some(level) => stage.levels.get(level).map(|level| level.clone_ref(py)),
            None => stage.records.as_ref().map(|records| records.clone_ref(py)),
        };
        let Some(records) = records else { return Ok(Vec::new()) };
        let out = PyList::empty(py);
        let begun = Instant::now();
        let ran = stage.prepared(py, &records, level, &out).and_then(|(function, arguments)| {
            // A block says itself how many.
            let is_lent = self.manner.blocks && number == 0 && level.is_none();
            if is_lent {
                records.limit(py, most)
            } else {
                records.begin(py, of, most)
            }
            stage
                .levels
                .iter()
                .skip(level.map_or(0, |level| level + 1))
                .for_each(|level| level.begin(py, of, usize::MAX));
            of.run(Some(&out), || call(&function, &arguments, None))
        });
        let given = records.given();
        let is_input = number == 0 && level.is_none() && self.ended.unwrap_or_default() == 0;
        if is_input {
            self.before += given as u64;
            self.worked.store(self.before, Ordering::Relaxed);
            self.pace.took(given, begun.elapsed());
        }
        let ran = ran.and_then(|carried| self.ran(py, (number, level), &records, carried, &out, made));
        ran.or_else(|exception| {
            self.drop_rest(py);
            if exception.is_instance_of::<Cancelled>(py) {
                return Ok(Vec::new());
            }
            let record = (self.ended.unwrap_or_default() == 0).then_some(self.before);
            Err(self.failure(py, exception, record))
        })
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

    /// Notes what is left behind a loop, and says what comes out of the chain.
    fn ran<'py, R>(
        &mut self,
        py: Python<'py>,
        (number, level): Place,
        records: &Records,
        carried: Bound<'py, PyAny>,
        out: &Bound<'py, PyList>,
        made: impl Fn(Bound<'py, PyAny>) -> PyResult<R>,
    ) -> PyResult<Vec<R>> {
        let is_last = number + 1 == self.stages.len();
        let is_first = number == 0 && level.is_none();
        let stage = &mut self.stages[number];
        stage.carried = carried.cast_into::<PyTuple>().ok().map(Bound::unbind);
        let is_lent = self.manner.blocks && number == 0;
        if level.is_none() && (is_lent || !records.has_more(py)) {
            stage.records = None;
        }
        if is_last {
            let mut results = Vec::with_capacity(out.len());
            for object in out {
                let result = self.awaited(object).and_then(&made).inspect_err(|_| {
                    // Of a key that cannot be one, it is known which record it is where each record has made one.
                    if is_first && records.given() == out.len() {
                        self.before -= (out.len() - 1 - results.len()) as u64;
                    }
                })?;
                results.push(result);
            }
            return Ok(results);
        }
        if !out.is_empty() {
            self.stages[number + 1].records = Some(Records::of_list(out.clone())?);
        }
        Ok(Vec::new())
    }

    /// Drops what is left: nobody wants it any more. The thread is attached.
    pub(crate) fn drop_rest(&mut self, py: Python<'_>) {
        self.waiting.clear();
        self.stages.iter_mut().for_each(|stage| stage.drop_rest(py));
    }

    fn failure(&self, py: Python<'_>, exception: PyErr, record: Option<u64>) -> Box<Failure> {
        // With its traceback, which the value alone need not have.
        let raised = exception.clone_ref(py).into_value(py);
        let function = self.adapter.as_ref().and_then(|adapter| {
            let blamed = adapter.call_method1(py, intern!(py, "blame"), (raised,));
            blamed.and_then(|blamed| blamed.extract::<Option<(String, String)>>(py)).ok().flatten()
        });
        Box::new(Failure { exception, function, record })
    }

    fn error(&self, py: Python<'_>, failure: Failure) -> BoxError {
        // Of one record, the engine knows which one it was, and one function is all there is.
        failure.error(py, self.manner.most == 1)
    }

    /// Has sinks make final what they wrote.
    pub(crate) fn publish(&mut self) -> Result<(), BoxError> {
        let Some(adapter) = &self.adapter else { return Ok(()) };
        Ok(attempt(|py| call_method(py, adapter, "publish").map(drop))?)
    }

    pub(crate) fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        // What becomes of a file that is not final depends on it.
        let ending = match cx.reason() {
            StopReason::EndOfInput | StopReason::Drain => "end",
            StopReason::Signal(_) => "signal",
            _ => "else",
        };
        let closed = attempt(|py| {
            self.drop_rest(py);
            self.stages.clear();
            let Some(adapter) = self.adapter.take() else { return Ok(()) };
            let told = adapter.call_method1(py, intern!(py, "ended"), (ending,));
            let closed = call_method(py, &adapter, "close");
            let notes = told.and_then(|_| adapter.call_method0(py, intern!(py, "notes")))?;
            notes.extract::<Vec<String>>(py)?.into_iter().for_each(|note| cx.note(note));
            closed.map(drop)
        });
        Ok(closed?)
    }
}
