//! [`KafkaSource`]: records of topics.

use std::fmt;
use std::str;
use std::sync::Arc;
use std::time::Duration;

use sage::{BoxError, CloseContext, Next, Source, SourceContext, WhileOpening};
use serde::de::DeserializeOwned;

use super::client::Settings;
use super::error::KafkaError;
use super::offsets::{Commit, KafkaOffsets};
use super::reader::{Options, Reader};
use super::record::{BadRecord, KafkaRecord};

/// Where a group begins in a partition if it has no offset, or one that is no longer in the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OffsetReset {
    /// At the oldest record.
    #[default]
    Earliest,
    /// Behind the newest record at the time the source connects.
    Latest,
    /// Nowhere: the job fails with [`KafkaError::NoOffset`].
    Error,
}

type Parse<T> = dyn Fn(&KafkaRecord<'_>) -> Result<T, BoxError> + Send + Sync;

/// Reads the records of Kafka topics, without end or up to where the topics end now.
///
/// **Partitions.** Each is read by one replica, in order of its offsets: replica `r` of `n` reads partition `p` of the
/// topic number `t` if `(t + p) % n == r`. A replica without a partition waits, or ends at once with
/// [`until_end`](Self::until_end). The replicas do not join the group as members, so no partition moves while the job
/// runs, however slow the pipeline is. So two jobs with the same group both read everything, and the next run reads
/// partitions that were added while the job ran.
///
/// **Where it begins.** At the group's committed offset; without one, as [`offset_reset`](Self::offset_reset) says.
///
/// **What is guaranteed.** Within a run, every record from there on comes once, in order within its partition.
/// From one run to the next:
///
/// - Offsets are committed once, in `close`, and only if the source's task has ended well: at the end of input, or of a
///   [drain](sage::JobView::drain). After a failure in a task before that, a cancel, a time limit, a signal or a
///   crash nothing is committed, and the next run gives every record of this one again. An endless job should be ended
///   by a drain, or by a signal under [`SignalPolicy::Finish`](sage::SignalPolicy::Finish).
/// - What is committed was *handed downstream*: through every operator and sink in the source's own chain, and
///   [`flush`](sage::Sink::flush)ed there, but across an exchange only into the lane. Where nothing divides the
///   source from a [`KafkaSink`](super::KafkaSink), a record is committed after its results were acknowledged: **at
///   least once**. Where an exchange (`rebalance`, `key_by`, another parallelism) lies between, a task behind it that
///   fails after the source has ended loses the records that were in its lanes: **at most once** for those. The same
///   holds for file sinks, whose file appears after the commit. Where that matters, [`offsets_to`](Self::offsets_to)
///   lets you commit when the job has succeeded. There are no checkpoints yet.
/// - A record that a `take` downstream did not want may count as handed on.
///
/// **Waiting.** The source notices a drain, a cancel, a pause, or that nobody wants more, within 50 ms while there are
/// no records, 250 ms while no broker answers, and a second while connecting. If no broker answers within
/// [`connect_timeout`](Self::connect_timeout), the job fails with [`KafkaError::Connect`], as if it could not open its
/// source; with a [`retry`](sage::Stream::retry) behind the source it tries as long again. Later, librdkafka reconnects
/// by itself; a job fails with [`KafkaError::Lost`] when no broker at all could be reached for
/// [`broker_timeout`](Self::broker_timeout). While one of several brokers is down, its partitions wait.
///
/// **Memory.** Up to [`buffer_kib`](Self::buffer_kib) of records per replica are fetched ahead, and one fetch more (1
/// MiB per partition).
///
/// **Limits.** The client is built without TLS, and so without SASL but for `PLAIN`; depend on `rdkafka` with its
/// feature `ssl` to have both. Packed with gzip, snappy, lz4 or zstd, all records can be read.
///
/// ```no_run
/// use sage::Environment;
/// use sage_connectors::{JsonlSink, KafkaSource};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize, Serialize)]
/// struct Order {
///     fruit: String,
///     count: u32,
/// }
///
/// let env = Environment::local("orders");
/// env.from_source(|_replica| KafkaSource::<Order>::json("localhost:9092", ["orders"], "archive").until_end())
///     .filter(|order| order.count > 0)
///     .sink_to(|_replica| JsonlSink::new("orders.jsonl"));
/// env.run()?;
/// # Ok::<(), sage::RunError>(())
/// ```
pub struct KafkaSource<T> {
    options: Options,
    parse: Arc<Parse<T>>,
    reader: Option<Reader>,
    /// A record that it could not read, and does not skip.
    stuck: Option<BadRecord>,
}

impl<T: Send + 'static> KafkaSource<T> {
    /// Reads `topics` for the consumer group `group`; `parse` makes the records. `servers` are the addresses of
    /// brokers, such as `"a:9092,b:9092"`.
    pub fn new<E: Into<BoxError>>(
        servers: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
        group: impl Into<String>,
        parse: impl Fn(&KafkaRecord<'_>) -> Result<T, E> + Send + Sync + 'static,
    ) -> Self {
        let mut names: Vec<String> = Vec::new();
        for topic in topics.into_iter().map(Into::into) {
            if !names.contains(&topic) {
                names.push(topic);
            }
        }
        let options = Options {
            settings: Settings::new(servers.into()),
            topics: names,
            group: group.into(),
            reset: OffsetReset::default(),
            until_end: false,
            commit: Commit::AtEnd,
            buffer_kib: 16 << 10,
            buffer_records: 10_000,
            broker_timeout: Duration::from_secs(60),
        };
        let parse = Arc::new(move |record: &KafkaRecord<'_>| parse(record).map_err(Into::into));
        Self { options, parse, reader: None, stuck: None }
    }

    /// Where the group begins without an offset. Default: [`OffsetReset::Earliest`].
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.options.reset = reset;
        self
    }

    /// Ends where each partition ends when the source connects. Topics are read one after the other. Default: without
    /// end.
    pub fn until_end(mut self) -> Self {
        self.options.until_end = true;
        self
    }

    /// Whether the source commits its offsets when it has ended well. Default: true.
    pub fn commit_offsets(mut self, commit: bool) -> Self {
        self.options.commit = if commit { Commit::AtEnd } else { Commit::Never };
        self
    }

    /// Hands the offsets to `offsets` for you to commit when the job has succeeded, instead of committing them when the
    /// source has ended.
    pub fn offsets_to(mut self, offsets: &KafkaOffsets) -> Self {
        self.options.commit = Commit::Later(offsets.clone());
        self
    }

    /// How much is fetched ahead per replica, in KiB; librdkafka's `queued.max.messages.kbytes`. From 1 to 2,097,151;
    /// default: 16,384.
    pub fn buffer_kib(mut self, kib: u32) -> Self {
        self.options.buffer_kib = kib;
        self
    }

    /// How many records librdkafka tries to have ready per partition, within [`buffer_kib`](Self::buffer_kib); its
    /// `queued.min.messages`. From 1 to 10,000,000; default: 10,000.
    pub fn buffer_records(mut self, records: u32) -> Self {
        self.options.buffer_records = records;
        self
    }

    /// How long the source tries to reach a broker at the start, and to commit at the end. Default: 10 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.settings.connect_timeout = timeout;
        self
    }

    /// How long all brokers may be gone while the job runs, before it fails. Default: 60 seconds.
    pub fn broker_timeout(mut self, timeout: Duration) -> Self {
        self.options.broker_timeout = timeout;
        self
    }

    /// Sets any other setting of librdkafka, such as `("fetch.wait.max.ms", "100")`. The job fails at its start, with
    /// [`KafkaError::Setting`], if the guarantees rest on that setting. Values are never logged.
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.settings.set(key.into(), value.into());
        self
    }

    /// Gives each record that the deserialiser refuses as a [`BadRecord`] among the others, instead of failing.
    pub fn lenient(self) -> impl Source<Item = Result<T, BadRecord>> {
        Lenient(self)
    }

    fn start(&mut self) -> Result<(), KafkaError> {
        let setting = |key: &str, why: &str| KafkaError::Setting { key: key.to_owned(), why: why.to_owned() };
        if self.options.topics.is_empty() {
            return Err(setting("topics", "names no topic"));
        }
        if self.options.group.is_empty() {
            return Err(setting("group.id", "is empty"));
        }
        self.reader.insert(Reader::new(self.options.clone())).open()
    }

    fn parsed(&mut self, cx: &SourceContext) -> Result<Next<Result<T, BadRecord>>, BoxError> {
        let reader = self.reader.as_mut().ok_or(KafkaError::NotOpen)?;
        let next = reader.next(cx, |record| (self.parse)(record).map_err(|error| record.bad(error.to_string())));
        // What keeps it from connecting is no record that cannot be read.
        next.map_err(|error| if reader.is_connected() { error.into() } else { WhileOpening::new(error).into() })
    }

    fn end(&mut self, cx: &CloseContext) -> Result<(), KafkaError> {
        self.reader.take().map_or(Ok(()), |mut reader| reader.close(cx))
    }
}

impl KafkaSource<Vec<u8>> {
    /// Reads the values as they are. A record without a value is bad.
    pub fn bytes(
        servers: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
        group: impl Into<String>,
    ) -> Self {
        Self::new(servers, topics, group, |record| value(record).map(<[u8]>::to_vec))
    }
}

impl KafkaSource<String> {
    /// Reads the values as text. A record without a value, or whose value is not UTF-8, is bad.
    pub fn text(
        servers: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
        group: impl Into<String>,
    ) -> Self {
        Self::new(servers, topics, group, |record| Ok::<_, BoxError>(str::from_utf8(value(record)?)?.to_owned()))
    }
}

impl<T: DeserializeOwned + Send + 'static> KafkaSource<T> {
    /// Reads a `T` from the JSON of each value. A record without a value, or whose value is not such JSON, is bad.
    pub fn json(
        servers: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
        group: impl Into<String>,
    ) -> Self {
        Self::new(servers, topics, group, |record| Ok::<_, BoxError>(serde_json::from_slice(value(record)?)?))
    }
}

fn value<'a>(record: &'a KafkaRecord<'_>) -> Result<&'a [u8], BoxError> {
    record.value().ok_or_else(|| "it has no value".into())
}

impl<T> fmt::Debug for KafkaSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Source for KafkaSource<T> {
    type Item = T;

    fn open(&mut self, _cx: &SourceContext) -> Result<(), BoxError> {
        Ok(self.start()?)
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<T>, BoxError> {
        if let Some(bad) = &self.stuck {
            return Err(KafkaError::BadRecord(bad.clone()).into());
        }
        match self.parsed(cx)? {
            Next::Record(Ok(record)) => Ok(Next::Record(record)),
            Next::Record(Err(bad)) => {
                self.stuck = Some(bad.clone());
                Err(KafkaError::BadRecord(bad).into())
            }
            Next::End => Ok(Next::End),
            _ => Ok(Next::Idle),
        }
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        Ok(self.end(cx)?)
    }
}

/// A source that gives bad records as records.
struct Lenient<T>(KafkaSource<T>);

impl<T: Send + 'static> Source for Lenient<T> {
    type Item = Result<T, BadRecord>;

    fn open(&mut self, _cx: &SourceContext) -> Result<(), BoxError> {
        Ok(self.0.start()?)
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<Self::Item>, BoxError> {
        self.0.parsed(cx)
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        Ok(self.0.end(cx)?)
    }
}
