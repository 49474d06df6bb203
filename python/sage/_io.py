"""Sources and sinks of files and of the terminal, as SAGE programs use them.

Each takes its options as arguments, or as one mapping, such as a section of a configuration file. Given a mapping, as
SAGE programs do, they read and write as SAGE's do; each says how. A file is opened when the job starts and closed when
it ends. An error of reading or writing names the file.
"""

from __future__ import annotations

import builtins
import importlib
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ._arguments import said, truth, whole
from ._lines import LineFormat, Lines, named
from ._output_sink import OutputSink
from ._packed import is_packed
from ._functions import FromIterator, SimpleBatchFunction, SinkFunction, SourceFunction

#: By which names a mapping may give the path of a file.
_PATHS = ("path", "file_path", "data_path")


def _path_of(where: Any) -> str:
    if isinstance(where, Mapping):
        names = [name for name in _PATHS if name in where]
        if len(names) != 1:
            raise ValueError(f"a configuration of a file needs one of {', '.join(_PATHS)}; it has {_keys(where)}")
        where = where[names[0]]
    if where is None:
        raise ValueError(f"a file needs its path, or a `config` with one of {', '.join(_PATHS)}")
    return os.fsdecode(where)


def _keys(config: Mapping[Any, Any]) -> str:
    """The keys of a configuration, whose values may be secret."""
    return said(list(config))


def _pair_of(record: Any) -> tuple[Any, Any] | None:
    """The question and the answer that a record is, if it is both: a tuple of two, or a mapping of them."""
    if isinstance(record, tuple) and len(record) == 2:
        return record
    if isinstance(record, Mapping):
        question = record.get("query", record.get("question"))
        answer = next((record[name] for name in ("answer", "generated", "response") if name in record), None)
        return None if question is None or answer is None else (question, answer)
    return None


def _option(where: Any, name: str, given: str | None, default: str) -> str:
    """An option that may be given by itself or in a mapping."""
    if given is None and isinstance(where, Mapping):
        given = where.get(name)
    return default if given is None else given


def _lines(where: Any, encoding: str | None, errors: str | None) -> Lines:
    """The lines of a file, with options that may be in its configuration."""
    encoding, errors = _option(where, "encoding", encoding, "utf-8"), _option(where, "errors", errors, "strict")
    return Lines(_path_of(where), LineFormat(encoding, errors))


class FileSource(FromIterator, SourceFunction):
    """Gives each line of a text file, without its end: ``env.from_source(FileSource, "names.txt")``.

    A line ends with ``\\n`` or ``\\r\\n``; a byte order mark is not part of the first. ``encoding`` is UTF-8 by
    default. ``errors`` says what to do with bytes that are not text in it: ``"strict"`` fails, naming the line;
    ``"replace"``, ``"ignore"``, ``"surrogateescape"`` and others are as in ``bytes.decode``.

    Of a mapping, such as ``{"data_path": "names.txt"}``, lines come without the white space around them, and
    ``"loop_reading": True`` reads the file again and again.
    """

    def __init__(
        self, path: Any = None, encoding: str | None = None, errors: str | None = None, *, config: Any = None
    ) -> None:
        path = config if path is None else path
        self._lines = _lines(path, encoding, errors)
        is_again = isinstance(path, Mapping) and truth("`loop_reading`", path.get("loop_reading", False))
        super().__init__(self._stripped(is_again) if isinstance(path, Mapping) else self._lines)

    def _stripped(self, is_again: bool) -> Iterator[Any]:
        while True:
            for line in self._lines:
                yield line.strip()
            if not is_again:
                return
            if self._lines.number == 0:
                yield None  # nothing just now: an empty file may get lines
            self._lines.rewind()

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


class JSONLBatch(SimpleBatchFunction):
    """Gives the value of each line of JSON in a file: ``env.from_batch(JSONLBatch, "questions.jsonl")``. Empty
    lines are left out. ``encoding`` and ``errors`` are as for ``FileSource``.

    Of a mapping, such as ``{"data_path": "questions.jsonl"}``, an object with a ``query`` gives only that."""

    def __init__(
        self, path: Any = None, encoding: str | None = None, errors: str | None = None, *, config: Any = None
    ) -> None:
        path = config if path is None else path
        self._lines = _lines(path, encoding, errors)
        self._has_queries = isinstance(path, Mapping)
        super().__init__(self._values())

    def _values(self) -> Iterator[Any]:
        from json import loads  # few programs need it

        for line in self._lines:
            if line.strip():
                try:
                    value = loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{self._lines.path}, line {self._lines.number}: {error}") from error
                is_query = self._has_queries and isinstance(value, dict) and "query" in value
                yield value["query"] if is_query else value

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


class HFDatasetBatch(SimpleBatchFunction):
    """Gives the questions of a data set of Hugging Face with their answers, as ``{"query": …, "references": […]}``:
    ``env.from_batch(HFDatasetBatch, {"hf_dataset_name": "org/name"})``. They are the fields ``question`` and
    ``golden_answers``.

    Of the data set, ``hf_dataset_config`` names a configuration and ``hf_split`` a part, by default ``"train"``;
    ``max_samples`` is how many records to give at most. It is read as the records are taken. Needs ``datasets``.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        if not isinstance(config, Mapping) or "hf_dataset_name" not in config:
            has = f"which has {_keys(config)}" if isinstance(config, Mapping) else f"not {said(config)}"
            raise ValueError(f"`HFDatasetBatch` needs a `config` with the `hf_dataset_name`, {has}")
        try:
            self._load: Any = importlib.import_module("datasets").load_dataset
        except ModuleNotFoundError as error:
            hint = "`HFDatasetBatch` needs datasets: pip install 'sage-dataflow[datasets]'"
            raise ImportError(hint, name="datasets") from error
        self.config = config
        self.hf_name, self.hf_config = config["hf_dataset_name"], config.get("hf_dataset_config")
        self.hf_split, self.max_samples = config.get("hf_split", "train"), config.get("max_samples")
        if self.max_samples is not None:
            whole("`max_samples`", self.max_samples, 0)
        super().__init__(self._examples())

    def _examples(self) -> Iterator[Any]:
        records = self._load(self.hf_name, self.hf_config, split=self.hf_split, streaming=True)
        for record in islice(records, self.max_samples):
            yield {"query": record.get("question", ""), "references": record.get("golden_answers") or []}


class FileSink(OutputSink):
    """Writes each record to a file in UTF-8, as a line: ``stream.sink(FileSink, "results.txt")``.

    The file appears when it is complete, and replaces the file of that name: when the job's input has ended, or the job
    was told to stop. Until then it has another name in the same folder. A job that fails or is cancelled leaves no
    file; a job that a signal ended leaves its records in ``results.txt.partial``. A device or a pipe is written to at
    once. There can be only one replica. A name that ends in ``.gz`` or ``.zst`` has the file packed.

    ``mode="a"`` appends each line at once to the file, from any number of replicas. The lines stay, however the job
    ends.

    Of a mapping with ``"file_path"``, a relative path is below ``.sage/output``, and a tuple of a question and an
    answer becomes two lines and one of dashes.
    """

    def __init__(self, path: Any = None, mode: str | None = None, *, config: Any = None) -> None:
        path = (config if path is None else path) or {"file_path": "qa_output.txt"}
        name = _path_of(path)
        #: Whether it writes as SAGE's sink does.
        self._has_pairs = isinstance(path, Mapping) and "file_path" in path
        if self._has_pairs and not os.path.isabs(name):
            name = os.path.join(".sage", "output", name)
            os.makedirs(os.path.dirname(name), exist_ok=True)
        mode = _option(path, "mode", mode, "w")
        if mode not in ("w", "a"):
            raise ValueError(f"a mode is `w` or `a`, not {mode!r}: {name}")
        if mode == "a" and is_packed(name):
            raise ValueError(f"lines cannot be appended to {name}, which is packed; leave out mode='a'")
        super().__init__(name, "give it mode='a'", begins=mode == "w")
        # With lines as buffers each is one write, so that those of replicas do not mix.
        self._file = open(name, "a", buffering=1, encoding="utf-8") if mode == "a" else None

    def execute(self, record: Any) -> None:
        """Writes a line."""
        text = self._answered(record) if self._has_pairs else f"{record}\n"
        if self._output is not None:
            self._output.write(text)
            return
        if self._file is None:
            raise ValueError(f"{self._path} was closed")
        try:
            self._file.write(text)
        except OSError as error:
            raise named(error, self._path) from error
        except UnicodeEncodeError as error:
            raise ValueError(f"{self._path} is written in UTF-8, and this record cannot be: {error}") from error

    def _answered(self, record: Any) -> str:
        pair = _pair_of(record) if isinstance(record, tuple) else None
        return f"{record}\n" if pair is None else f"[Q] Question: {pair[0]}\n[A] Answer  : {pair[1]}\n{_DASHES}"

    def close(self) -> None:
        """Closes the file; makes it final, if that was not done and the job did not end otherwise."""
        super().close()
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                raise named(error, self._path) from error


_DASHES = "-" * 40 + "\n"


class MemWriteSink(FileSink):
    """Writes the texts of each record, with their numbers, and a line of dashes behind them:
    ``stream.sink(MemWriteSink, {"file_path": "memory.txt"})``, by default ``mem_output.txt``. The texts are those in a
    tuple or a list, or the record itself. Otherwise it is as ``FileSink``."""

    def __init__(self, config: Any = None, mode: str | None = None) -> None:
        has_path = not isinstance(config, Mapping) or any(name in config for name in _PATHS)
        super().__init__(config if config is not None and has_path else {"file_path": "mem_output.txt"}, mode)
        self._has_pairs = True
        self._count = 0

    def _answered(self, record: Any) -> str:
        if isinstance(record, tuple):
            texts = [part for part in record if isinstance(part, str)]
        else:
            texts = record if isinstance(record, list) else [record]
        numbered = "".join(f"[{number}] {text}\n" for number, text in enumerate(texts, self._count + 1))
        self._count += len(texts)
        return numbered + _DASHES


class PrintSink(SinkFunction):
    """Prints each record. If there is a ``prefix``, it comes first, then ``separator``. SAGE's does not print every
    record, and says so in a line of its own unless it is ``quiet``; here there is no such line."""

    def __init__(
        self, prefix: str = "", separator: str = " | ", colored: bool = False, quiet: bool = False
    ) -> None:
        self.prefix, self.separator, self.colored, self.quiet = prefix, separator, colored, quiet
        lead = f"{prefix}{separator}" if prefix else ""
        self._lead = f"\x1b[36m{lead}\x1b[0m" if colored and lead else lead

    def execute(self, record: Any) -> None:
        """Prints a line."""
        builtins.print(f"{self._lead}{record}", flush=True)


class TerminalSink(PrintSink):
    """Prints each record; a question and its answer as two lines. They are a tuple, or a mapping with ``query`` or
    ``question``, and ``answer``, ``generated`` or ``response``. A configuration may have ``prefix``, ``separator`` and
    ``colored``; what else it has has no effect."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        if not isinstance(config, (Mapping, type(None))):
            raise TypeError(f"`TerminalSink` takes a configuration, a mapping, not {said(config)}")
        names = ("prefix", "separator", "colored")
        super().__init__(**{name: value for name, value in (config or {}).items() if name in names})

    def execute(self, record: Any) -> None:
        """Prints a line, or two."""
        pair = _pair_of(record)
        if pair is None:
            super().execute(record)
        else:
            super().execute(f"[TerminalSink]: [Q] Question :{pair[0]}")
            super().execute(f"[TerminalSink]: [A] Answer :{pair[1]}")


class RetriveSink(PrintSink):
    """Prints a question and the texts found for it, as two lines. The spelling is SAGE's."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()

    def execute(self, record: tuple[Any, Any]) -> None:
        """Prints both."""
        question, chunks = record
        super().execute(f"[Q] Question :{question}")
        super().execute(f"[A] Chunks :{chunks}")
