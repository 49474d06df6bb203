//! Kafka topics, against librdkafka's own mock of a cluster, in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use sage::testing::{self, Census};
use sage::{BoxError, Cause, Environment, FinishContext, JobHandle, Outcome, Retry, Sink, StopReason};
use sage_connectors::{BadRecord, KafkaError, KafkaOffsets, KafkaSink, KafkaSource, OffsetReset};

use crate::{failed, failure};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const EVERY_BROKER: i32 = -1;
/// Nobody listens here.
const NOBODY: &str = "127.0.0.1:1";

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(topics: &[(&str, i32)]) -> (Cluster, String) {
    let cluster = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).unwrap();
    }
    let servers = cluster.bootstrap_servers();
    (cluster, servers)
}

/// Runs a test, and fails if it leaves a thread or a descriptor behind, those of the cluster's connections included.
fn leak_free(test: impl FnOnce()) {
    let first = Environment::local("first");
    first.from_iter([()]).sink(|()| {});
    first.run().unwrap();
    while !Census::take().threads().any(|name| name == "sage-signals") {
        std::thread::yield_now();
    }
    let before = Census::take();
    test();
    if std::env::var_os("NEXTEST").is_some() {
        before.expect_growth(&[]);
    }
}

/// Writes numbers to a topic; equal ones go to equal partitions.
fn write(servers: &str, topic: &'static str, numbers: impl IntoIterator<Item = u32>) {
    let env = Environment::local("write");
    let (numbers, servers) = (numbers.into_iter().collect::<Vec<_>>(), servers.to_owned());
    env.from_iter(numbers).sink_to(move |_| KafkaSink::json(&*servers, topic).key(|number: &u32| number.to_string()));
    env.run().unwrap();
}

fn numbers(servers: &str, topic: &str) -> KafkaSource<u32> {
    KafkaSource::json(servers, [topic], "group")
}

/// Everything a bounded source gives, in order of the numbers.
fn read(source: impl Fn() -> KafkaSource<u32> + Send + 'static, replicas: usize) -> Vec<u32> {
    let env = Environment::local("read");
    let read = env.from_source(move |_| source().until_end()).parallelism(replicas).collect();
    env.run().unwrap();
    let mut read = read.take();
    read.sort_unstable();
    read
}

/// An endless job that reads a topic.
fn follow(source: impl Fn() -> KafkaSource<u32> + Send + 'static) -> (Environment, JobHandle, testing::Received<u32>) {
    let (received, sink) = testing::sink();
    let env = Environment::local("follow");
    env.from_source(move |_| source()).sink_to(move |_| sink.clone());
    let job = env.submit().unwrap();
    (env, job, received)
}

fn kafka_error(cause: &Cause) -> &KafkaError {
    cause.error.as_ref().unwrap().downcast_ref().expect("a `KafkaError`")
}

fn cause(job: &JobHandle) -> Cause {
    let error = job.wait().expect_err("the job must fail");
    let report = error.report().unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    report.first_cause.clone().unwrap()
}

#[test]
fn what_is_written_is_read_once_and_in_order() {
    leak_free(|| {
        let (_cluster, servers) = cluster(&[("numbers", 1)]);
        write(&servers, "numbers", 0..20_000);
        let env = Environment::local("read");
        let read = env.from_source(move |_| numbers(&servers, "numbers").until_end()).collect();
        let report = env.run().unwrap();
        assert!(report.left.is_empty());
        assert!(read.take().into_iter().eq(0..20_000));
    });
}

#[test]
fn replicas_share_the_partitions_of_all_topics() {
    leak_free(|| {
        let (_cluster, servers) = cluster(&[("a", 5), ("b", 3), ("empty", 2)]);
        write(&servers, "a", 0..3000);
        write(&servers, "b", 3000..5000);
        for replicas in [1, 2, 3, 12] {
            let servers = servers.clone();
            let source = move || KafkaSource::json(&*servers, ["a", "b", "empty", "a"], "group").commit_offsets(false);
            assert!(read(source, replicas).into_iter().eq(0..5000), "{replicas} replicas");
        }
        let servers_ = servers.clone();
        let (_env, job, received) = {
            let (received, sink) = testing::sink();
            let env = Environment::local("follow");
            env.from_source(move |_| KafkaSource::<u32>::json(&*servers_, ["a", "b"], "group"))
                .parallelism(2)
                .sink_to(move |_| sink.clone());
            let job = env.submit().unwrap();
            (env, job, received)
        };
        received.wait_for(5000);
        write(&servers, "b", 5000..5100);
        received.wait_for(5100);
        job.drain();
        job.wait().unwrap();
        let mut all = received.take();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..5100));
    });
}

#[test]
fn order_holds_within_a_partition_and_keys_stay_together() {
    let (_cluster, servers) = cluster(&[("pairs", 4)]);
    let into = servers.clone();
    let env = Environment::local("write");
    env.from_iter((0..4000_u32).map(|number| (number % 37, number)))
        .sink_to(move |_| KafkaSink::json(&*into, "pairs").key(|(key, _): &(u32, u32)| key.to_string()));
    env.run().unwrap();
    let env = Environment::local("read");
    let read = env
        .from_source(move |_| {
            KafkaSource::new(&*servers, ["pairs"], "group", |record| {
                assert!(record.timestamp_millis().is_some());
                assert_eq!(record.headers().count(), 0);
                let (key, number): (u32, u32) = serde_json::from_slice(record.value().unwrap())?;
                assert_eq!(record.key(), Some(key.to_string().as_bytes()));
                Ok::<_, BoxError>((record.partition(), record.offset(), key, number))
            })
            .until_end()
        })
        .parallelism(2)
        .collect();
    env.run().unwrap();
    let (mut last, mut homes) = (BTreeMap::new(), BTreeMap::new());
    let read = read.take();
    assert_eq!(read.len(), 4000);
    for (partition, offset, key, number) in read {
        assert_eq!(*homes.entry(key).or_insert(partition), partition);
        let before = last.insert(partition, (offset, number));
        assert!(before.is_none_or(|before| before < (offset, number)));
    }
}

#[test]
fn a_second_run_goes_on_where_the_first_ended_well() {
    let (_cluster, servers) = cluster(&[("numbers", 3)]);
    write(&servers, "numbers", 0..100);
    let source = {
        let servers = servers.clone();
        move || numbers(&servers, "numbers")
    };
    // Nothing is committed by runs that fail, that are cancelled, or that are told not to.
    let env = Environment::local("fails");
    let from = source.clone();
    env.from_source(move |_| from().until_end()).try_map(|_| Err::<u32, _>("no")).sink(|_| {});
    failed(&env);
    let (_env, job, received) = follow(source.clone());
    received.wait_for(100);
    job.cancel();
    job.wait().unwrap_err();
    let from = source.clone();
    assert!(read(move || from().commit_offsets(false), 1).into_iter().eq(0..100));

    assert!(read(source.clone(), 2).into_iter().eq(0..100));
    assert!(read(source.clone(), 1).is_empty());
    write(&servers, "numbers", 100..150);
    let (_env, job, received) = follow(source.clone());
    received.wait_for(50);
    job.drain();
    assert!(job.wait().unwrap().left.is_empty());
    let mut second = received.take();
    second.sort_unstable();
    assert!(second.into_iter().eq(100..150));
    write(&servers, "numbers", 150..160);
    assert!(read(source, 1).into_iter().eq(150..160));
}

#[test]
fn a_group_without_offsets_begins_as_it_is_told() {
    let (_cluster, servers) = cluster(&[("numbers", 2)]);
    write(&servers, "numbers", 0..50);
    let from = |reset| {
        let servers = servers.clone();
        move || numbers(&servers, "numbers").offset_reset(reset)
    };
    let env = Environment::local("none");
    let source = from(OffsetReset::Error);
    env.from_source(move |_| source().until_end()).sink(|_| {});
    let cause = failure(&env);
    let KafkaError::NoOffset { group, topic, .. } = kafka_error(&cause) else { panic!("{}", cause.message) };
    assert_eq!((&**group, &**topic), ("group", "numbers"));
    assert!(read(from(OffsetReset::Latest), 1).is_empty());
    write(&servers, "numbers", 50..60);
    // From here on there are offsets, whatever is said.
    let source = from(OffsetReset::Error);
    assert!(read(move || source().commit_offsets(false), 1).into_iter().eq(50..60));
    assert!(read(from(OffsetReset::Earliest), 1).into_iter().eq(50..60));
    let servers = servers.clone();
    assert!(read(move || KafkaSource::json(&*servers, ["numbers"], "other"), 1).into_iter().eq(0..60));
}

#[test]
fn a_bad_record_fails_the_job_with_its_place_or_comes_as_data() {
    let (_cluster, servers) = cluster(&[("texts", 1)]);
    let into = servers.clone();
    let env = Environment::local("write");
    env.from_iter([b"1".to_vec(), b"zwei".to_vec(), vec![0xff], b"4".to_vec()])
        .sink_to(move |_| KafkaSink::bytes(&*into, "texts").key(|_: &Vec<u8>| "key"));
    env.run().unwrap();

    let env = Environment::local("strict").inline();
    let from = servers.clone();
    let good = env.from_source(move |_| numbers(&from, "texts").until_end()).collect();
    let cause = failure(&env);
    let KafkaError::BadRecord(bad) = kafka_error(&cause) else { panic!("{}", cause.message) };
    assert_eq!((&*bad.topic, bad.partition, bad.offset), ("texts", 0, 1));
    assert!(cause.message.contains("texts[0] at offset 1: expected value"), "{}", cause.message);
    assert_eq!(good.take(), [1]);

    let env = Environment::local("lenient");
    let from = servers.clone();
    let records = env.from_source(move |_| numbers(&from, "texts").until_end().lenient()).collect();
    env.run().unwrap();
    let records: Vec<Result<u32, BadRecord>> = records.take();
    assert_eq!(records.len(), 4);
    assert_eq!((records[0].as_ref(), records[3].as_ref()), (Ok(&1), Ok(&4)));
    let bad = records[2].as_ref().unwrap_err();
    assert_eq!((bad.offset, bad.key.as_deref(), bad.value.as_deref()), (2, Some(&b"key"[..]), Some(&[0xff][..])));

    let env = Environment::local("text").inline();
    env.from_source(move |_| KafkaSource::text(&*servers, ["texts"], "texts").until_end()).sink(|_| {});
    let cause = failure(&env);
    assert!(cause.message.contains("texts[0] at offset 2: invalid utf-8"), "{}", cause.message);
}

#[test]
fn brokers_that_are_down_at_the_start_are_named() {
    leak_free(|| {
        let env = Environment::local("source");
        env.from_source(|_| numbers(NOBODY, "numbers").connect_timeout(300 * MS)).sink(|_| {});
        let cause = failure(&env);
        let KafkaError::Connect { servers, within, why } = kafka_error(&cause) else { panic!("{}", cause.message) };
        assert_eq!((&**servers, *within), (NOBODY, 300 * MS));
        assert_eq!(cause.place().to_string(), "operator `source-1`, while opening");
        assert!(why.contains("refused"), "{why}");

        let env = Environment::local("sink");
        env.from_iter([1]).sink_to(|_| KafkaSink::<u32>::json(NOBODY, "numbers").connect_timeout(300 * MS));
        let cause = failure(&env);
        let KafkaError::Connect { servers, .. } = kafka_error(&cause) else { panic!("{}", cause.message) };
        assert_eq!(servers, NOBODY);
        assert_eq!(cause.place().to_string(), "operator `sink-1`, while opening");

        // Asked again, it tries as long again.
        let env = Environment::local("again");
        env.from_source(|_| numbers(NOBODY, "numbers").connect_timeout(100 * MS))
            .retry(Retry::up_to(3).backoff(MS, MS))
            .sink(|_| {});
        let report = failed(&env);
        let cause = report.first_cause.as_ref().unwrap();
        assert_eq!(cause.place().to_string(), "operator `source-1`, while opening");
        assert!(cause.message.starts_with("gave up after 3 attempts: cannot connect to Kafka at"), "{cause}");
        assert!(report.elapsed > 250 * MS && report.operators[0].retries == 2, "{report}");
    });
}

#[test]
fn a_drain_and_a_cancel_end_the_wait_for_brokers_and_for_records() {
    leak_free(|| {
        let down = || numbers(NOBODY, "numbers").connect_timeout(HOUR);
        let (_env, job, _) = follow(down);
        job.drain();
        job.wait().unwrap();
        let (_env, job, _) = follow(down);
        job.cancel();
        assert!(job.wait().unwrap_err().report().unwrap().left.is_empty());

        let (_cluster, servers) = cluster(&[("numbers", 1)]);
        write(&servers, "numbers", [7]);
        for drain in [false, true] {
            let from = servers.clone();
            let (_env, job, received) = follow(move || numbers(&from, "numbers"));
            assert_eq!(received.wait_for(1), [7]);
            job.pause();
            job.resume();
            if drain {
                job.drain();
                assert_eq!(job.wait().unwrap().reason, StopReason::Drain);
            } else {
                job.cancel();
                assert!(job.wait().unwrap_err().report().unwrap().left.is_empty());
            }
        }
    });
}

#[test]
fn brokers_that_go_away_fail_the_job_after_a_while() {
    leak_free(|| {
        let (cluster, servers) = cluster(&[("numbers", 2)]);
        write(&servers, "numbers", 0..10);
        let from = servers.clone();
        let (_env, job, received) = follow(move || numbers(&from, "numbers").broker_timeout(200 * MS));
        received.wait_for(10);
        cluster.broker_down(EVERY_BROKER).unwrap();
        let cause = cause(&job);
        let KafkaError::Lost { servers: told, .. } = kafka_error(&cause) else { panic!("{}", cause.message) };
        assert_eq!(*told, servers);
    });
}

#[test]
fn brokers_that_come_back_lose_and_repeat_nothing() {
    let (cluster, servers) = cluster(&[("numbers", 2)]);
    write(&servers, "numbers", 0..10);
    let from = servers.clone();
    let (_env, job, received) = follow(move || numbers(&from, "numbers").broker_timeout(HOUR));
    received.wait_for(10);
    cluster.broker_down(EVERY_BROKER).unwrap();
    cluster.broker_up(EVERY_BROKER).unwrap();
    write(&servers, "numbers", 10..20);
    received.wait_for(20);
    job.drain();
    job.wait().unwrap();
    let mut all = received.take();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..20));
}

#[test]
fn a_commit_that_fails_fails_the_job() {
    let (cluster, servers) = cluster(&[("numbers", 1)]);
    write(&servers, "numbers", [1]);
    let from = servers.clone();
    let (_env, job, received) = follow(move || numbers(&from, "numbers").connect_timeout(2000 * MS));
    received.wait_for(1);
    cluster
        .request_errors(RDKafkaApiKey::OffsetCommit, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED]);
    job.drain();
    let cause = cause(&job);
    let KafkaError::Commit { group, why } = kafka_error(&cause) else { panic!("{}", cause.message) };
    assert_eq!(group, "group");
    assert!(why.contains("Group authorization failed"), "{why}");
}

#[test]
fn records_that_brokers_refuse_fail_the_job_with_topic_and_cause() {
    leak_free(|| {
        let (cluster, servers) = cluster(&[("numbers", 1)]);
        cluster
            .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 8]);
        let env = Environment::local("write");
        env.from_iter(0..10_u32).sink_to(move |_| KafkaSink::json(&*servers, "numbers"));
        let cause = failure(&env);
        let KafkaError::Delivery { topic, unacknowledged, why } = kafka_error(&cause) else {
            panic!("{}", cause.message)
        };
        assert_eq!((&**topic, *unacknowledged), ("numbers", 10));
        assert!(why.contains("Topic authorization failed"), "{why}");
    });
}

#[test]
fn errors_that_pass_are_retried_and_repeat_nothing() {
    let (cluster, servers) = cluster(&[("numbers", 1)]);
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT],
    );
    write(&servers, "numbers", 0..500);
    assert!(read(move || numbers(&servers, "numbers"), 1).into_iter().eq(0..500));
}

/// A job that writes a number once it is told to. The sink is open when this returns.
fn held_back(servers: String, timeout: Duration) -> (Environment, JobHandle, mpsc::Sender<()>) {
    let ((opened, wait), (go, gate)) = (mpsc::channel(), mpsc::channel());
    let gate = Arc::new(Mutex::new(gate));
    let env = Environment::local("write");
    env.from_iter([1_u32])
        .inspect(move |_| {
            opened.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
        })
        .sink_to(move |_| KafkaSink::json(&*servers, "numbers").delivery_timeout(timeout));
    let job = env.submit().unwrap();
    wait.recv().unwrap();
    (env, job, go)
}

#[test]
fn records_not_acknowledged_in_time_fail_the_job() {
    leak_free(|| {
        let (cluster, servers) = cluster(&[("numbers", 1)]);
        let (_env, job, go) = held_back(servers, 300 * MS);
        cluster.broker_down(EVERY_BROKER).unwrap();
        go.send(()).unwrap();
        let cause = cause(&job);
        let KafkaError::Delivery { topic, unacknowledged, why } = kafka_error(&cause) else {
            panic!("{}", cause.message)
        };
        assert_eq!((&**topic, *unacknowledged), ("numbers", 1));
        assert!(why.contains("timed out"), "{why}");
    });
}

#[test]
fn records_written_while_brokers_are_away_arrive_when_they_are_back() {
    let (cluster, servers) = cluster(&[("numbers", 1)]);
    let (_env, job, go) = held_back(servers.clone(), HOUR);
    cluster.broker_down(EVERY_BROKER).unwrap();
    go.send(()).unwrap();
    cluster.broker_up(EVERY_BROKER).unwrap();
    job.wait().unwrap();
    assert_eq!(read(move || numbers(&servers, "numbers"), 1), [1]);
}

#[test]
fn a_full_queue_holds_the_pipeline_back() {
    let (_cluster, servers) = cluster(&[("numbers", 2)]);
    let into = servers.clone();
    let env = Environment::local("write");
    env.from_iter(0..3000_u32)
        .sink_to(move |_| KafkaSink::json(&*into, "numbers").queue_records(20).setting("linger.ms", "0"))
        .parallelism(2);
    env.run().unwrap();
    assert!(read(move || numbers(&servers, "numbers"), 1).into_iter().eq(0..3000));
}

#[test]
fn records_that_cannot_be_written_say_why() {
    let (_cluster, servers) = cluster(&[("numbers", 1)]);
    let into = servers.clone();
    let env = Environment::local("large");
    env.from_iter([vec![0; 2_000_000]]).sink_to(move |_| KafkaSink::bytes(&*into, "numbers"));
    let cause = failure(&env);
    let KafkaError::Record { topic, source } = kafka_error(&cause) else { panic!("{}", cause.message) };
    assert_eq!(topic, "numbers");
    assert!(source.to_string().contains("too large"), "{source}");

    let env = Environment::local("refused");
    env.from_iter([1]).sink_to(move |_| KafkaSink::new(&*servers, "numbers", |_: &u32| Err::<Vec<u8>, _>("odd")));
    let cause = failure(&env);
    let KafkaError::Record { source, .. } = kafka_error(&cause) else { panic!("{}", cause.message) };
    assert_eq!(source.to_string(), "odd");
}

#[test]
fn settings_are_checked_and_their_values_never_told() {
    let source = |key: &'static str, value: &'static str| {
        let env = Environment::local("settings");
        env.from_source(move |_| numbers(NOBODY, "numbers").setting(key, value)).sink(|_| {});
        let cause = failure(&env);
        let KafkaError::Setting { key: told, why } = kafka_error(&cause) else { panic!("{}", cause.message) };
        assert_eq!(told, key);
        assert!(!format!("{cause:?}").contains("hunter2"));
        why.clone()
    };
    assert!(source("security.protocol", "hunter2").contains("has a value"));
    assert!(source("sasl.pasword", "hunter2").contains("unknown"));
    assert!(source("enable.auto.commit", "hunter2").contains("itself"));
    let secret = |source: KafkaSource<u32>| source.setting("sasl.password", "hunter2");
    assert!(!format!("{:?}", secret(numbers(NOBODY, "numbers"))).contains("hunter2"));
    let sink = KafkaSink::<u32>::json(NOBODY, "numbers").setting("sasl.password", "hunter2");
    assert!(!format!("{sink:?}").contains("hunter2"));
}

/// A sink that fails when it is to write out what it has, or to make it final.
struct FailsAtTheEnd {
    in_flush: bool,
}

impl Sink for FailsAtTheEnd {
    type In = u32;

    fn write(&mut self, _number: u32) -> Result<(), BoxError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        if self.in_flush { Err("the disk is full".into()) } else { Ok(()) }
    }

    fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
        Err("the name is taken".into())
    }
}

#[test]
fn nothing_is_committed_that_a_sink_in_the_same_chain_could_not_flush_or_finish() {
    let (_cluster, servers) = cluster(&[("numbers", 1)]);
    write(&servers, "numbers", 0..10);
    for in_flush in [true, false] {
        let from = servers.clone();
        let env = Environment::local("fails");
        env.from_source(move |_| numbers(&from, "numbers").until_end()).sink_to(move |_| FailsAtTheEnd { in_flush });
        failed(&env);
    }
    assert!(read(move || numbers(&servers, "numbers"), 1).into_iter().eq(0..10));
}

#[test]
fn offsets_can_be_committed_when_the_job_has_succeeded() {
    leak_free(|| {
        let (_cluster, servers) = cluster(&[("numbers", 3)]);
        write(&servers, "numbers", 0..10);
        let offsets = KafkaOffsets::new();
        offsets.commit().unwrap();
        let later = |fails: bool| {
            let (from, kept) = (servers.clone(), offsets.clone());
            let env = Environment::local("later");
            env.from_source(move |_| numbers(&from, "numbers").until_end().offsets_to(&kept))
                .parallelism(2)
                .rebalance(2)
                .try_map(move |number| if fails { Err("no") } else { Ok(number) })
                .sink(|_| {});
            env
        };
        failed(&later(true));
        let from = servers.clone();
        assert!(read(move || numbers(&from, "numbers").commit_offsets(false), 1).into_iter().eq(0..10));
        later(false).run().unwrap();
        offsets.commit().unwrap();
        assert_eq!(format!("{offsets:?}"), "{}");
        write(&servers, "numbers", 10..15);
        assert!(read(move || numbers(&servers, "numbers"), 1).into_iter().eq(10..15));
    });
}
