"""One of the names SAGE programs import."""

from sage._functions import KafkaSourceFunction

__all__ = ["KafkaSourceFunction"]
