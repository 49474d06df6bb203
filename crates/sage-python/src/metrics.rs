//! What a job has done so far and is doing, told by the program's steps.
//!
//! The engine's counters are those of its last batches. A batch of functions that have become slow may take long, so
//! each chain of functions says for itself, after each of its loops, how many records it has worked on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use sage::{JobHandle, JobMetrics, OperatorReport, ServiceReport, TaskMetrics};
use serde::Serialize;

use crate::rows::Rows;
use crate::thread::lock;

/// How many records each replica of a step has worked on.
#[derive(Clone, Default)]
pub(crate) struct Worked(Arc<Mutex<Vec<Arc<AtomicU64>>>>);

impl Worked {
    /// The counter of one more replica.
    pub(crate) fn replica(&self) -> Arc<AtomicU64> {
        let counter = Arc::default();
        lock(&self.0).push(Arc::clone(&counter));
        counter
    }

    /// `None` of a step that has no chain of functions here.
    fn records(&self) -> Option<u64> {
        let counters = lock(&self.0);
        (!counters.is_empty()).then(|| counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum())
    }
}

// A plan has none: each step begins with one.
impl FromPyObject<'_, '_> for Worked {
    type Error = PyErr;

    fn extract(_object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        Ok(Self::default())
    }
}

/// Records on their way from one step to another.
#[derive(Serialize)]
struct Queue {
    from: String,
    to: String,
    records: u64,
    bytes: u64,
}

/// What a job has done so far and is doing: see `python/sage/_metrics.py`.
#[derive(Serialize)]
pub(crate) struct Metrics {
    /// How many records were read and are not finished.
    unfinished: u64,
    operators: Vec<OperatorReport>,
    services: Vec<ServiceReport>,
    tasks: Vec<TaskMetrics>,
    queues: Vec<Queue>,
}

impl Metrics {
    /// How many records were read and are not finished.
    pub(crate) fn unfinished(&self) -> u64 {
        self.unfinished
    }

    pub(crate) fn of(rows: &Rows, handle: &JobHandle) -> Self {
        let JobMetrics { mut operators, services, mut tasks, queues, .. } = handle.metrics();
        let (ahead, gathered) = brought_up(rows, &mut operators);
        let chains = &handle.graph().chains;
        let begins = |chain: usize| {
            let first = chain.checked_sub(1).and_then(|index| chains.get(index)?.operators.first());
            first.map_or_else(String::new, |operator| rows.step_of(&operator.name))
        };
        let queues = queues.into_iter().map(|queue| Queue {
            from: rows.step_of(&queue.operator),
            to: begins(queue.to),
            records: queue.records.saturating_sub(ahead.get(&queue.to).copied().unwrap_or_default()),
            bytes: queue.bytes,
        });
        let queues = queues.collect();
        for task in &mut tasks {
            let (operator, replica) = task.name.rsplit_once('/').unwrap_or((&task.name, ""));
            let step = rows.step_of(operator);
            task.name = if replica.is_empty() { step } else { format!("{step}/{replica}") };
        }
        let finished: u64 = ahead.values().sum();
        let unfinished = (handle.unfinished() + gathered).saturating_sub(finished);
        Self { unfinished, operators: rows.live(operators), services, tasks, queues }
    }
}

/// Has the figures of operators say what their functions have worked on since the last batch of the engine's. Returns
/// how many records that are of each chain that reads a queue, and how many were taken and not worked on.
fn brought_up(rows: &Rows, operators: &mut [OperatorReport]) -> (HashMap<usize, u64>, u64) {
    let (mut ahead, mut gathered) = (HashMap::new(), 0);
    for index in 0..operators.len() {
        let operator = &operators[index];
        let Some(worked) = rows.worked(&operator.name).and_then(Worked::records) else { continue };
        // A further attempt works on its record once more.
        let worked = worked.saturating_sub(operator.retries);
        gathered += operator.records_in.saturating_sub(worked);
        let more = worked.saturating_sub(operator.records_in);
        if more == 0 {
            continue;
        }
        // A source in the same task has read them.
        let before = index.checked_sub(1).filter(|before| operators[*before].chain == operators[index].chain);
        match before {
            Some(before) => {
                operators[before].records_in += more;
                operators[before].records_out += more;
            }
            None => drop(ahead.insert(operators[index].chain, more)),
        }
        operators[index].records_in += more;
        if rows.is_one_to_one(&operators[index].name) {
            operators[index].records_out += more;
        }
    }
    (ahead, gathered)
}
