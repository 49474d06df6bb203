//! The steps of a plan, and the streams they become.
//!
//! Each step that has several readers, or runs on threads of its own, begins and ends in a task: so every stream here
//! is one of records, whatever is behind it. What the functions of a step do is not known here.

use std::collections::HashMap;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use sage::{DataStream, Environment, Feedback, OutOfOrder, Pipe, Stream, Timestamp};

use crate::Record;
use crate::asynchronous::asynchronous;
use crate::blocks::Blocks;
use crate::chain::{Chain, Form, Into, Manner, Through};
use crate::error::SubmitError;
use crate::kafka::Offsets;
use crate::native::{Native, Parts};
use crate::policies::{Policy, policed};
use crate::source::Iterated;
use crate::thread::attach;
use crate::{joins, kafka, states, timers, windows};

/// One step of the plan.
#[derive(FromPyObject)]
pub(crate) struct Step {
    /// What it is; see `follow` for those with an input.
    #[pyo3(attribute)]
    kind: String,
    #[pyo3(attribute)]
    pub(crate) name: String,
    /// Where its records come from: positions of steps before it, and which of their outputs.
    #[pyo3(attribute)]
    inputs: Vec<(usize, usize)>,
    /// Makes what runs the functions of a replica.
    #[pyo3(attribute)]
    pub(crate) make: Py<PyAny>,
    #[pyo3(attribute)]
    pub(crate) parallelism: usize,
    /// How many steps read each of its outputs.
    #[pyo3(attribute)]
    outputs: Vec<usize>,
    /// How records are spread over the replicas: `hash` of their keys, `broadcast`, or `round_robin`.
    #[pyo3(attribute)]
    strategy: String,
    #[pyo3(attribute)]
    takes: Form,
    #[pyo3(attribute)]
    gives: Form,
    /// Numbers and words that its kind needs, by their names.
    #[pyo3(attribute)]
    pub(crate) options: Py<PyDict>,
}

impl Step {
    /// One of the options, if it is set.
    pub(crate) fn option<T>(&self, py: Python<'_>, name: &str) -> PyResult<Option<T>>
    where
        T: for<'a> FromPyObjectOwned<'a, Error = PyErr>,
    {
        let value = self.options.bind(py).get_item(name)?.filter(|value| !value.is_none());
        value.map(|value| value.extract()).transpose()
    }

    /// One of the options, which is set.
    pub(crate) fn required<T>(&self, py: Python<'_>, name: &str) -> PyResult<T>
    where
        T: for<'a> FromPyObjectOwned<'a, Error = PyErr>,
    {
        self.option(py, name)?.ok_or_else(|| SubmitError::new_err(format!("`{}` has no option `{name}`", self.name)))
    }

    /// An option that is a time in seconds.
    pub(crate) fn seconds(&self, py: Python<'_>, name: &str) -> PyResult<Option<Duration>> {
        let Some(seconds) = self.option::<f64>(py, name)? else { return Ok(None) };
        let duration = Duration::try_from_secs_f64(seconds);
        duration.map(Some).map_err(|error| SubmitError::new_err(format!("`{name}` of `{}`: {error}", self.name)))
    }

    pub(crate) fn manner(&self) -> Manner {
        Manner::new(self.takes, self.gives)
    }
}

/// The loops that are not filled yet, by the names of their streams.
type Loops = HashMap<String, Feedback<Record>>;

/// What a step reads.
enum Input {
    /// A container that nothing else reads: it is read in the task of the step, as two threads that need the
    /// interpreter would only wait for each other.
    Container { name: String, make: Py<PyAny> },
    /// The records of a task.
    Stream(DataStream<Record>),
}

impl Input {
    fn stream(self, env: &Environment) -> DataStream<Record> {
        match self {
            Self::Container { name, make } => container(env, name, make).boxed(),
            Self::Stream(stream) => stream,
        }
    }
}

/// Declares the steps, of which each comes after those it reads.
pub(crate) fn declare(env: &Environment, steps: &Bound<'_, PyList>, offsets: &Offsets) -> PyResult<()> {
    let py = steps.py();
    // What leads out of each step, by output, once for each step that reads it.
    let mut outputs: Vec<Vec<Vec<Input>>> = Vec::new();
    let mut loops = Loops::new();
    for step in steps.iter() {
        let step: Step = step.extract()?;
        let mut take = |(from, output): &(usize, usize)| outputs.get_mut(*from)?.get_mut(*output)?.pop();
        let mut inputs: Vec<Input> = step.inputs.iter().filter_map(&mut take).collect();
        let after = match (inputs.pop(), inputs.is_empty()) {
            (None, _) => match begin(py, env, &step, &mut loops, offsets)? {
                Input::Container { name, make } if step.outputs.iter().sum::<usize>() == 1 => {
                    outputs.push(vec![vec![Input::Container { name, make }]]);
                    continue;
                }
                input => vec![input.stream(env)],
            },
            (Some(right), false) if matches!(&*step.kind, "join" | "zip") => match inputs.pop() {
                Some(left) if step.kind == "zip" => vec![joins::zip(py, left.stream(env), right.stream(env), &step)?],
                Some(left) => vec![joins::join(py, left.stream(env), right.stream(env), &step)?],
                None => Vec::new(),
            },
            (Some(Input::Container { name, make }), true) if takes_blocks(py, &step)? => {
                let blocks = env.from_source(move |_replica| Blocks::new(copy(&make))).named(name).weigh(Record::held);
                functions(py, blocks, &step, Some(1), true)?
            }
            (Some(Input::Container { name, make }), true) => follow(py, container(env, name, make), &step, &mut loops)?,
            (Some(last), _) => {
                let first = last.stream(env);
                let all = inputs.into_iter().fold(first, |all, next| all.union(next.stream(env)).boxed());
                follow(py, all, &step, &mut loops)?
            }
        };
        outputs.push(after.into_iter().zip(&step.outputs).map(|(stream, count)| fork(stream, *count)).collect());
    }
    Ok(())
}

/// The stream of a step that reads none.
fn begin(py: Python<'_>, env: &Environment, step: &Step, loops: &mut Loops, offsets: &Offsets) -> PyResult<Input> {
    let (name, make) = (step.name.clone(), step.make.clone_ref(py));
    Ok(match &*step.kind {
        "container" => Input::Container { name, make },
        "future" => {
            let (stream, feedback) = env.feedback(&*name);
            let feedback = match step.option(py, "limit")? {
                Some(limit) => feedback.limit(limit),
                None => feedback,
            };
            loops.insert(name, feedback);
            Input::Stream(stream)
        }
        "kafka" => Input::Stream(kafka::source(py, env, step, offsets)?),
        // A source that may wait for its next record has a task of its own: so what came before goes on meanwhile.
        _ => {
            let source = env.from_source(move |_replica| Iterated::one_by_one(copy(&make)));
            Input::Stream(match Policy::retry(py, step)? {
                Some(retry) => source.retry(retry).named(name).weigh(Record::held).boxed(),
                None => source.named(name).weigh(Record::held).boxed(),
            })
        }
    })
}

/// Whether a step works on the records of a container in the container's own task, several at a time.
fn takes_blocks(py: Python<'_>, step: &Step) -> PyResult<bool> {
    let is_function = matches!(&*step.kind, "chain" | "sink" | "native");
    Ok(is_function && step.parallelism == 1 && Policy::of(py, step)?.is_none())
}

fn container(env: &Environment, name: String, make: Py<PyAny>) -> Stream<impl Pipe<Out = Record> + use<>> {
    env.from_source(move |_replica| Iterated::all_there(copy(&make))).named(name).weigh(Record::held)
}

/// Another reference to a Python object, for another replica.
pub(crate) fn copy(object: &Py<PyAny>) -> Py<PyAny> {
    attach(|py| object.clone_ref(py))
}

/// Gives every step that follows all records.
fn fork(stream: DataStream<Record>, count: usize) -> Vec<Input> {
    let mut outputs = Vec::new();
    let mut rest = stream;
    for _ in 1..count {
        let [one, other] = rest.fork();
        outputs.push(Input::Stream(one));
        rest = other;
    }
    outputs.push(Input::Stream(rest));
    outputs
}

/// Adds a step behind a stream; gives the streams behind it, by its outputs.
fn follow<P: Pipe<Out = Record>>(
    py: Python<'_>,
    stream: Stream<P>,
    step: &Step,
    loops: &mut Loops,
) -> PyResult<Vec<DataStream<Record>>> {
    match (&*step.kind, &*step.strategy) {
        ("window", _) => windows::window(py, stream, step),
        ("async", _) => asynchronous(py, stream, step),
        ("expiring", _) => states::expiring(py, stream, step),
        ("process", _) => Ok(timers::process(py, stream, step)),
        ("take", _) => Ok(vec![stream.take(step.required(py, "most")?).named(&*step.name).boxed()]),
        ("to_kafka", _) => kafka::sink(py, stream, step).map(|()| Vec::new()),
        ("fill", _) => {
            let name: String = step.required(py, "future")?;
            let Some(feedback) = loops.remove(&name) else {
                return Err(SubmitError::new_err(format!("the future stream `{name}` is filled twice")));
            };
            feedback.fill(stream);
            Ok(Vec::new())
        }
        (_, "hash") => {
            let choose = |record: &Record, replicas: usize| (record.hash() % replicas as u64) as usize;
            functions(py, stream.partition_by(step.parallelism, choose), step, None, false)
        }
        (_, "broadcast") => functions(py, stream.broadcast(step.parallelism), step, None, false),
        _ => functions(py, stream, step, Some(step.parallelism), false),
    }
}

/// Runs functions on a stream: in so many replicas, or as many as it has. Of `blocks`, each is several records.
fn functions<P: Pipe<Out = Record>>(
    py: Python<'_>,
    stream: Stream<P>,
    step: &Step,
    replicas: Option<usize>,
    blocks: bool,
) -> PyResult<Vec<DataStream<Record>>> {
    let (make, manner) = (step.make.clone_ref(py), Manner { blocks, ..step.manner() });
    match &*step.kind {
        "sink" => {
            let sink = stream.sink_to(move |_replica| Into::new(Chain::new(copy(&make), manner))).named(&*step.name);
            if let Some(replicas) = replicas.filter(|_| !blocks) {
                sink.parallelism(replicas);
            }
            Ok(Vec::new())
        }
        "chain" => {
            let manner = if Policy::of(py, step)?.is_some() { Manner { most: 1, ..manner } } else { manner };
            let chain = stream.operator(move || Through(Chain::new(copy(&make), manner))).named(&*step.name);
            let outputs: PyResult<Vec<_>> = match replicas {
                Some(replicas) if !blocks => policed!(py, chain.parallelism(replicas), step),
                _ => policed!(py, chain, step),
            };
            let outputs = ended(py, outputs?, step)?;
            Ok(if step.option::<bool>(py, "split")?.is_some() { split(outputs, step) } else { outputs })
        }
        "native" => {
            let parts: Parts = step.required(py, "parts")?;
            let whole = step.option::<bool>(py, "whole")?.is_some();
            // Made once here, so that a mistake is found before the job starts.
            Native::new(py, &parts, whole, blocks)?;
            let factory = move || attach(|py| Native::new(py, &parts, whole, blocks).expect("it was made before"));
            let chain = stream.operator(factory).named(&*step.name);
            Ok(vec![match replicas {
                Some(replicas) if !blocks => chain.parallelism(replicas).boxed(),
                _ => chain.boxed(),
            }])
        }
        kind => Err(SubmitError::new_err(format!("a step of kind `{kind}` cannot be here"))),
    }
}

/// Ends the first output of a step that is a sink: nothing comes out of it.
pub(crate) fn ended(
    py: Python<'_>,
    mut outputs: Vec<DataStream<Record>>,
    step: &Step,
) -> PyResult<Vec<DataStream<Record>>> {
    if step.option::<bool>(py, "ends")?.is_some() {
        outputs.remove(0).sink(drop).named(format!("end of {}", step.name));
    }
    Ok(outputs)
}

/// Parts the first output of a step by its keys, which say whether a record was accepted.
fn split(mut outputs: Vec<DataStream<Record>>, step: &Step) -> Vec<DataStream<Record>> {
    let (accepted, others) = outputs.remove(0).split(|record| record.key().is_true());
    let both = [accepted.named(format!("sides of {}", step.name)).boxed(), others];
    both.into_iter().chain(outputs).collect()
}

/// Begins the watermark of a stream whose records have just been given their times.
pub(crate) fn timed<P: Pipe<Out = Record>>(
    py: Python<'_>,
    stream: Stream<P>,
    step: &Step,
) -> PyResult<DataStream<Record>> {
    let Some(bound) = step.seconds(py, "out_of_order")? else { return Ok(stream.boxed()) };
    let mut order = OutOfOrder::by(bound);
    if let Some(limit) = step.seconds(py, "idle_after")? {
        order = order.idle_after(limit);
    }
    let stream = stream.with_timestamps(|record: &Record| Timestamp::from_millis(record.time), order);
    Ok(stream.map(|timed| timed.value).boxed())
}
