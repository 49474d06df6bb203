"""How a job manager is found and asked, and what becomes of answers that are none: one is played here."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage._daemon import Broken, Daemon, Happened, Late, NoJobManager, Refused
from sage._jobmanager_client import JobManagerClient

TOKEN = "0123456789abcdef" * 4


class Played:
    """Listens at a socket, and answers each connection with the same bytes."""

    def __init__(self, family: int, at: Any, answer: bytes) -> None:
        self._listens = socket.socket(family)
        self._listens.bind(at)
        self._listens.listen()
        self.at = self._listens.getsockname()
        self.answer = answer
        #: What was asked.
        self.asked: list[str] = []
        #: Whether it hangs up when it has answered.
        self.hangs_up = True
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listens.accept()
            except OSError:
                return
            self._open.append(link)
            self.asked.append(_asked(link))
            link.sendall(self.answer)
            if self.hangs_up:
                link.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listens.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for link in (self._listens, *self._open):
            link.close()


def _asked(link: socket.socket) -> str:
    said = b""
    while b"\r\n\r\n" not in said:
        said += link.recv(4096)
    head, _, body = said.partition(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    left = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
    while left > 0:
        body += (more := link.recv(4096))
        left -= len(more)
    return (head + b"\r\n\r\n" + body).decode()


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*pieces: bytes) -> bytes:
    sent = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + sent


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user, whose job manager has the port 4; its path is longer than the address of a socket."""
    folder = tmp_path / ("x" * 120) / "jobmanager" / "4"
    folder.mkdir(parents=True)
    (folder / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / ("x" * 120)))
    monkeypatch.delenv("SAGE_TOKEN", raising=False)
    return folder


@pytest.fixture
def play(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Played]]:
    made: list[Played] = []

    def begin(answer: bytes) -> Played:
        with monkeypatch.context() as there:
            there.chdir(home)  # for a short address
            made.append(Played(socket.AF_UNIX, "socket", answer))
        return made[-1]

    yield begin
    for played in made:
        played.close()


def test_a_request_goes_over_the_socket_in_the_folder_with_the_token(play: Callable[[bytes], Played]) -> None:
    played = play(http(b'{"state": "running"}'))
    assert Daemon("localhost", 4).ask("POST", "/jobs", {"name": "é"}) == {"state": "running"}
    (asked,) = played.asked
    assert asked.startswith("POST /api/v1/jobs HTTP/1.1\r\n") and f"\r\nAuthorization: Bearer {TOKEN}\r\n" in asked
    assert "\r\nHost: localhost\r\n" in asked and json.loads(asked.partition("\r\n\r\n")[2]) == {"name": "é"}


def test_a_job_may_be_called_anything(play: Callable[[bytes], Played]) -> None:
    played = play(http(b""))
    assert Daemon("127.0.0.1", 4).of("../a b?c", "drain", "POST") is None
    assert played.asked[0].startswith("POST /api/v1/jobs/..%2Fa%20b%3Fc/drain HTTP/1.1\r\n")


def test_without_a_job_manager_it_is_said_how_to_start_one(home: Path, tmp_path: Path) -> None:
    with pytest.raises(NoJobManager, match=r"no job manager runs at port 5: start one with `sage jobmanager start --p"):
        Daemon("127.0.0.1", 5).ask("GET", "/health")
    with pytest.raises(NoJobManager, match=r"no job manager runs at port 4: start one"):  # there was one
        Daemon("127.0.0.1", 4).ask("GET", "/health")
    (home / "socket").touch()
    with pytest.raises(NoJobManager, match=r"port 4: start one"):
        Daemon("127.0.0.1", 4).ask("GET", "/health")


def test_the_token_goes_over_tcp_only_where_it_was_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(socket.AF_INET, ("127.0.0.1", 0), http(b"1"))
    try:
        with pytest.raises(NoJobManager, match="the token of .* is not known: set SAGE_TOKEN"):
            Daemon("127.0.0.2", played.at[1]).ask("GET", "/health")
        with pytest.raises(NoJobManager, match="no job manager runs"):
            Daemon("127.0.0.1", played.at[1]).ask("GET", "/health")
        assert played.asked == []
        monkeypatch.setenv("SAGE_TOKEN", "said")
        assert Daemon("127.0.0.1", played.at[1]).ask("GET", "/health") == 1
        assert "Authorization: Bearer said" in played.asked[0]
    finally:
        played.close()
    with pytest.raises(NoJobManager):
        Daemon("127.0.0.1", played.at[1]).ask("GET", "/health")


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (http(b'{"error": "no job a", "code": "not_found"}', "404 Not Found"), Refused, "^no job a$"),
        (http(b'{"error": "no", "code": "x"}', "401 No"), Refused, "does not take the token: no"),
        (http(b"<html>", "502 Bad Gateway"), Refused, "answered with status 502"),
        (http(b"<html>"), Broken, "an answer that is no JSON"),
        (http(b"1" * 10)[:-3], Broken, "broke: IncompleteRead"),
        (b"hello\r\n\r\n", Broken, "broke: BadStatusLine"),
        (b"", Broken, "broke: RemoteDisconnected"),
        (chunked(b"1")[:-4], Broken, "broke"),
    ],
    ids=["not found", "token", "no daemon", "no JSON", "cut off", "no HTTP", "nothing", "cut off piece"],
)
def test_what_is_no_answer_is_said(
    play: Callable[[bytes], Played], answer: bytes, error: type[Exception], why: str
) -> None:
    play(answer)
    with pytest.raises(error, match=why):
        Daemon("127.0.0.1", 4).ask("GET", "/jobs/a")
    told = JobManagerClient(port=4).list_jobs()
    code = {Broken: "ERR_COMMUNICATION_FAILED"}.get(error)
    assert told["status"] == "error" and (code is None or told["error_code"] == code) and told["request_id"]


def test_an_answer_that_does_not_come_is_late(play: Callable[[bytes], Played]) -> None:
    play(b"").hangs_up = False
    with pytest.raises(Late, match="did not answer within 0.05 s"):
        Daemon("127.0.0.1", 4, 0.05).ask("GET", "/health")
    assert JobManagerClient(port=4, timeout=0.05).health_check()["error_code"] == "ERR_NO_RESPONSE"


STREAM = (
    b": here\n\n",
    b"event: record\ndata: {\"state\":\n",
    b"data: \"running\"}\n\nid: 3\nevent: out",
    b"put\r\ndata:{\"output\": 5}\r\n\r\n",
    b"event: over\ndata: 1\n\n",
    b"event: over\ndata: 2",
)


def test_events_come_whole_however_they_are_cut(play: Callable[[bytes], Played]) -> None:
    played = play(chunked(*STREAM) + b"0\r\n\r\n")
    told = [Happened("record", {"state": "running"}), Happened("output", {"output": 5}), Happened("over", 1)]
    assert list(Daemon("127.0.0.1", 4).stream("a")) == told
    played.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"".join(STREAM)
    assert list(Daemon("127.0.0.1", 4).stream("a")) == told


@pytest.mark.parametrize(
    ("piece", "error", "why"),
    [
        (b"event: error\ndata: {\"error\": \"why\"}\n\n", Refused, "ended a stream: why"),
        (b"data: {\n\n", Broken, "no JSON"),
    ],
)
def test_an_event_that_is_none_is_said(
    play: Callable[[bytes], Played], piece: bytes, error: type[Exception], why: str
) -> None:
    play(chunked(piece))
    with pytest.raises(error, match=why):
        list(Daemon("127.0.0.1", 4).stream("a"))


def test_a_stream_is_waited_for_until_its_moment(play: Callable[[bytes], Played]) -> None:
    play(chunked(b"event: record\ndata: 1\n\n")).hangs_up = False
    told = []
    with pytest.raises(TimeoutError):
        for happened in Daemon("127.0.0.1", 4).stream("a", time.monotonic() + 0.05):
            told.append(happened)
    assert told == [Happened("record", 1)]


def test_output_comes_with_where_it_is(play: Callable[[bytes], Played]) -> None:
    played = play(http(b"abc", "200 OK", "x-sage-from: 2", "x-sage-next: 5", "x-sage-length: 9"))
    assert Daemon("127.0.0.1", 4).output("a", 2) == (2, 5, 9, b"abc")
    assert "GET /api/v1/jobs/a/output?from=2&limit=1048576 " in played.asked[0]
    played.answer = http(b"abc")
    with pytest.raises(Broken, match="which piece"):
        Daemon("127.0.0.1", 4).output("a", 2)


@pytest.mark.parametrize("wrong", [{"port": 0}, {"port": 65536}, {"timeout": 0}, {"port": "x"}])
def test_what_a_client_cannot_be_made_with(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        JobManagerClient(**wrong)


@pytest.mark.parametrize("data", [b"", None, "text"])
def test_data_that_is_none_is_refused(data: Any) -> None:
    with pytest.raises(ValueError):
        JobManagerClient().submit_job(data)


@pytest.mark.parametrize("job", ["", None])
def test_a_job_without_an_id_is_refused(job: Any) -> None:
    client = JobManagerClient()
    for ask in (client.get_job_status, client.pause_job, client.continue_job, client.delete_job):
        with pytest.raises(ValueError, match="a job is given by its uuid"):
            ask(job)


def test_no_job_manager_is_an_answer_that_says_what_to_do(home: Path) -> None:
    os.unlink(home / "token")
    told = JobManagerClient(port=4).health_check()
    assert told["status"] == "error" and told["error_code"] == "ERR_JOBMANAGER_CONNECTION_FAILED"
    assert told["details"] == {
        "host": "127.0.0.1", "port": 4,
        "suggestions": ["sage jobmanager start --port 4", "sage jobmanager status --port 4"],
    }
    assert "sage jobmanager start --port 4" in told["message"]
