//! [`Judge`]: applies the error policy of a step whose functions run in a worker.
//!
//! The worker works on records by batches, and says what has come of each. The operator here, behind the one that sends
//! them, raises for a record what its function has raised there: so the engine retries, skips or keeps it, in order and
//! with the same counts, as if the function ran here. A record that is tried again is sent again, and waited for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;
use sage::{AtRecord, BoxError, Emit, Fault, Operator};

use super::operator::{Answer, Comes, Sent, is_cancelled};
use crate::Record;
use crate::error::Raised;
use crate::stage::Form;
use crate::thread::{attach, lock};

/// What a worker has made of a record, and what it would make of it again.
#[derive(Clone)]
pub(crate) struct Outcome {
    record: Record,
    /// What it has made of it, until that was looked at.
    first: Arc<Mutex<Option<Given>>>,
    worker: Arc<Sent>,
}

type Given = Result<Vec<Record>, BoxError>;

impl From<Outcome> for Record {
    fn from(outcome: Outcome) -> Self {
        outcome.record
    }
}

impl Comes for Outcome {
    const KEEPS: bool = true;

    fn from_worker(result: Bound<'_, PyAny>, of: &Arc<Sent>, kept: &mut VecDeque<Record>) -> PyResult<Self> {
        let record = kept.pop_front().ok_or_else(|| PyRuntimeError::new_err("a worker has answered too often"))?;
        Ok(Self { record, first: Arc::new(Mutex::new(Some(given(result, of.gives)?))), worker: of.clone() })
    }
}

/// The list of its results, or what its function raised.
fn given(result: Bound<'_, PyAny>, gives: Form) -> PyResult<Given> {
    match result.cast_exact::<PyList>() {
        Ok(results) => results.iter().map(|object| gives.record(object)).collect::<PyResult<_>>().map(Ok),
        Err(_) => Ok(Err(Raised::new(result.py(), PyErr::from_value(result)).error())),
    }
}

impl Outcome {
    /// Has the worker work on it again.
    fn again(&self) -> Given {
        attach(|py| {
            let raised = |exception: PyErr| Raised::new(py, exception).error();
            let asked = || {
                let record = self.worker.takes.object(self.record.clone(), py)?;
                let answer = self.worker.adapter.call_method1(py, intern!(py, "again"), (record,))?;
                let Answer { results, failure, .. } = answer.extract(py)?;
                match failure {
                    Some((exception, ..)) => Err(PyErr::from_value(exception)),
                    None => given(results.get_item(0)?, self.worker.gives),
                }
            };
            asked().map_err(raised)?
        })
    }
}

/// Goes through the outcomes of one replica.
#[derive(Default)]
pub(crate) struct Judge {
    /// How many records there were.
    records: u64,
}

impl Operator for Judge {
    type In = Outcome;
    type Out = Record;

    fn process(&mut self, outcome: Outcome, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        let first = lock(&outcome.first).take();
        self.records += u64::from(first.is_some());
        match first.unwrap_or_else(|| outcome.again()) {
            Ok(records) => records.into_iter().try_for_each(|record| out.emit(record)),
            Err(error) => {
                if is_cancelled(&error) {
                    out.look()?;
                }
                Err(AtRecord::new(self.records, error).into())
            }
        }
    }
}
