//! Kafka topics as steps of a plan, and brokers for tests of pipelines.
//!
//! A source makes records of a topic without the interpreter. What the values stand for is decided by the Python
//! package, in the step behind the source and in the one before the sink.

use std::convert::Infallible;
use std::str;
use std::sync::Mutex;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use sage::{BoxError, CloseContext, DataStream, Environment, FinishContext, OpenContext, OsThread, Pipe, Sink, Stream};
use sage_connectors::{KafkaOffsets, KafkaRecord, KafkaSink, KafkaSource, OffsetReset};

use crate::Record;
use crate::error::attempt;
use crate::spec::{Reset, Spec};
use crate::steps::Step;
use crate::thread::{attach, lock};
use crate::value::Value;

/// Where the sources of a job stood at their end, to be committed when the job has succeeded.
pub(crate) type Offsets = KafkaOffsets;

/// How many records are gathered to be read from their objects, attached once.
const MOST_RECORDS: usize = 512;

/// The stream of a topic's records.
pub(crate) fn source(env: &Environment, step: &Step, spec: &Spec, offsets: &Offsets) -> PyResult<DataStream<Record>> {
    let Spec::KafkaSource {
        servers,
        topics,
        group,
        reset,
        buffer_size,
        connect_timeout,
        settings,
        until_end,
        metadata,
        commits,
    } = spec
    else {
        return Err(step.refused());
    };
    let (servers, topics, group, settings) = (servers.clone(), topics.clone(), group.clone(), settings.clone());
    let (buffer, connect, until_end, commits) = (*buffer_size, connect_timeout.0, *until_end, *commits);
    let reset = match reset {
        Reset::Earliest => OffsetReset::Earliest,
        Reset::Latest => OffsetReset::Latest,
        Reset::Error => OffsetReset::Error,
    };
    let make: fn(&KafkaRecord<'_>) -> Record = if *metadata { described } else { plain };
    let offsets = offsets.clone();
    let make_source = move |_replica| {
        let mut source = KafkaSource::new(&*servers, &topics, &*group, move |record| Ok::<_, Infallible>(make(record)));
        source = source.offset_reset(reset).buffer_records(buffer).connect_timeout(connect);
        source = if commits { source.offsets_to(&offsets) } else { source.commit_offsets(false) };
        if until_end {
            source = source.until_end();
        }
        settings.iter().fold(source, |source, (key, value)| source.setting(key, value))
    };
    Ok(env
        .from_source(make_source)
        .parallelism(step.parallelism)
        .named(&*step.name)
        .weigh(Record::held)
        .on_another_thread())
}

/// The value of a record; `None` where it has none.
fn plain(record: &KafkaRecord<'_>) -> Record {
    Record::from(value(record))
}

/// A `dict` of a record's value and of what else is known of it.
fn described(record: &KafkaRecord<'_>) -> Record {
    let key = record.key().map_or(Value::None, |key| match str::from_utf8(key) {
        Ok(text) => Value::Text(text.into()),
        Err(_) => Value::Bytes(key.into()),
    });
    let fields = [
        ("value", value(record)),
        ("timestamp", record.timestamp_millis().map_or(Value::None, Value::Int)),
        ("topic", Value::Text(record.topic().into())),
        ("partition", Value::Int(record.partition().into())),
        ("offset", Value::Int(record.offset())),
        ("key", key),
    ];
    Record::from(Value::Dict(fields.map(|(name, value)| (Value::Text(name.into()), value)).into()))
}

fn value(record: &KafkaRecord<'_>) -> Value {
    record.value().map_or(Value::None, |value| Value::Bytes(value.into()))
}

/// Ends a stream of `(key, value)` in a topic.
pub(crate) fn sink<P: Pipe<Out = Record>>(stream: Stream<P>, step: &Step, spec: &Spec) -> PyResult<()> {
    let Spec::KafkaSink { servers, topic, keyed, connect_timeout, settings } = spec else { return Err(step.refused()) };
    let (servers, topic, settings) = (servers.clone(), topic.clone(), settings.clone());
    let (keyed, connect_timeout) = (*keyed, connect_timeout.0);
    let make_sink = move |_replica| {
        let mut sink =
            KafkaSink::new(&*servers, &*topic, |message: &Message| Ok::<_, Infallible>(message.value.clone()));
        if keyed {
            sink = sink.key(|message| message.key.clone());
        }
        sink = sink.connect_timeout(connect_timeout);
        let sink = settings.iter().fold(sink, |sink, (key, value)| sink.setting(key, value));
        Written { sink, waiting: Vec::new() }
    };
    stream.sink_to(make_sink).named(&*step.name).parallelism(step.parallelism);
    Ok(())
}

/// A record as a topic takes it.
struct Message {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Message {
    /// The message that a pair of Python objects is.
    fn of(record: Record, py: Python<'_>) -> PyResult<Self> {
        let pair = record.value.into_object(py)?;
        let (key, value) = pair.extract::<(Option<Bound<'_, PyBytes>>, Bound<'_, PyBytes>)>()?;
        let key = key.map_or_else(Vec::new, |key| key.as_bytes().to_vec());
        Ok(Self { key, value: value.as_bytes().to_vec() })
    }
}

/// A topic that is written to, and the records that wait to be read from their objects.
struct Written {
    sink: KafkaSink<Message>,
    waiting: Vec<Record>,
}

impl Written {
    fn run(&mut self) -> Result<(), BoxError> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let messages: Vec<Message> = attempt(|py| waiting.into_iter().map(|record| Message::of(record, py)).collect())?;
        messages.into_iter().try_for_each(|message| self.sink.write(message))
    }
}

impl Sink for Written {
    type In = Record;

    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        self.sink.open(cx)
    }

    fn write(&mut self, record: Record) -> Result<(), BoxError> {
        self.waiting.push(record);
        if self.waiting.len() < MOST_RECORDS { Ok(()) } else { self.run() }
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        self.run()?;
        self.sink.flush()
    }

    fn finish(&mut self, cx: &FinishContext) -> Result<(), BoxError> {
        self.sink.finish(cx)
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        attach(|_| self.waiting.clear());
        self.sink.close(cx)
    }
}

/// Kafka brokers in this process, for tests.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct KafkaCluster(Mutex<Option<Brokers>>);

struct Brokers(MockCluster<'static, DefaultProducerContext>);

// SAFETY: the pointer in it is to a cluster of librdkafka, which has a thread of its own: making a topic and destroying
// the cluster are messages to it that are waited for, from whichever thread; the addresses do not change.
unsafe impl Send for Brokers {}

impl KafkaCluster {
    fn with<R: Send>(&self, py: Python<'_>, look: impl FnOnce(&Brokers) -> R + Send) -> PyResult<R> {
        let result = py.detach(|| lock(&self.0).as_ref().map(look));
        result.ok_or_else(|| PyRuntimeError::new_err("the cluster is closed"))
    }
}

#[pymethods]
impl KafkaCluster {
    #[new]
    fn new(py: Python<'_>, brokers: i32) -> PyResult<Self> {
        let made = py.detach(|| MockCluster::new(brokers).map(Brokers));
        let made = made.map_err(|error| PyRuntimeError::new_err(format!("cannot start a cluster: {error}")))?;
        Ok(Self(Mutex::new(Some(made))))
    }

    /// The addresses of the brokers.
    #[getter]
    fn bootstrap_servers(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |brokers| brokers.0.bootstrap_servers())
    }

    /// Makes a topic.
    fn create_topic(&self, py: Python<'_>, name: &str, partitions: i32) -> PyResult<()> {
        let made = self.with(py, |brokers| brokers.0.create_topic(name, partitions, 1))?;
        made.map_err(|error| PyValueError::new_err(format!("cannot make the topic `{name}`: {error}")))
    }

    /// Ends the brokers, and waits until their threads have ended.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            drop(lock(&self.0).take());
            OsThread::await_exiting();
        });
    }
}
