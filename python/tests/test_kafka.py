"""Kafka topics, over brokers in this process."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sage import DeadLetter, JobFailed, Letter, LocalEnvironment, SinkFunction, ops
from sage._plan import plan
from sage.core.api.function.kafka_source import KafkaSourceFunction
from sage.testing import KafkaCluster

#: Nobody listens here.
NOBODY = "127.0.0.1:1"


@pytest.fixture
def cluster() -> Iterator[KafkaCluster]:
    with KafkaCluster() as made:
        yield made


def write(cluster: KafkaCluster, topic: str, records: Any, **options: Any) -> None:
    env = LocalEnvironment("write")
    env.from_batch(records).to_kafka(cluster.bootstrap_servers, topic, **options)
    env.submit(autostop=True)


def read(cluster: KafkaCluster, topic: Any, group: str = "group", **options: Any) -> list[Any]:
    env = LocalEnvironment("read")
    options = {"auto_offset_reset": "earliest", "until_end": True, "metadata": False, **options}
    records = env.from_kafka_source(cluster.bootstrap_servers, topic, group, **options).collect()
    env.submit(autostop=True)
    return records


def test_what_is_written_is_read_once_and_in_order(cluster: KafkaCluster) -> None:
    cluster.create_topic("events")
    events = [{"n": n, "text": "grün"} for n in range(5000)]
    write(cluster, "events", events)
    assert read(cluster, "events", connect_timeout=30) == events


def test_the_source_class_is_the_same_source(cluster: KafkaCluster) -> None:
    cluster.create_topic("numbers", partitions=2)
    write(cluster, "numbers", range(100))
    options: dict[str, Any] = {"auto_offset_reset": "earliest", "until_end": True, "metadata": False}
    servers = cluster.bootstrap_servers
    env = LocalEnvironment("read")
    stream = env.from_source(
        KafkaSourceFunction, bootstrap_servers=servers, topic="numbers", group_id="group", parallelism=2, **options
    )
    records = stream.collect()
    env.from_source(KafkaSourceFunction, servers, "numbers", "named", name="in", **options).collect()
    env.submit(autostop=True)
    assert sorted(records) == list(range(100))
    assert env.pipeline[0].kind.name == "kafka" and env.pipeline[0].parallelism == 2
    assert "in" in [step.name for step in env.pipeline]
    # Committed for that group, by either way.
    assert read(cluster, "numbers") == []


def test_what_the_source_class_cannot_do_says_so() -> None:
    env = LocalEnvironment("arguments")
    with pytest.raises(TypeError, match="group_id"):
        env.from_source(KafkaSourceFunction, NOBODY, "t")
    with pytest.raises(ValueError, match="`group_id` is a text that is not empty"):
        env.from_source(KafkaSourceFunction, bootstrap_servers=NOBODY, topic="t", group_id="")
    assert env.pipeline == []
    with pytest.raises(TypeError, match="pass `KafkaSourceFunction` to `from_source`"):
        KafkaSourceFunction(NOBODY, "t", "g")
    with pytest.raises(TypeError, match="`Mine` cannot be a subclass of `KafkaSourceFunction`"):
        type("Mine", (KafkaSourceFunction,), {})


def test_a_group_goes_on_where_its_last_run_ended_well(cluster: KafkaCluster) -> None:
    cluster.create_topic("numbers")
    write(cluster, "numbers", range(10))
    assert read(cluster, "numbers", enable_auto_commit=False) == list(range(10))
    assert read(cluster, "numbers") == list(range(10))
    assert read(cluster, "numbers") == []
    write(cluster, "numbers", range(10, 15))
    assert read(cluster, "numbers") == list(range(10, 15))
    assert read(cluster, "numbers", "another") == list(range(15))


def test_a_run_that_fails_after_the_source_has_ended_is_read_again(cluster: KafkaCluster) -> None:
    cluster.create_topic("numbers")
    write(cluster, "numbers", range(1000))

    class FailsAtTheEnd(SinkFunction):
        def execute(self, n: int) -> None:
            pass

        def close(self) -> None:
            # By now the source has ended, and ended well.
            raise ValueError("the disk is full")

    env = LocalEnvironment("fails")
    options: dict[str, Any] = {"until_end": True, "metadata": False}
    stream = env.from_kafka_source(cluster.bootstrap_servers, "numbers", "group", "earliest", **options)
    stream.sink(FailsAtTheEnd)
    with pytest.raises(JobFailed, match="the disk is full"):
        env.submit(autostop=True)
    assert read(cluster, "numbers") == list(range(1000))


def test_offsets_that_cannot_be_committed_fail_the_submit(cluster: KafkaCluster) -> None:
    cluster.create_topic("numbers")
    write(cluster, "numbers", [1])
    env = LocalEnvironment("uncommitted")
    stream = env.from_kafka_source(
        cluster.bootstrap_servers, "numbers", "group", "earliest", until_end=True, connect_timeout=0.5
    )
    # The record is there, so the source is past its own start; then the brokers go.
    stream.sink(lambda _: cluster.close())
    with pytest.raises(JobFailed, match="has succeeded, but cannot commit the offsets of the group `group`") as failed:
        env.submit(autostop=True)
    assert failed.value.report.outcome.lower() == "succeeded"


def test_an_endless_source_gives_records_as_they_come_and_ends_by_stop(cluster: KafkaCluster) -> None:
    cluster.create_topic("numbers")
    got: list[int] = []
    came = threading.Condition()

    def take(n: int) -> None:
        with came:
            got.append(n)
            came.notify_all()

    env = LocalEnvironment("endless")
    env.from_kafka_source(cluster.bootstrap_servers, "numbers", "group", "earliest", metadata=False).sink(take)
    env.submit()
    for n in range(3):
        write(cluster, "numbers", [n])
        with came:
            assert came.wait_for(lambda: len(got) == n + 1, 30)
    env.stop()
    assert got == [0, 1, 2]
    assert read(cluster, "numbers") == []


@pytest.mark.parametrize("on_signal", ["drain", "finish"])
def test_offsets_are_committed_when_a_signal_finishes_the_job(cluster: KafkaCluster, on_signal: str) -> None:
    cluster.create_topic("numbers")
    write(cluster, "numbers", range(100))
    env = LocalEnvironment("endless", config={"on_signal": on_signal})
    stream = env.from_kafka_source(cluster.bootstrap_servers, "numbers", "group", "earliest", metadata=False)
    stream.sink(lambda n: os.kill(os.getpid(), signal.SIGTERM) if n == 99 else None)
    if on_signal == "finish":
        assert env.submit(autostop=True).report.outcome == "succeeded"
    else:
        with pytest.raises(SystemExit, match="143"):
            env.submit(autostop=True)
    assert read(cluster, "numbers") == ([] if on_signal == "finish" else list(range(100)))


def test_where_a_group_without_offsets_begins(cluster: KafkaCluster) -> None:
    cluster.create_topic("numbers")
    write(cluster, "numbers", range(3))
    assert read(cluster, "numbers", "late", auto_offset_reset="latest") == []
    with pytest.raises(JobFailed, match="the group `none` has no offset"):
        read(cluster, "numbers", "none", auto_offset_reset="none")
    env = LocalEnvironment("words")
    with pytest.raises(ValueError, match='`auto_offset_reset` is "earliest", "latest" or "none", not \'smallest\''):
        env.from_kafka_source(cluster.bootstrap_servers, "numbers", "group", "smallest")


def test_brokers_that_are_not_there_fail_the_job_in_time() -> None:
    for write_ in (False, True):
        env = LocalEnvironment("nobody")
        if write_:
            env.from_batch([1]).to_kafka(NOBODY, "numbers", connect_timeout=0.3)
        else:
            env.from_kafka_source(NOBODY, "numbers", "group", connect_timeout=0.3).collect()
        began = time.monotonic()
        with pytest.raises(JobFailed, match=f"cannot connect to Kafka at {NOBODY} within 300ms"):
            env.submit(autostop=True)
        assert time.monotonic() - began < 10
    with KafkaCluster() as cluster, pytest.raises(JobFailed, match="cannot use the topic `nothing`"):
        read(cluster, "nothing", connect_timeout=1)


def test_a_value_that_is_no_json_fails_skips_or_goes_to_dead_letters(cluster: KafkaCluster) -> None:
    cluster.create_topic("texts")
    write(cluster, "texts", ["1", "{", "3"], value_serializer="string")
    with pytest.raises(JobFailed) as failed:
        read(cluster, "texts")
    assert isinstance(failed.value.__cause__, json.JSONDecodeError)
    assert read(cluster, "texts", "skip", on_error="skip") == [1, 3]
    letters: list[Letter] = []
    assert read(cluster, "texts", "letters", on_error=DeadLetter(letters.append)) == [1, 3]
    assert [letter.record for letter in letters] == [b"{"] and letters[0].operator == "kafka texts parse_json"

    def odd(value: bytes) -> int:
        if value == b"{":
            raise LookupError(value)
        return int(value)

    with pytest.raises(JobFailed) as failed:
        read(cluster, "texts", "own", value_deserializer=odd)
    assert isinstance(failed.value.__cause__, LookupError)
    letters.clear()
    assert read(cluster, "texts", "own", value_deserializer=odd, on_error=DeadLetter(letters.append)) == [1, 3]
    assert [letter.record for letter in letters] == [b"{"]


def test_what_a_record_is(cluster: KafkaCluster) -> None:
    cluster.create_topic("words")
    write(cluster, "words", ["grün", "rot"], key=lambda word: word[:1], value_serializer=str)
    assert read(cluster, "words", "b", value_deserializer="bytes") == ["grün".encode(), b"rot"]
    assert read(cluster, "words", "s", value_deserializer="string") == ["grün", "rot"]
    first, second = read(cluster, "words", "m", value_deserializer=bytes.decode, metadata=True)
    assert 1e12 < first.pop("timestamp") <= second["timestamp"]
    assert first == {"value": "grün", "topic": "words", "partition": 0, "offset": 0, "key": "g"}
    assert second["offset"] == 1 and second["key"] == "r"
    write(cluster, "words", [b"\xff"], key=lambda record: record, value_serializer="bytes")
    (last,) = read(cluster, "words", "m", value_deserializer=bytes, metadata=True)
    assert last["key"] == last["value"] == b"\xff"


def test_plain_json_is_read_without_the_interpreter(cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.create_topic("events")
    write(cluster, "events", [{"n": n} for n in range(10)])
    # What is called for anything but plain JSON.
    monkeypatch.setattr("sage._kafka._from_json", None)
    env = LocalEnvironment("native")
    options: dict[str, Any] = {"until_end": True, "metadata": False}
    stream = env.from_kafka_source(cluster.bootstrap_servers, "events", "group", "earliest", **options)
    numbers = stream.map(ops.field("n")).collect()
    env.submit(autostop=True)
    assert numbers == list(range(10))


def test_any_json_is_read_as_python_reads_it(cluster: KafkaCluster) -> None:
    cluster.create_topic("texts")
    texts = ['{"a": [1, 2.5, null, true, "ü"]}', '{"a": 123456789012345678901234567890}']
    texts += ['\ufeff{"a": "bom"}', '{"a": NaN}']
    write(cluster, "texts", [text.encode() for text in texts] + ['{"a": 16}'.encode("utf-16")], value_serializer=bytes)
    env = LocalEnvironment("json")
    options: dict[str, Any] = {"until_end": True, "metadata": False}
    stream = env.from_kafka_source(cluster.bootstrap_servers, "texts", "group", "earliest", **options)
    values = stream.map(ops.field("a")).collect()
    env.submit(autostop=True)
    assert values[:3] == [[1, 2.5, None, True, "ü"], 123456789012345678901234567890, "bom"]
    assert values[3] != values[3] and values[4] == 16


def test_keys_choose_partitions_and_order_holds_within_each(cluster: KafkaCluster) -> None:
    cluster.create_topic("pairs", partitions=5)
    pairs = [[n % 17, n] for n in range(4000)]
    write(cluster, "pairs", pairs, key=lambda pair: str(pair[0]))
    threads: dict[int, set[int]] = {}

    def pair_of(value: bytes) -> Any:
        pair = json.loads(value)
        threads.setdefault(pair[0], set()).add(threading.get_ident())
        return pair

    records = read(cluster, "pairs", "seen", value_deserializer=pair_of, metadata=True, parallelism=3)
    assert sorted(record["value"] for record in records) == sorted(pairs)
    places: dict[int, set[int]] = {}
    last: dict[int, int] = {}
    for record in records:
        key, n = record["value"]
        places.setdefault(key, set()).add(record["partition"])
        assert last.get(key, -1) < n
        last[key] = n
    assert all(len(partitions) == 1 for partitions in places.values())
    assert len(set.union(*places.values())) > 1
    # One replica of the deserializer has all records of a partition, else only luck would have kept their order.
    assert all(len(idents) == 1 for idents in threads.values()) and len(set.union(*threads.values())) > 1
    env = LocalEnvironment("count")
    stream = env.from_kafka_source(
        cluster.bootstrap_servers, "pairs", "count", "earliest", until_end=True, metadata=False, parallelism=2
    )
    counts = stream.keyby(lambda pair: pair[0]).count().collect()
    env.submit(autostop=True)
    expected = {key: sum(1 for pair in pairs if pair[0] == key) for key in range(17)}
    assert len(counts) == 17 and dict(counts) == expected


def test_several_topics_and_addresses(cluster: KafkaCluster) -> None:
    for topic in ("a", "b"):
        cluster.create_topic(topic, partitions=2)
        write(cluster, topic, [topic])
    env = LocalEnvironment("both")
    servers = [NOBODY, cluster.bootstrap_servers]
    got = env.from_kafka_source(servers, ["a", "b"], "group", "earliest", until_end=True, metadata=False).collect()
    env.submit(autostop=True)
    assert sorted(got) == ["a", "b"]


def test_settings_in_both_spellings_reach_the_client(cluster: KafkaCluster) -> None:
    cluster.create_topic("numbers")
    write(cluster, "numbers", [1], linger_ms=0, **{"compression.type": "gzip"})
    assert read(cluster, "numbers", fetch_max_wait_ms=50, isolation_level=None, **{"fetch.min.bytes": 1}) == [1]
    wrong = {"no_such_setting": "`no.such.setting` is unknown", "fetch_min_bytes": "`fetch.min.bytes` has a value"}
    for key, message in wrong.items():
        with pytest.raises(JobFailed, match=message):
            read(cluster, "numbers", **{key: "x"})
    with pytest.raises(JobFailed, match="`enable.auto.commit` is set by the source"):
        read(cluster, "numbers", **{"enable.auto.commit": "true"})
    env = LocalEnvironment("wrong")
    with pytest.raises(TypeError, match="`api_version` is a text or a number, not of the type tuple"):
        env.from_kafka_source(NOBODY, "numbers", "group", api_version=(2, 0))
    with pytest.raises(ValueError, match="`fetch.min.bytes` is given twice"):
        env.from_kafka_source(NOBODY, "numbers", "group", fetch_min_bytes=1, **{"fetch.min.bytes": 2})
    with pytest.raises(ValueError, match="has no TLS"):
        env.from_kafka_source(NOBODY, "numbers", "group", security_protocol="SASL_SSL")
    assert env.pipeline == []


def test_secrets_are_not_told(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    secret: dict[str, Any] = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
    secret.update(sasl_plain_username="user", sasl_plain_password="hunter2", connect_timeout=0.2)
    caplog.set_level(0)
    told = []
    for write_ in (False, True):
        env = LocalEnvironment("secret")
        if write_:
            env.from_batch([1]).to_kafka(NOBODY, "t", **secret)
        else:
            env.from_kafka_source(NOBODY, "t", "g", **secret).collect()
        told += [repr(env.pipeline), repr(plan(env._steps, env._context()))]
        with pytest.raises(JobFailed, match="cannot connect") as failed:
            env.submit(autostop=True)
        told += [str(failed.value), repr(failed.value.report.data), str(failed.value.report)]
    # A value that librdkafka refuses is the password here.
    with pytest.raises(JobFailed, match="`sasl.mechanism`|`security.protocol`|cannot make a Kafka client") as failed:
        env = LocalEnvironment("refused")
        refused = {**secret, "security_protocol": "hunter2"}
        env.from_kafka_source(NOBODY, "t", "g", **refused).collect()
        env.submit(autostop=True)
    told += [str(failed.value), repr(failed.value.report.data)]
    out, err = capfd.readouterr()
    assert "hunter2" not in "\n".join([*told, out, err, caplog.text])


def test_what_cannot_be_written_says_why(cluster: KafkaCluster) -> None:
    cluster.create_topic("numbers")
    for options, message in [
        ({"value_serializer": lambda n: n}, "the value of a record for Kafka is a str or bytes, not of the type int"),
        ({"key": lambda n: None}, "the key of a record for Kafka is a str or bytes, not of the type NoneType"),
    ]:
        with pytest.raises(JobFailed) as failed:
            write(cluster, "numbers", [1], **options)
        assert isinstance(failed.value.__cause__, TypeError) and str(failed.value.__cause__) == message
    write(cluster, "numbers", [{1}, 2], on_error="skip")
    assert read(cluster, "numbers") == [2]


@pytest.mark.parametrize(
    "arguments",
    [
        {"group_id": ""},
        {"topic": []},
        {"topic": 3},
        {"bootstrap_servers": ""},
        {"buffer_size": 0},
        {"max_poll_records": True},
        {"connect_timeout": 0},
        {"parallelism": 0},
        {"value_deserializer": "xml"},
        {"value_deserializer": 3},
        {"delay": 1.0},
    ],
)
def test_arguments_are_checked_at_once(arguments: dict[str, Any]) -> None:
    env = LocalEnvironment("arguments")
    with pytest.raises((ValueError, TypeError)):
        env.from_kafka_source(**{"bootstrap_servers": NOBODY, "topic": "t", "group_id": "g", **arguments})
    assert env.pipeline == []


def test_async_functions_are_no_serializers() -> None:
    async def later(value: Any) -> Any:
        return value

    env = LocalEnvironment("async")
    with pytest.raises(TypeError, match="a deserializer is"):
        env.from_kafka_source(NOBODY, "t", "g", value_deserializer=later)
    stream = env.from_batch([1])
    for options in ({"value_serializer": later}, {"key": later}, {"value_serializer": "xml"}):
        with pytest.raises(TypeError):
            stream.to_kafka(NOBODY, "t", **options)
    assert len(env.pipeline) == 1


def test_a_cluster_that_is_closed_or_asked_for_nonsense_says_so() -> None:
    cluster = KafkaCluster(brokers=2)
    assert len(cluster.bootstrap_servers.split(",")) == 2
    cluster.create_topic("t")
    with pytest.raises(ValueError, match="cannot make the topic `t`"):
        cluster.create_topic("t")
    with pytest.raises(ValueError):
        cluster.create_topic("none", partitions=0)
    cluster.close()
    cluster.close()
    with pytest.raises(RuntimeError, match="closed"):
        cluster.create_topic("u")
    with pytest.raises(ValueError):
        KafkaCluster(brokers=0)
