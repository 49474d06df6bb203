"""Sources and sinks of files, sockets and the terminal."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from . import run, there

_SOURCES = "sage.libs.io_utils.source sage.libs.foundation.io.source sage.libs.foundation.io"
_BATCHES = "sage.libs.io_utils.batch sage.libs.foundation.io.batch"
_SINKS = "sage.libs.io_utils.sink sage.libs.foundation.io.sink sage.libs.foundation.io"
_PRINTS = "sage.foundation sage.foundation.debug sage.common.components.debug sage.common.components.debug.print_sink"


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that is the current one, for the paths below it."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def _printed(sink: Any, record: Any, *args: Any) -> str:
    with redirect_stdout(StringIO()) as printed:
        run(lambda env: env.from_batch([record]).sink(sink, *args))
    return printed.getvalue()


@there("FileSource", "config", _SOURCES)
def file_source(FileSource: Any) -> None:
    with _folder() as folder:
        (folder / "a.txt").write_text(" one \ntwo")
        assert run(lambda env: env.from_source(FileSource, {"data_path": "a.txt"})) == ["one", "two"]
        assert run(lambda env: env.from_source(FileSource, config={"data_path": "a.txt"})) == ["one", "two"]


@there("SocketSource", "config=None, **options", _SOURCES)
def socket_source(SocketSource: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as client:
                client.sendall(b"one;two")

        thread = threading.Thread(target=serve)
        thread.start()
        config = {"host": "127.0.0.1", "port": server.getsockname()[1], "protocol": "tcp", "delimiter": ";"}
        assert run(lambda env: env.from_source(SocketSource, config, reconnect=False)) == ["one", "two"]
        thread.join()


@there("JSONLBatch", "config", _BATCHES)
def jsonl_batch(JSONLBatch: Any) -> None:
    with _folder() as folder:
        (folder / "a.jsonl").write_text('{"query": "why"}\n{"a": 1}\n')
        assert run(lambda env: env.from_batch(JSONLBatch, {"data_path": "a.jsonl"})) == ["why", {"a": 1}]


@there("HFDatasetBatch", "config", _BATCHES)
def hf_dataset_batch(HFDatasetBatch: Any) -> None:
    with patch.dict(sys.modules, datasets=Stand()):
        config = {"hf_dataset_name": "org/name", "max_samples": 1}
        assert run(lambda env: env.from_batch(HFDatasetBatch, config)) == [{"query": "why", "references": ["so"]}]


class Stand(type(sys)):  # type: ignore[misc]
    """Stands for the module `datasets`."""

    def __init__(self) -> None:
        super().__init__("datasets")

    def load_dataset(self, *_args: Any, **_options: Any) -> list[Any]:
        return [{"question": "why", "golden_answers": ["so"]}] * 2


@there("TerminalSink", "config=None", _SINKS)
def terminal_sink(TerminalSink: Any) -> None:
    lines = _printed(TerminalSink, ("why", "so"), {}).splitlines()
    assert lines == ["[TerminalSink]: [Q] Question :why", "[TerminalSink]: [A] Answer :so"]
    for answer in ("answer", "generated", "response"):
        assert _printed(TerminalSink, {"query": "why", answer: "so", "n": 1}, {}).splitlines() == lines


@there("FileSink", "config=None", _SINKS)
def file_sink(FileSink: Any) -> None:
    with _folder() as folder:
        run(lambda env: env.from_batch([("why", "so")]).sink(FileSink, {"file_path": "a.txt"}).sink(FileSink))
        written = [(folder / ".sage" / "output" / name).read_text() for name in ("a.txt", "qa_output.txt")]
    assert written == [f"[Q] Question: why\n[A] Answer  : so\n{'-' * 40}\n"] * 2


@there("PrintSink", 'prefix="", separator=" | ", colored=False, quiet=False', f"{_SINKS} {_PRINTS}")
def print_sink(PrintSink: Any) -> None:
    assert _printed(PrintSink, 1, "p") == "p | 1\n" and _printed(PrintSink, "x", "", "", False, True) == "x\n"


@there("RetriveSink", "config=None", _SINKS)
def retrive_sink(RetriveSink: Any) -> None:
    assert _printed(RetriveSink, ("why", ["a"]), {}) == "[Q] Question :why\n[A] Chunks :['a']\n"


@there("MemWriteSink", "config=None", _SINKS)
def mem_write_sink(MemWriteSink: Any) -> None:
    with _folder() as folder:
        run(lambda env: env.from_batch(["a"]).sink(MemWriteSink, {}))
        assert (folder / ".sage" / "output" / "mem_output.txt").read_text() == f"[1] a\n{'-' * 40}\n"
