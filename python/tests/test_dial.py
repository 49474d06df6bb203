"""The handshake of a worker that dials back to its job."""

from __future__ import annotations

import hmac
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from sage._dial import Listener, dial, secret


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener("127.0.0.1")
    yield made
    made.close()


def later(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


def test_a_worker_with_the_secret_is_let_in_though_strangers_knock(listener: Listener) -> None:
    host, port, key = listener.address
    silent = socket.create_connection((host, port))
    garbage = socket.create_connection((host, port))
    garbage.sendall(b"GET / HTTP/1.1\r\n" + bytes(100))
    short = socket.create_connection((host, port))
    short.sendall(b"x")
    short.close()
    dialled: list[socket.socket] = []
    worker = threading.Thread(target=lambda: dialled.append(dial(host, port, key)))
    worker.start()
    connection = listener.accepted([], later())
    worker.join()
    listener.close()
    assert connection is not None
    dialled[0].sendall(b"hello")
    assert connection.recv(5) == b"hello"
    # The nonce, and then the end.
    assert len(garbage.recv(1000)) == 32 and _is_closed(garbage)
    assert len(silent.recv(1000)) == 32 and _is_closed(silent)
    for each in (silent, garbage, connection, *dialled):
        each.close()


def test_a_worker_that_is_half_way_is_waited_for_by_the_next_call(listener: Listener) -> None:
    """The thread that waits looks now and then whether the worker can still come."""
    host, port, key = listener.address
    wakes, wake = os.pipe()
    worker = socket.create_connection((host, port))
    os.write(wake, b"x")
    received = b""
    while not received:
        assert listener.accepted([wakes], later()) is None
        with suppress(BlockingIOError):
            received = worker.recv(32, socket.MSG_DONTWAIT)
    ours = bytes(32)
    worker.sendall(ours + hmac.digest(key, b"worker" + received + ours, "sha256"))
    connection = listener.accepted([], later())
    assert connection is not None and len(worker.recv(32)) == 32
    for each in (worker, connection):
        each.close()
    for descriptor in (wakes, wake):
        os.close(descriptor)


def test_only_so_many_strangers_wait(listener: Listener) -> None:
    host, port, key = listener.address
    strangers = [socket.create_connection((host, port)) for _ in range(64)]
    assert listener.accepted([], later(0.0)) is None
    dialled: list[socket.socket] = []
    accepted: list[socket.socket | None] = []
    listens = threading.Thread(target=lambda: accepted.append(listener.accepted([], later())))
    listens.start()
    for stranger in strangers:
        assert len(stranger.recv(32)) == 32
    beyond = socket.create_connection((host, port))
    assert _is_closed(beyond)
    strangers.pop().close()
    while not dialled:
        with suppress(ConnectionError):  # the place of the one that has gone is not free yet
            dialled.append(dial(host, port, key))
    listens.join()
    assert accepted[0] is not None
    for each in (beyond, accepted[0], *dialled, *strangers):
        each.close()


def _is_closed(stranger: socket.socket) -> bool:
    try:
        return stranger.recv(1000) == b""
    except ConnectionResetError:
        return True


def test_one_with_another_secret_is_not(listener: Listener) -> None:
    host, port, _ = listener.address
    refused: list[BaseException] = []

    def stranger() -> None:
        try:
            dial(host, port, secret())
        except ConnectionError as error:
            refused.append(error)
        os.write(told, b"x")

    over, told = os.pipe()
    thread = threading.Thread(target=stranger)
    thread.start()
    assert listener.accepted([over], later()) is None
    thread.join()
    assert len(refused) == 1
    os.close(over)
    os.close(told)


def test_a_worker_refuses_what_does_not_know_its_secret() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def pretend() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(bytes(32))
            assert len(connection.recv(64, socket.MSG_WAITALL)) == 64
            connection.sendall(bytes(32))

    thread = threading.Thread(target=pretend)
    thread.start()
    with pytest.raises(ConnectionError, match="is not this worker's job"):
        dial(*server.getsockname(), secret())
    thread.join()
    server.close()


def test_the_wait_ends_with_its_time_and_at_a_word(listener: Listener) -> None:
    assert listener.accepted([], later(0.01)) is None
    wakes, woken = os.pipe()
    os.write(woken, b"x")
    assert listener.accepted([wakes], later()) is None
    assert select.select([wakes], [], [], 0)[0] == [wakes], "it was not read"
    os.close(wakes)
    os.close(woken)
