//! The steps of a plan, and the streams they become.
//!
//! Each step that has several readers, or runs on threads of its own, begins and ends in a task: so every stream here
//! is one of records, whatever is behind it. What the functions of a step do is not known here.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use sage::{DataStream, Environment, Feedback, OutOfOrder, Pipe, Stream, Timestamp};

use crate::Record;
use crate::blocks::{Blocks, MOST_RECORDS};
use crate::chain::{Chain, Manner};
use crate::chained::{ChainOperator, ChainSink};
use crate::error::SubmitError;
use crate::kafka::Offsets;
use crate::metrics::Worked;
use crate::native::{Native, Parts};
use crate::object::Object;
use crate::policies::{Policy, policed};
use crate::remote::{Judge, Outcome, RemoteChain};
use crate::rows::{Rows, Told, functions_of};
use crate::source::{Iterated, Serving};
use crate::spec::{Spec, Strategy, Times, follow};
use crate::stage::Form;
use crate::thread::attach;
use crate::{joins, kafka};

/// One step of the plan: see `python/sage/_plan.py` for what the fields are.
#[derive(FromPyObject)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) spec: Py<Spec>,
    inputs: Vec<(usize, usize)>,
    outputs: Vec<usize>,
    pub(crate) make: Object,
    pub(crate) parallelism: usize,
    pub(crate) strategy: Strategy,
    takes: Form,
    gives: Form,
    pub(crate) policy: Policy,
    times: Option<Times>,
    pub(crate) told: Told,
    #[pyo3(default)]
    pub(crate) worked: Worked,
}

impl Step {
    pub(crate) fn manner(&self) -> Manner {
        Manner { takes: self.takes, gives: self.gives, most: MOST_RECORDS, blocks: false }
    }

    /// Whether its functions run in workers: then its task waits for their results, and not for a source.
    fn is_elsewhere(&self) -> bool {
        matches!(self.spec.get(), Spec::Chain { elsewhere: true, .. })
    }

    pub(crate) fn refused(&self) -> PyErr {
        SubmitError::new_err(format!("`{}` cannot stand at this place", self.name))
    }
}

/// The loops that are not filled yet, by the names of their streams.
pub(crate) type Loops = HashMap<String, Feedback<Record>>;

/// What a step reads.
enum Input {
    /// A container that nothing else reads: it is read in the task of the step, as two threads that need the
    /// interpreter would only wait for each other.
    Container { name: String, make: Object },
    /// The records of a task.
    Stream(DataStream<Record>),
}

impl Input {
    fn stream(self, env: &Environment) -> DataStream<Record> {
        match self {
            Self::Container { name, make } => container(env, name, make).on_another_thread(),
            Self::Stream(stream) => stream,
        }
    }
}

/// Declares the steps, of which each comes after those it reads. Returns how they are told of.
pub(crate) fn declare(py: Python<'_>, env: &Environment, steps: Vec<Step>, offsets: &Offsets) -> PyResult<Rows> {
    // What leads out of each step, by output, once for each step that reads it.
    let mut outputs: Vec<Vec<Vec<Input>>> = Vec::new();
    let mut loops = Loops::new();
    let mut rows = Rows::new(&steps);
    for step in steps {
        let mut take = |(from, output): &(usize, usize)| outputs.get_mut(*from)?.get_mut(*output)?.pop();
        let mut inputs: Vec<Input> = step.inputs.iter().filter_map(&mut take).collect();
        let after = match (inputs.pop(), inputs.is_empty()) {
            (None, _) => match begin(env, &step, &mut loops, offsets)? {
                Input::Container { name, make } if step.outputs.iter().sum::<usize>() == 1 => {
                    outputs.push(vec![vec![Input::Container { name, make }]]);
                    rows.add(env, step);
                    continue;
                }
                input => vec![input.stream(env)],
            },
            (Some(Input::Container { name, make }), true) if takes_blocks(&step) => {
                let blocks = env.from_source(move |_replica| Blocks::new(make.clone())).named(name).weigh(Record::held);
                functions(py, blocks, &step, Some(1), true)?
            }
            (Some(Input::Container { name, make }), true) if !step.is_elsewhere() => {
                follow(py, container(env, name, make), &step, &mut loops)?
            }
            (Some(last), _) => match (step.spec.get(), inputs.pop()) {
                (spec @ Spec::Join { .. }, Some(left)) => {
                    vec![joins::join(left.stream(env), last.stream(env), &step, spec)?]
                }
                (Spec::Zip { max_ahead }, Some(left)) => {
                    vec![joins::zip(left.stream(env), last.stream(env), &step, *max_ahead)]
                }
                (_, before) => {
                    inputs.extend(before);
                    let first = last.stream(env);
                    let all =
                        inputs.into_iter().fold(first, |all, next| all.union(next.stream(env)).on_another_thread());
                    follow(py, all, &step, &mut loops)?
                }
            },
        };
        outputs.push(after.into_iter().zip(&step.outputs).map(|(stream, count)| tee(stream, *count)).collect());
        rows.cuts_off |= matches!(step.spec.get(), Spec::Take { .. } | Spec::Zip { .. });
        rows.add(env, step);
    }
    Ok(rows)
}

/// The stream of a step that reads none.
fn begin(env: &Environment, step: &Step, loops: &mut Loops, offsets: &Offsets) -> PyResult<Input> {
    let (name, make) = (step.name.clone(), step.make.clone());
    Ok(match step.spec.get() {
        Spec::Source { all_there: true, .. } => Input::Container { name, make },
        Spec::Future { limit } => {
            let (stream, feedback) = env.feedback(&*name);
            loops.insert(name, limit.iter().fold(feedback, |feedback, limit| feedback.limit(*limit)));
            Input::Stream(stream)
        }
        spec @ Spec::KafkaSource { .. } => Input::Stream(kafka::source(env, step, spec, offsets)?),
        Spec::Source { serves: true, service, .. } => {
            let serving = Arc::<Serving>::default();
            let told = serving.clone();
            let factory = move |_replica| Iterated::serving(make.clone(), serving.clone());
            let source = env.from_serving(factory, told, service.as_deref());
            Input::Stream(source.named(name).weigh(Record::held).on_another_thread())
        }
        // A source that may wait for its next record has a task of its own: so what came before goes on meanwhile.
        _ => {
            let source = env.from_source(move |_replica| Iterated::one_by_one(make.clone()));
            Input::Stream(match step.policy.retry() {
                Some(retry) => source.retry(retry).named(name).weigh(Record::held).on_another_thread(),
                None => source.named(name).weigh(Record::held).on_another_thread(),
            })
        }
    })
}

/// Whether a step works on the records of a container in the container's own task, several at a time.
fn takes_blocks(step: &Step) -> bool {
    let is_function = matches!(step.spec.get(), Spec::Chain { elsewhere: false, .. } | Spec::Native {});
    is_function && step.parallelism == 1 && step.policy.is_none()
}

fn container(env: &Environment, name: String, make: Object) -> Stream<impl Pipe<Out = Record> + use<>> {
    env.from_source(move |_replica| Iterated::all_there(make.clone())).named(name).weigh(Record::held)
}

/// Gives every step that follows all records.
fn tee(stream: DataStream<Record>, count: usize) -> Vec<Input> {
    let mut outputs = Vec::new();
    let mut rest = stream;
    for _ in 1..count {
        let [one, other] = rest.tee();
        outputs.push(Input::Stream(one));
        rest = other;
    }
    outputs.push(Input::Stream(rest));
    outputs
}

/// Runs functions on a stream: in so many replicas, or as many as it has. Of `blocks`, each is several records.
pub(crate) fn functions<P: Pipe<Out = Record>>(
    py: Python<'_>,
    stream: Stream<P>,
    step: &Step,
    replicas: Option<usize>,
    blocks: bool,
) -> PyResult<Vec<DataStream<Record>>> {
    let (make, manner) = (step.make.clone(), Manner { blocks, ..step.manner() });
    let worked = step.worked.clone();
    let replicas = replicas.filter(|_| !blocks);
    match step.spec.get() {
        Spec::Chain { ends: true, .. } if step.policy.is_none() => {
            let chain = move |_replica| ChainSink::new(Chain::new(make.clone(), manner, worked.replica()));
            let sink = stream.sink_to(chain).named(&*step.name);
            if let Some(replicas) = replicas {
                sink.parallelism(replicas);
            }
            Ok(Vec::new())
        }
        Spec::Chain { splits, elsewhere: true, .. } => {
            let outputs = if step.policy.is_none() {
                let chain =
                    stream.operator(move || RemoteChain::<Record>::new(make.clone(), manner)).named(&*step.name);
                match replicas {
                    Some(replicas) => policed(chain.parallelism(replicas), step),
                    None => policed(chain, step),
                }
            } else {
                let chain =
                    stream.operator(move || RemoteChain::<Outcome>::new(make.clone(), manner)).named(&*step.name);
                let judged = || functions_of(&step.name);
                match replicas {
                    Some(replicas) => {
                        policed(chain.parallelism(replicas).operator(Judge::default).named(judged()), step)
                    }
                    None => policed(chain.operator(Judge::default).named(judged()), step),
                }
            };
            Ok(if *splits { split(outputs, step) } else { outputs })
        }
        Spec::Chain { ends, splits, .. } => {
            let manner = if step.policy.is_none() { manner } else { Manner { most: 1, ..manner } };
            let chain = move || ChainOperator(Chain::new(make.clone(), manner, worked.replica()));
            let chain = stream.operator(chain).named(&*step.name);
            let outputs = match replicas {
                Some(replicas) => policed(chain.parallelism(replicas), step),
                None => policed(chain, step),
            };
            Ok(match (ends, splits) {
                (true, _) => ended(outputs, step),
                (_, true) => split(outputs, step),
                _ => outputs,
            })
        }
        Spec::Native {} => {
            let parts: Parts = make.extract(py)?;
            // Made once here, so that a mistake is found before the job starts.
            Native::new(py, &parts, blocks)?;
            let factory = move || attach(|py| Native::new(py, &parts, blocks).expect("it was made before"));
            let chain = stream.operator(factory).named(&*step.name);
            Ok(vec![match replicas {
                Some(replicas) => chain.parallelism(replicas).on_another_thread(),
                None => chain.on_another_thread(),
            }])
        }
        _ => Err(step.refused()),
    }
}

/// Ends the first output of a step that is a sink: nothing comes out of it.
pub(crate) fn ended(mut outputs: Vec<DataStream<Record>>, step: &Step) -> Vec<DataStream<Record>> {
    outputs.remove(0).sink(drop).named(format!("end of {}", step.name));
    outputs
}

/// Parts the first output of a step by its keys, which say whether a record was accepted.
fn split(mut outputs: Vec<DataStream<Record>>, step: &Step) -> Vec<DataStream<Record>> {
    let (accepted, others) = outputs.remove(0).split(|record| record.key().is_true());
    let both = [accepted.named(format!("sides of {}", step.name)).on_another_thread(), others];
    both.into_iter().chain(outputs).collect()
}

/// Begins the watermark of a stream whose records have just been given their times.
pub(crate) fn timed<P: Pipe<Out = Record>>(stream: Stream<P>, step: &Step) -> DataStream<Record> {
    let Some(Times { out_of_order, idle_after }) = &step.times else { return stream.on_another_thread() };
    let order = OutOfOrder::by(out_of_order.0);
    let order = idle_after.iter().fold(order, |order, limit| order.idle_after(limit.0));
    let stream = stream.with_timestamps(|record: &Record| Timestamp::from_millis(record.time), order);
    stream.map(|timed| timed.value).on_another_thread()
}
