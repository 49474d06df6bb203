"""Tools for tests of pipelines."""

from __future__ import annotations

from . import _sage
from ._keywords import spelt

__all__ = ["KafkaCluster"]


@spelt
class KafkaCluster:
    """Kafka brokers in this process, for tests of pipelines that read and write topics. No Kafka needs to be installed.

    This is the mock cluster of librdkafka, the client that the package uses. It listens on 127.0.0.1 and speaks Kafka's
    protocol, so other clients can use it too. It keeps records in memory: the latest 5 MiB, or 100,000 batches, of each
    partition. Committed offsets are kept as long. It checks no credentials. ``create_topic`` makes a topic; writing to
    a topic that does not exist makes it with four partitions. Use it only in tests.

    >>> from sage import LocalEnvironment
    >>> with KafkaCluster() as cluster:
    ...     cluster.create_topic("numbers")
    ...     env = LocalEnvironment("write")
    ...     _ = env.from_batch([1, 2, 3]).to_kafka(cluster.bootstrap_servers, "numbers")
    ...     job = env.submit(autostop=True)
    ...     env = LocalEnvironment("read")
    ...     servers, options = cluster.bootstrap_servers, {"until_end": True, "metadata": False}
    ...     numbers = env.from_kafka_source(servers, "numbers", "group", "earliest", **options)
    ...     got = numbers.collect()
    ...     job = env.submit(autostop=True)
    >>> got
    [1, 2, 3]
    """

    def __init__(self, brokers: int = 1) -> None:
        if not isinstance(brokers, int) or brokers < 1:
            raise ValueError(f"a cluster has at least one broker, not {brokers!r}")
        self._cluster = _sage.KafkaCluster(brokers)

    def __enter__(self) -> KafkaCluster:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def bootstrap_servers(self) -> str:
        """The addresses of the brokers, with commas between them.

        >>> with KafkaCluster() as cluster:
        ...     print(cluster.bootstrap_servers.partition(":")[0])
        127.0.0.1
        """
        return self._cluster.bootstrap_servers

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Makes a topic. Raises ``ValueError`` if the topic exists already.

        >>> with KafkaCluster() as cluster:
        ...     cluster.create_topic("orders", partitions=3)
        """
        if not isinstance(partitions, int) or partitions < 1:
            raise ValueError(f"a topic has at least one partition, not {partitions!r}")
        self._cluster.create_topic(name, partitions)

    def close(self) -> None:
        """Ends the brokers, and waits until they are gone. Does nothing a second time.

        >>> cluster = KafkaCluster()
        >>> cluster.close()
        """
        self._cluster.close()
