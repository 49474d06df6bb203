//! One loop of a chain, and the keys and times of the records that go through it.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::Record;
use crate::records::Records;
use crate::value::Key;

/// What comes with each record, into a chain or out of it.
#[derive(Clone, Copy, Default, FromPyObject)]
pub(crate) struct Form {
    keyed: bool,
    timed: bool,
}

impl Form {
    /// The object that the functions get: the record, with its key and its time before it where those come along.
    #[inline]
    pub(crate) fn object(self, record: Record, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
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

    /// What the functions gave, if it can be a record.
    pub(crate) fn checked<'py>(self, object: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if self.keyed {
            Key::of(&object.cast::<PyTuple>()?.get_item(0)?)?;
        }
        Ok(object)
    }

    /// The record that an object is which the functions gave.
    #[inline]
    pub(crate) fn record(self, object: Bound<'_, PyAny>) -> PyResult<Record> {
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

/// One loop.
pub(crate) struct Stage {
    /// In Python: functions `run(records, out)` and `rest(level)`, which returns `run(records, out, *carried)`, the
    /// list `levels`, and `kept`.
    adapter: Py<PyAny>,
    pub(crate) run: Py<PyAny>,
    /// What the loop runs over.
    pub(crate) records: Option<Records>,
    /// What its inner loops run over, the outermost first.
    pub(crate) levels: Vec<Records>,
    /// What a loop that goes on after an inner one has ended early is given with the records.
    pub(crate) carried: Option<Py<PyTuple>>,
    /// What it keeps until the end of input; of none, what goes on at once.
    pub(crate) kept: Option<Py<PyAny>>,
}

impl Stage {
    pub(crate) fn of(adapter: &Bound<'_, PyAny>) -> PyResult<Self> {
        let kept = adapter.getattr("kept")?;
        let levels = adapter.getattr("levels")?.try_iter()?.map(|level| Records::from_object(level?));
        Ok(Self {
            run: adapter.getattr("run")?.unbind(),
            records: None,
            levels: levels.collect::<PyResult<_>>()?,
            carried: None,
            kept: (!kept.is_none()).then(|| kept.unbind()),
            adapter: adapter.clone().unbind(),
        })
    }

    /// The innermost loop that has something left: that number of `levels`, or `None` for the loop itself.
    pub(crate) fn left(&self, py: Python<'_>) -> Option<Option<usize>> {
        let inner = self.levels.iter().rposition(|level| level.has_more(py));
        inner.map(Some).or_else(|| self.records.is_some().then_some(None))
    }

    pub(crate) fn drop_rest(&mut self, py: Python<'_>) {
        self.records = None;
        self.levels.iter().for_each(|level| level.drop_rest(py));
    }

    /// The function to be called, and with what.
    pub(crate) fn prepared<'py>(
        &self,
        py: Python<'py>,
        records: &Records,
        level: Option<usize>,
        out: &Bound<'py, PyList>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let records = records.object(py);
        let Some(level) = level else { return Ok((self.run.bind(py).clone(), (records, out).into_pyobject(py)?)) };
        let rest = self.adapter.bind(py).call_method1(intern!(py, "rest"), (level,))?;
        let mut arguments = vec![records.clone(), out.clone().into_any()];
        arguments.extend(self.carried.iter().flat_map(|carried| carried.bind(py).iter()));
        Ok((rest, PyTuple::new(py, arguments)?))
    }
}
