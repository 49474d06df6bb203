//! Brokers in this process, for tests: librdkafka's mock of a cluster.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use sage::OsThread;

use super::KafkaError;

/// Kafka brokers in this process, for tests of pipelines that read and write topics. No Kafka needs to be installed.
///
/// This is the mock cluster of librdkafka, the client that [`KafkaSource`](crate::KafkaSource) and
/// [`KafkaSink`](crate::KafkaSink) use. It listens on 127.0.0.1 and speaks Kafka's protocol, so other clients can use
/// it too. It keeps records in memory: the latest 5 MiB, or 100,000 batches, of each partition. Committed offsets are
/// kept as long. It checks no credentials. Writing to a topic that does not exist makes it with four partitions. Use it
/// only in tests.
///
/// When it is dropped, the brokers and their threads have ended.
///
/// ```
/// use sage::Environment;
/// use sage_connectors::testing::KafkaCluster;
/// use sage_connectors::{KafkaSink, KafkaSource};
///
/// let cluster = KafkaCluster::start(1)?;
/// cluster.create_topic("numbers", 1)?;
/// let servers = cluster.bootstrap_servers();
///
/// let env = Environment::local("write");
/// env.from_iter(1..=3).sink_to(move |_replica| KafkaSink::json(&*servers, "numbers"));
/// env.run()?;
///
/// let (env, servers) = (Environment::local("read"), cluster.bootstrap_servers());
/// let numbers = env
///     .from_source(move |_replica| KafkaSource::<u32>::json(&*servers, ["numbers"], "group").until_end())
///     .collect();
/// env.run()?;
/// assert_eq!(numbers.take(), [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct KafkaCluster(Option<MockCluster<'static, DefaultProducerContext>>);

// SAFETY: the pointer in it is to a cluster of librdkafka, which has a thread of its own: making a topic and destroying
// the cluster are messages to it that are waited for, from whichever thread; the addresses do not change.
unsafe impl Send for KafkaCluster {}

impl KafkaCluster {
    /// Starts so many brokers, 1 or more.
    ///
    /// # Errors
    /// [`KafkaError::Client`] if librdkafka cannot start them.
    pub fn start(brokers: usize) -> Result<Self, KafkaError> {
        let made = i32::try_from(brokers).map_err(|error| error.to_string()).and_then(|brokers| {
            if brokers == 0 {
                return Err("a cluster has at least one broker".to_owned());
            }
            MockCluster::new(brokers).map_err(|error| error.to_string())
        });
        made.map(|cluster| Self(Some(cluster))).map_err(|why| KafkaError::Client { why })
    }

    /// The addresses of the brokers, with commas between them: what a source or sink is to connect to.
    pub fn bootstrap_servers(&self) -> String {
        self.0.as_ref().map(MockCluster::bootstrap_servers).unwrap_or_default()
    }

    /// Makes a topic with so many partitions, 1 or more.
    ///
    /// # Errors
    /// [`KafkaError::Topic`], for example if there is a topic of that name.
    pub fn create_topic(&self, name: &str, partitions: usize) -> Result<(), KafkaError> {
        let Some(cluster) = &self.0 else { return Ok(()) };
        let made = i32::try_from(partitions).map_err(|error| error.to_string()).and_then(|partitions| {
            if partitions == 0 {
                return Err("a topic has at least one partition".to_owned());
            }
            cluster.create_topic(name, partitions, 1).map_err(|error| error.to_string())
        });
        made.map_err(|why| KafkaError::Topic { topic: name.to_owned(), why })
    }
}

impl std::fmt::Debug for KafkaCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaCluster").field("bootstrap_servers", &self.bootstrap_servers()).finish()
    }
}

impl Drop for KafkaCluster {
    fn drop(&mut self) {
        drop(self.0.take());
        // librdkafka has joined them; the system may still be at it.
        OsThread::await_exiting();
    }
}
