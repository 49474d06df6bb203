"""`SocketSource` reads messages from a socket; `HFDatasetBatch` reads a data set."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sage import JobFailed, LocalEnvironment, SubmitError
from sage.libs.foundation.io import SocketSource
from sage.libs.io_utils.batch import HFDatasetBatch


@contextmanager
def server(*talks: Callable[[socket.socket], object]) -> Iterator[int]:
    """Listens, and has each of these functions talk with one client, whose connection it then ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for talk in talks:
                with listener.accept()[0] as client:
                    client.settimeout(60)
                    talk(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(60)
        assert not thread.is_alive()


def read(config: dict[str, Any], most: int | None = None) -> list[str]:
    """What a source of this configuration gives."""
    env = LocalEnvironment("reads")
    stream = env.from_source(SocketSource, config)
    messages = (stream if most is None else stream.take(most)).collect()
    env.submit(autostop=True)
    return messages


def test_messages_end_at_a_delimiter_or_with_the_connection() -> None:
    def talk(client: socket.socket) -> None:
        for part in ("one\n\n t", "wo \r\nthr", "ee \N{EURO SIGN}\nlast"):
            client.sendall(part.encode())

    with server(talk) as port:
        got = read({"host": "127.0.0.1", "port": port, "protocol": "TCP", "reconnect": False, "buffer_size": 3})
    assert got == ["one", "two", "three \N{EURO SIGN}", "last"]
    with server(lambda client: client.sendall("a;;b;c;;é".encode("latin-1"))) as port:
        options = {"delimiter": ";;", "encoding": "latin-1", "buffer_size": 1}
        assert read({"port": port, "reconnect": False, **options}) == ["a", "b;c", "é"]


def test_it_connects_again_and_registers_each_time(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []

    def talk(client: socket.socket) -> None:
        lines = client.makefile("rb")
        told.append(json.loads(lines.readline()))
        client.sendall(f"hello {len(told)}\n".encode())
        if len(told) == 2:
            told.append(json.loads(lines.readline()))

    with server(talk, talk) as port:
        config = {"port": port, "reconnect_interval": 0.02, "load_balancing": True, "client_id": "me"}
        assert read(config, 2) == ["hello 1", "hello 2"]
    assert told == [{"action": action, "client_id": "me"} for action in ("register", "register", "deregister")]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with caplog.at_level(logging.WARNING):
        env = LocalEnvironment("waits")
        env.from_source(SocketSource, {"port": port, "reconnect_interval": 0.001}).collect()
        env.submit()
        while len(caplog.records) < 3:
            time.sleep(0.001)  # what is waited for is that it has tried three times
        env.stop()
    assert f"no connection to 127.0.0.1:{port}" in caplog.text and "the next attempt is in 0.001 s" in caplog.text


def test_without_reconnect_no_connection_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(JobFailed, match=f"no connection to 127.0.0.1:{port}.*refused") as failed:
        read({"port": port, "reconnect": False})
    assert isinstance(failed.value.__cause__, ConnectionError)


class Asked(SocketSource):
    """Counts how often it is asked, and tells when it is about to wait for what follows ``sent``."""

    asked = 0
    sent: bytes | None = None
    waits = threading.Event()

    def execute(self) -> Any:
        self.asked += 1
        type(self).asked = self.asked
        if self.is_connected and self._buffer == self.sent:
            self.waits.set()
        return super().execute()


@pytest.fixture
def no_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that looked after each moment whether its job goes on would look after an hour."""
    Asked.asked, Asked.sent = 0, None
    monkeypatch.setattr("sage._sockets._MOMENT", 3600.0)


@pytest.mark.usefixtures("no_moments")
@pytest.mark.parametrize("has_sent", [False, True])
@pytest.mark.parametrize("stop", ["drain", "cancel", "pause"])
def test_it_ends_with_its_job_while_the_other_side_is_silent(has_sent: bool, stop: str) -> None:
    over = threading.Event()
    Asked.sent, Asked.waits = b"no end" if has_sent else b"", threading.Event()

    def talk(client: socket.socket) -> None:
        client.sendall(Asked.sent or b"")
        over.wait(60)

    with server(talk) as port:
        env = LocalEnvironment("silent")
        got = env.from_source(Asked, port=port).collect()
        job = env.submit()
        assert Asked.waits.wait(60)
        if stop == "pause":
            job.pause()
            job.resume()
        begin = time.monotonic()
        if stop == "cancel":
            job.cancel()
            with pytest.raises(JobFailed, match="cancelled"):
                job.wait()
        else:
            env.stop()
        assert time.monotonic() - begin < 20
        over.set()
    # To connect, for each wait, and after each wait that was cut off.
    assert got == [] and Asked.asked <= 8


@pytest.mark.usefixtures("no_moments")
def test_it_takes_what_comes_as_it_comes_and_ends_when_nobody_wants_more() -> None:
    came, over = threading.Semaphore(0), threading.Event()

    def talk(client: socket.socket) -> None:
        for n in range(3):
            client.sendall(f"{n}\n".encode())
            # The next is sent when this one was seen, so each comes while the source waits or is about to.
            assert came.acquire(timeout=60)
        over.wait(60)

    def see(message: str) -> str:
        came.release()
        return message

    with server(talk) as port:
        env = LocalEnvironment("comes")
        got = env.from_source(Asked, port=port).take(3).map(see).collect()
        env.submit(autostop=True)
        over.set()
    assert got == ["0", "1", "2"] and Asked.asked <= 12


@pytest.mark.usefixtures("no_moments")
def test_it_ends_with_its_job_while_it_waits_to_connect_again(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    warned = threading.Event()
    handler = logging.Handler()
    handler.emit = lambda record: warned.set()  # type: ignore[method-assign]
    env = LocalEnvironment("again")
    env.logger.addHandler(handler)
    try:
        env.from_source(SocketSource, port=port, reconnect_interval=3600.0).collect()
        env.submit()
        assert warned.wait(60)
        env.stop()
    finally:
        env.logger.removeHandler(handler)


def test_outside_of_a_job_it_waits_for_a_moment_only() -> None:
    over = threading.Event()
    with server(lambda client: (client.sendall(b"one\n"), over.wait(60))) as port:
        source = SocketSource(port=port)
        got = next(message for message in (source.execute() for _ in range(1000)) if message is not None)
        source.close()
        over.set()
    assert got == "one"


def test_datagrams_are_received() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    env = LocalEnvironment("datagrams")
    got = env.from_source(SocketSource, {"port": address[1], "protocol": "udp"}).take(3).collect()
    env.submit()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while env.is_running:
            sender.sendto(b"one\ntwo", address)  # it may not be there yet
            env.wait(0.01)
    env.wait()
    assert got[:2] == ["one", "two"] and len(got) == 3


def test_what_cannot_be_read_is_an_error() -> None:
    for sent, options, said in [
        (b"\xff\n", {}, "is not text in utf-8.*errors='replace'"),
        (b"long" * 10, {"max_message_bytes": 30}, "longer than 30 bytes"),
    ]:
        with server(lambda client, sent=sent: client.sendall(sent)) as port:  # type: ignore[misc]
            with pytest.raises(JobFailed, match=said):
                read({"port": port, "reconnect": False, **options})
    with server(lambda client: client.sendall(b"\xffx\n")) as port:
        assert read({"port": port, "reconnect": False, "errors": "replace"}) == ["\N{REPLACEMENT CHARACTER}x"]
    for option, said in [
        ({"port": 0}, "`port` is"),
        ({"protocol": "http"}, "`protocol` is"),
        ({"delimiter": ""}, "`delimiter` ends"),
        ({"encoding": "latin-99"}, "latin-99"),
        ({"delimeter": ","}, "did you mean `delimiter`"),
        ({"timeout": 0}, "`timeout` is more than 0"),
    ]:
        with pytest.raises((JobFailed, SubmitError), match=said):
            read(option)


STAND_IN = """
def load_dataset(name, config=None, *, split, streaming):
    assert streaming and name == "org/questions"
    yield {"question": f"{config} {split}", "golden_answers": ["yes"], "id": 1}
    yield {"question": "what"}
    yield {"golden_answers": None}
"""


def test_a_data_set_gives_questions_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'sage-dataflow\[datasets\]'"):
        HFDatasetBatch({"hf_dataset_name": "org/questions"})
    monkeypatch.delitem(sys.modules, "datasets")
    (tmp_path / "datasets.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    config = {"hf_dataset_name": "org/questions", "hf_dataset_config": "small", "hf_split": "test"}
    env = LocalEnvironment("data set")
    records = env.from_batch(HFDatasetBatch, config).collect()
    first = env.from_batch(HFDatasetBatch, {"hf_dataset_name": "org/questions", "max_samples": 1}).collect()
    env.submit(autostop=True)
    monkeypatch.delitem(sys.modules, "datasets")
    expected = [("small test", ["yes"]), ("what", []), ("", [])]
    assert records == [{"query": query, "references": references} for query, references in expected]
    assert first == [{"query": "None train", "references": ["yes"]}]
    with pytest.raises(ValueError, match=r"hf_dataset_name`, which has \['name', 'token'\]") as failed:
        HFDatasetBatch({"name": "org/questions", "token": "s3cret"})
    assert "s3cret" not in str(failed.value)
