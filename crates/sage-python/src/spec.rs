//! The specifications that the Python package passes to the engine: a class for each, checked when an object is made.
//!
//! A [`Spec`] says what a step is. What makes its functions, how many replicas it has and the like are the same for all
//! steps: see [`Step`]. What the engine does for one with an input is said beside it, in [`follow`].

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyFloat;
use sage::{DataStream, Pipe, Stream};

use crate::Record;
use crate::asynchronous::asynchronous;
use crate::error::SubmitError;
use crate::steps::{Loops, Step, ended, functions};
use crate::value::Value;
use crate::{folds, kafka, states, timers, windows};

/// A time, in seconds where it crosses.
#[derive(Clone, Copy)]
pub(crate) struct Seconds(pub(crate) Duration);

impl<'py> FromPyObject<'_, 'py> for Seconds {
    type Error = PyErr;

    fn extract(seconds: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let duration = Duration::try_from_secs_f64(seconds.extract()?);
        duration.map(Self).map_err(|error| PyValueError::new_err(format!("not a time in seconds: {error}")))
    }
}

impl<'py> IntoPyObject<'py> for Seconds {
    type Target = PyFloat;
    type Output = Bound<'py, PyFloat>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Infallible> {
        Ok(PyFloat::new(py, self.0.as_secs_f64()))
    }
}

/// What a step is.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) enum Spec {
    /// A source: a container, whose records are `all_there`, or one that may wait for its next record. One that
    /// `serves` takes the calls of a pipeline that is a service, of this name if that is known.
    #[pyo3(constructor = (all_there=false, serves=false, service=None))]
    Source { all_there: bool, serves: bool, service: Option<String> },
    /// A stream that a [`Spec::Fill`] of its name fills; `limit` records may wait to go round.
    #[pyo3(constructor = (limit=None))]
    Future { limit: Option<usize> },
    /// Kafka topics. Of a record, the value alone or with what else is known of it, its `metadata`.
    KafkaSource {
        servers: String,
        topics: Vec<String>,
        group: String,
        reset: Reset,
        buffer_size: u32,
        connect_timeout: Seconds,
        settings: HashMap<String, String>,
        until_end: bool,
        metadata: bool,
        commits: bool,
    },
    /// Functions in Python that follow each other. What comes out are two streams, by what each record has as its key,
    /// where it `splits` them, and nothing where the last is a sink, which `ends` the stream. They run in a worker
    /// where they are `elsewhere`.
    #[pyo3(constructor = (ends, splits, elsewhere=false))]
    Chain { ends: bool, splits: bool, elsewhere: bool },
    /// Functions of `sage.ops`, which run without the interpreter.
    Native {},
    /// A function that several records are worked on with at a time. Nothing comes out where it `ends` the stream.
    Async { in_flight: usize, ordered: bool, timeout: Option<Seconds>, ends: bool },
    /// A function of records and timers.
    Process {},
    /// A function of states that are forgotten `after` so long, or without one the first records of keys.
    Expiring { after: Seconds, has_function: bool },
    /// Windows of a keyed stream. They gather records, or what a function `folds` them to, or `counts` them; the second
    /// output are records that come too `late` for them, if they are asked for. Those that a signal cuts are dropped,
    /// or `emits_cut` has them emitted.
    Window {
        windows: Windows,
        counts: bool,
        folds: bool,
        lateness: Seconds,
        by_clock: bool,
        late: bool,
        emits_cut: bool,
    },
    /// Pairs of the records of two keyed streams, and the records of the left or of both without a partner.
    Join { lefts: bool, rights: bool, max_records: usize, windows: Option<Windows>, emits_cut: bool },
    /// Pairs of the records of two streams by their order.
    Zip { max_ahead: usize },
    /// Lists of so many records, or of those that come `within` a time.
    #[pyo3(constructor = (size, within=None))]
    Batch { size: usize, within: Option<Seconds> },
    /// The first records.
    Take { most: u64 },
    /// The end of a stream, which goes on as a [`Spec::Future`] of this name.
    Fill { future: String },
    /// The end of a stream of pairs of key and value, in a Kafka topic.
    KafkaSink {
        servers: String,
        topic: String,
        keyed: bool,
        connect_timeout: Seconds,
        settings: HashMap<String, String>,
    },
}

/// Adds a step behind a stream; gives the streams behind it, by its outputs.
pub(crate) fn follow<P: Pipe<Out = Record>>(
    py: Python<'_>,
    stream: Stream<P>,
    step: &Step,
    loops: &mut Loops,
) -> PyResult<Vec<DataStream<Record>>> {
    let spec = step.spec.get();
    Ok(match spec {
        Spec::Window { folds: true, .. } => folds::window(stream, step, spec)?,
        Spec::Window { .. } => windows::window(stream, step, spec)?,
        Spec::Expiring { after, has_function } => vec![states::expiring(stream, step, after.0, *has_function)],
        Spec::Process {} => timers::process(stream, step),
        Spec::Batch { size, within } => vec![batches(stream, step, *size, *within)],
        Spec::Take { most } => vec![stream.take(*most).named(&*step.name).on_another_thread()],
        Spec::KafkaSink { .. } => kafka::sink(stream, step, spec).map(|()| Vec::new())?,
        Spec::Fill { future } => {
            let Some(feedback) = loops.remove(future) else {
                return Err(SubmitError::new_err(format!("the future stream `{future}` is filled twice")));
            };
            feedback.fill(stream);
            Vec::new()
        }
        Spec::Chain { .. } | Spec::Native {} | Spec::Async { .. } => match step.strategy {
            Strategy::Hash => {
                let choose = |record: &Record, replicas: usize| (record.hash() % replicas as u64) as usize;
                spread(py, stream.partition_by(step.parallelism, choose), step, None)?
            }
            Strategy::Broadcast => spread(py, stream.broadcast(step.parallelism), step, None)?,
            Strategy::RoundRobin => spread(py, stream, step, Some(step.parallelism))?,
        },
        Spec::Source { .. } | Spec::Future { .. } | Spec::KafkaSource { .. } | Spec::Join { .. } | Spec::Zip { .. } => {
            return Err(step.refused());
        }
    })
}

/// Gathers records into lists.
fn batches<P: Pipe<Out = Record>>(
    stream: Stream<P>,
    step: &Step,
    size: usize,
    within: Option<Seconds>,
) -> DataStream<Record> {
    let list = |batch: Vec<Record>| Record::from(Value::List(batch.into_iter().map(|record| record.value).collect()));
    match within {
        Some(Seconds(within)) => stream.batch_within(size, within).named(&*step.name).map(list).on_another_thread(),
        None => stream.batch(size).named(&*step.name).map(list).on_another_thread(),
    }
}

/// Runs functions on a stream: in so many replicas, or as many as it has.
fn spread<P: Pipe<Out = Record>>(
    py: Python<'_>,
    stream: Stream<P>,
    step: &Step,
    replicas: Option<usize>,
) -> PyResult<Vec<DataStream<Record>>> {
    let Spec::Async { in_flight, ordered, timeout, ends } = step.spec.get() else {
        return functions(py, stream, step, replicas, false);
    };
    let outputs = asynchronous(stream, step, replicas, *in_flight, *ordered, *timeout);
    Ok(if *ends { ended(outputs, step) } else { outputs })
}

/// Where a group of readers begins that has committed no offset.
#[pyclass(frozen, eq, eq_int, module = "sage._sage", from_py_object)]
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Reset {
    Earliest,
    Latest,
    Error,
}

/// How records are spread over replicas.
#[pyclass(frozen, eq, eq_int, hash, module = "sage._sage", from_py_object)]
#[derive(Clone, Copy, PartialEq, Hash)]
pub(crate) enum Strategy {
    /// By the hashes of their keys.
    Hash,
    /// Each to all of them.
    Broadcast,
    RoundRobin,
}

/// What is done with the result of a function of `sage.ops`.
#[pyclass(frozen, eq, eq_int, module = "sage._sage", from_py_object)]
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Role {
    Map,
    Filter,
    FlatMap,
    Key,
    Count,
    Sum,
}

/// The windows of `sage`, read from objects of these classes.
#[derive(Clone, Copy, FromPyObject, IntoPyObject)]
pub(crate) enum Windows {
    Sliding { size: Seconds, every: Seconds },
    Tumbling { size: Seconds },
    Session { gap: Seconds },
    Count { records: u64 },
}

/// How a watermark follows the times of records.
#[derive(FromPyObject)]
pub(crate) struct Times {
    pub(crate) out_of_order: Seconds,
    pub(crate) idle_after: Option<Seconds>,
}
