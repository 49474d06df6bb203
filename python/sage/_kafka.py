"""Kafka topics: settings of the client, serializers and deserializers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from ._keywords import check_passed_on
from ._sage import Reset
from ._given import is_async, name_of
from .ops import Op

#: What kafka-python has another name for than librdkafka; every other name differs in its dots only.
_OTHER_NAMES = {
    "fetch_max_wait_ms": "fetch.wait.max.ms",
    "max_request_size": "message.max.bytes",
    "receive_buffer_bytes": "socket.receive.buffer.bytes",
    "request_timeout_ms": "socket.timeout.ms",
    "sasl_plain_password": "sasl.password",
    "sasl_plain_username": "sasl.username",
    "send_buffer_bytes": "socket.send.buffer.bytes",
}

#: Where a group begins that has no offset. Java's client and kafka-python say `none`, librdkafka `error`.
_RESETS = {"earliest": Reset.Earliest, "latest": Reset.Latest, "none": Reset.Error, "error": Reset.Error}


class Settings(dict[str, str]):
    """Settings of a client, by the names that librdkafka has for them. Values may be secret, and are not shown."""

    def __repr__(self) -> str:
        return f"Settings({', '.join(self)})"


def settings_of(method: Callable[..., Any], config: dict[str, Any]) -> Settings:
    """The settings of a client, from those that a program gave a method."""
    check_passed_on(method, config)
    made = Settings()
    for key, value in config.items():
        name = _OTHER_NAMES.get(key) or key.replace("_", ".")
        if value is None:
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, (str, int, float)):
            raise TypeError(f"the Kafka setting `{key}` is a text or a number, not of the type {type(value).__name__}")
        if name in made:
            raise ValueError(f"the Kafka setting `{name}` is given twice")
        made[name] = str(value)
    if made.get("security.protocol", "").upper() in ("SSL", "SASL_SSL"):
        raise ValueError("the Kafka client of this package has no TLS; its protocols are PLAINTEXT and SASL_PLAINTEXT")
    return made


def reset_of(auto_offset_reset: Any) -> Reset:
    """Where a group begins that has no offset, checked."""
    if auto_offset_reset not in _RESETS:
        raise ValueError(f'`auto_offset_reset` is "earliest", "latest" or "none", not {auto_offset_reset!r}')
    return _RESETS[auto_offset_reset]


def servers_of(servers: Any) -> str:
    return ",".join(names("bootstrap_servers", servers))


def names(what: str, names: Any) -> list[str]:
    all_names = [names] if isinstance(names, str) else list(names) if isinstance(names, Iterable) else []
    if not all_names or not all(isinstance(name, str) and name for name in all_names):
        raise ValueError(f"`{what}` is a text that is not empty, or a list of them, not {names!r}")
    return all_names


def _from_json(value: bytes | None) -> Any:
    return None if value is None else json.loads(value)


def deserializer(chosen: Any, metadata: bool) -> Any:
    """The function of the step behind a source; ``None`` where records stay as they are."""
    if chosen in ("bytes", bytes):
        return None
    if chosen in (None, "json"):
        if not metadata:
            return Op("parse_json", _from_json)
        chosen = json.loads
    elif chosen == "string":
        chosen = bytes.decode
    elif not callable(chosen) or is_async(chosen):
        raise TypeError(f'a deserializer is "json", "string", "bytes" or a function of bytes, not {chosen!r}')

    def deserialize(value: bytes | None) -> Any:
        return None if value is None else chosen(value)

    def deserialize_value(record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "value": deserialize(record["value"])}

    made = deserialize_value if metadata else deserialize
    made.__name__ = name_of(chosen)
    return made


def _to_json(record: Any) -> str:
    return json.dumps(record, ensure_ascii=False)


def serializer(chosen: Any, key: Callable[[Any], Any] | None) -> Callable[[Any], tuple[bytes | None, bytes]]:
    """The function of the step before a sink: the key and the value of a record, as bytes."""
    named: dict[Any, Callable[[Any], Any]] = {None: _to_json, "json": _to_json, "string": str, "bytes": bytes}
    value_of = chosen if callable(chosen) else named.get(chosen) if isinstance(chosen, (str, type(None))) else None
    if value_of is None or is_async(value_of):
        raise TypeError(f'a serializer is "json", "string", "bytes" or a function of a record, not {chosen!r}')
    if key is not None and (not callable(key) or is_async(key)):
        raise TypeError(f"`key` is a function of a record, not {key!r}")

    def serialize(record: Any) -> tuple[bytes | None, bytes]:
        return (None if key is None else _bytes("key", key(record))), _bytes("value", value_of(record))

    serialize.__name__ = name_of(value_of).strip("_")
    return serialize


def _bytes(what: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"the {what} of a record for Kafka is a str or bytes, not of the type {type(value).__name__}")
