//! States of keys that are forgotten when no record of their key has come for a while.
//!
//! The engine keeps a cell for each key, and forgets it in time. A record takes the cell of its key along to the
//! functions behind, which run over many records at a time; what is in a cell, they alone know.

use std::time::Duration;

use pyo3::types::PyList;
use sage::{DataStream, Pipe, Stream};

use crate::Record;
use crate::chain::Chain;
use crate::chained::ChainOperator;
use crate::object::Object;
use crate::steps::Step;
use crate::thread::attach;
use crate::value::Value;

/// A list that has the state of a key, or nothing yet. It is made when the first record of its key comes.
#[derive(Clone, Default)]
struct Cell(Option<Object>);

/// Gives a record the cell of its key.
fn with_cell(cell: &mut Cell, record: Record) -> Record {
    attach(|py| {
        let list = cell.0.get_or_insert_with(|| PyList::empty(py).into_any().into());
        let cell = Value::Object(list.bind(py).clone().into());
        Record { value: Value::Tuple([cell, record.value].into()), ..record }
    })
}

/// Runs a function on a keyed stream whose states expire; without one, lets the first records of keys pass.
pub(crate) fn expiring<P: Pipe<Out = Record>>(
    stream: Stream<P>,
    step: &Step,
    after: Duration,
    has_function: bool,
) -> DataStream<Record> {
    let keyed = stream.key_by(Record::key).expire_after(after);
    if !has_function {
        return keyed.distinct().parallelism(step.parallelism).named(&*step.name).on_another_thread();
    }
    let (make, manner, worked) = (step.make.clone(), step.manner(), step.worked.clone());
    let cells = keyed.map_with_state(Cell::default(), with_cell);
    let cells = cells.parallelism(step.parallelism).named(format!("states of {}", step.name));
    let chain = move || ChainOperator(Chain::new(make.clone(), manner, worked.replica()));
    cells.operator(chain).named(&*step.name).on_another_thread()
}
