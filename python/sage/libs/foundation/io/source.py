"""The sources of files, sockets and Kafka topics, as SAGE programs import them."""

from sage._functions import KafkaSourceFunction as KafkaSource
from sage._io import FileSource
from sage._sockets import SocketSource

__all__ = ["FileSource", "KafkaSource", "SocketSource"]
