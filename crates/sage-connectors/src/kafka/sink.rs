//! [`KafkaSink`]: records to a topic.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use sage::{BoxError, CloseContext, OpenContext, Sink};
use serde::Serialize;

use super::client::{Context, Settings, passes};
use super::error::KafkaError;

/// How long to wait at a time for acknowledgements.
const POLL: Duration = Duration::from_millis(1);
/// How long to wait between two looks at a topic that is not there yet.
const RETRY: Duration = Duration::from_millis(100);
/// The longest time limit that a clock can be moved on by.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// Acknowledgements are taken every so many records.
const SERVE_EVERY_RECORDS: u64 = 64;

type Value<T> = dyn Fn(&T) -> Result<Vec<u8>, BoxError> + Send + Sync;
type Key<T> = dyn Fn(&T) -> Option<Vec<u8>> + Send + Sync;

/// Writes each record to a Kafka topic.
///
/// **Guarantees.** The producer is idempotent (`enable.idempotence`, `acks=all`): librdkafka's own retries neither
/// repeat nor reorder records within a partition. [`flush`](Sink::flush) waits until every record written so far was
/// acknowledged by all replicas in sync. It runs whenever no record is waiting and at the end of input, so a job that
/// has succeeded has every record in the topic. A record that a broker refuses, or that was not acknowledged within the
/// [`delivery_timeout`](Self::delivery_timeout), fails the job with [`KafkaError::Delivery`], which counts the records
/// that were not acknowledged. An error policy that lets records pass does not help: the sink fails from there on. The
/// job is then clean: the last flush comes before the sink is closed, and closing only gives up. After a cancel or a
/// failure elsewhere, what was not acknowledged is dropped and counted in a warning; some of it may be in the topic. A
/// job that runs again writes again: between two runs, the topic gets records at least once.
///
/// **Backpressure.** At most [`queue_records`](Self::queue_records) and [`queue_kib`](Self::queue_kib) are in flight
/// per replica. When they are, the sink waits.
///
/// **Waiting.** While the brokers are gone, a wait ends by the delivery timeout; a cancel does not end it sooner.
/// Opening waits for a broker that knows the topic for [`connect_timeout`](Self::connect_timeout), then fails the job
/// with [`KafkaError::Connect`] or [`KafkaError::Topic`].
///
/// ```no_run
/// use sage::Environment;
/// use sage_connectors::KafkaSink;
///
/// let env = Environment::local("squares");
/// env.from_iter((0..10).map(|n| (n, n * n)))
///     .sink_to(|_replica| KafkaSink::json("localhost:9092", "squares").key(|(n, _): &(u32, u32)| n.to_string()));
/// env.run()?;
/// # Ok::<(), sage::RunError>(())
/// ```
pub struct KafkaSink<T> {
    settings: Settings,
    topic: String,
    value: Arc<Value<T>>,
    key: Option<Arc<Key<T>>>,
    queue_records: u32,
    queue_kib: u32,
    delivery_timeout: Duration,
    producer: Option<BaseProducer<Context>>,
    written: u64,
}

impl<T> KafkaSink<T> {
    /// Writes to `topic` the values that `value` makes. `servers` are the addresses of brokers, such as
    /// `"a:9092,b:9092"`.
    pub fn new<E: Into<BoxError>>(
        servers: impl Into<String>,
        topic: impl Into<String>,
        value: impl Fn(&T) -> Result<Vec<u8>, E> + Send + Sync + 'static,
    ) -> Self {
        Self {
            settings: Settings::new(servers.into()),
            topic: topic.into(),
            value: Arc::new(move |record| value(record).map_err(Into::into)),
            key: None,
            queue_records: 10_000,
            queue_kib: 64 << 10,
            delivery_timeout: Duration::from_secs(60),
            producer: None,
            written: 0,
        }
    }

    /// Writes to `topic` the records as they are.
    pub fn bytes(servers: impl Into<String>, topic: impl Into<String>) -> Self
    where
        T: AsRef<[u8]>,
    {
        Self::new(servers, topic, |record: &T| Ok::<_, BoxError>(record.as_ref().to_vec()))
    }

    /// Writes to `topic` the records as JSON.
    pub fn json(servers: impl Into<String>, topic: impl Into<String>) -> Self
    where
        T: Serialize,
    {
        Self::new(servers, topic, |record: &T| serde_json::to_vec(record))
    }

    /// Gives each record a key, whose hash chooses the partition. Default: no key; librdkafka chooses.
    pub fn key<K: AsRef<[u8]>>(mut self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(move |record| Some(key(record).as_ref().to_vec())));
        self
    }

    /// How many records may be in flight per replica. From 1 to 2,147,483,647; default: 10,000.
    pub fn queue_records(mut self, records: u32) -> Self {
        self.queue_records = records;
        self
    }

    /// How many KiB may be in flight per replica. From 1 to 2,147,483,647; default: 65,536.
    pub fn queue_kib(mut self, kib: u32) -> Self {
        self.queue_kib = kib;
        self
    }

    /// How long after it was written a record may be unacknowledged, retries included. From 1 ms to 24 days; default:
    /// 60 seconds.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// How long the sink tries to reach a broker that knows the topic. Default: 10 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Any other setting of librdkafka, such as `("compression.type", "zstd")`. Values are never logged.
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.set(key.into(), value.into());
        self
    }

    fn start(&mut self) -> Result<(), KafkaError> {
        let timeout_ms = self.delivery_timeout.as_millis().clamp(1, i32::MAX as u128);
        let fixed = [
            ("queue.buffering.max.messages", self.queue_records.to_string()),
            ("queue.buffering.max.kbytes", self.queue_kib.to_string()),
            ("message.timeout.ms", timeout_ms.to_string()),
        ];
        let defaults = [("enable.idempotence", "true"), ("acks", "all")];
        let producer: BaseProducer<Context> = self.settings.client(&fixed, &defaults)?;
        self.find_topic(&producer)?;
        self.producer = Some(producer);
        Ok(())
    }

    /// Waits for a broker that knows the topic. Brokers that create topics by themselves create it now.
    fn find_topic(&self, producer: &BaseProducer<Context>) -> Result<(), KafkaError> {
        let deadline = Instant::now() + self.settings.connect_timeout.min(FOREVER);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let found = producer.client().fetch_metadata(Some(&self.topic), left.max(POLL));
            // What is wrong is told as events.
            producer.poll(POLL);
            let (unknown, error) = match &found {
                Ok(metadata) => match metadata.topics().first().and_then(|topic| topic.error()) {
                    None => return Ok(()),
                    Some(error) => (true, RDKafkaErrorCode::from(error)),
                },
                Err(error) => (false, error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
            };
            let making = error == RDKafkaErrorCode::UnknownTopicOrPartition;
            if (passes(error) || making) && Instant::now() + RETRY < deadline {
                producer.poll(RETRY);
                continue;
            }
            return Err(match unknown {
                true => KafkaError::Topic { topic: self.topic.clone(), why: error.to_string() },
                false => KafkaError::Connect {
                    servers: self.settings.servers_told(),
                    within: self.settings.connect_timeout,
                    why: producer.context().reason(&error),
                },
            });
        }
    }

    /// Whether a record was not delivered. Once it is so, it stays so.
    fn check(&self, producer: &BaseProducer<Context>) -> Result<(), KafkaError> {
        match producer.context().failed() {
            None => Ok(()),
            Some(why) => Err(self.undelivered(producer, why)),
        }
    }

    #[cold]
    fn undelivered(&self, producer: &BaseProducer<Context>, why: String) -> KafkaError {
        let unacknowledged = self.written - producer.context().acknowledged();
        KafkaError::Delivery { topic: self.topic.clone(), unacknowledged, why }
    }

    fn unfit(&self, source: impl Into<BoxError>) -> KafkaError {
        KafkaError::Record { topic: self.topic.clone(), source: source.into() }
    }

    fn send(&mut self, record: &T) -> Result<(), KafkaError> {
        let producer = self.producer.as_ref().ok_or(KafkaError::NotOpen)?;
        let value = (self.value)(record).map_err(|error| self.unfit(error))?;
        let key = self.key.as_ref().and_then(|key| key(record));
        let mut message = BaseRecord::<[u8], [u8]>::to(&self.topic).payload(&value);
        message.key = key.as_deref();
        loop {
            match producer.send(message) {
                Ok(()) => break,
                Err((error, back)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) => {
                        message = back;
                        producer.poll(POLL);
                        self.check(producer)?;
                    }
                    // The producer is done for, and the first failed record says why.
                    Some(RDKafkaErrorCode::Fatal) => {
                        producer.poll(Duration::ZERO);
                        self.check(producer)?;
                        return Err(self.undelivered(producer, producer.context().reason(&error)));
                    }
                    Some(code) => return Err(self.unfit(code)),
                    None => return Err(self.unfit(error)),
                },
            }
        }
        self.written += 1;
        if self.written.is_multiple_of(SERVE_EVERY_RECORDS) {
            let producer = self.producer.as_ref().ok_or(KafkaError::NotOpen)?;
            producer.poll(Duration::ZERO);
            self.check(producer)?;
        }
        Ok(())
    }

    /// Waits until every record was acknowledged or one was not. A record's wait ends by its delivery timeout.
    fn settle(&self) -> Result<(), KafkaError> {
        let Some(producer) = &self.producer else { return Ok(()) };
        while producer.in_flight_count() > 0 {
            producer.poll(POLL);
            self.check(producer)?;
        }
        self.check(producer)
    }

    /// Gives up the records that were not acknowledged.
    fn end(&mut self) {
        // Dropping the producer drops what it still has.
        if let Some(producer) = self.producer.take() {
            producer.poll(Duration::ZERO);
            let dropped = self.written - producer.context().acknowledged();
            if dropped > 0 {
                tracing::warn!(
                    topic = self.topic,
                    records = dropped,
                    "records were not acknowledged, and are given up"
                );
            }
        }
    }
}

impl<T> fmt::Debug for KafkaSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("KafkaSink");
        debug.field("topic", &self.topic).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Sink for KafkaSink<T> {
    type In = T;

    fn open(&mut self, _cx: &OpenContext) -> Result<(), BoxError> {
        Ok(self.start()?)
    }

    fn write(&mut self, record: T) -> Result<(), BoxError> {
        Ok(self.send(&record)?)
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(self.settle()?)
    }

    // There is nothing to be made final in `finish`: the flush before it has waited for every acknowledgement.

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.end();
        Ok(())
    }
}
