"""Waits for a job of the job manager: shows its output as it comes, and says how it ended."""

from __future__ import annotations

import codecs
import json
import re
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from ._daemon import Broken, Daemon, NoJobManager, Refused
from ._job import JobFailed, Report
from ._pickling import RemoteCause
from ._remote_jobs import is_success
from ._sage import read_report

#: How long a job manager may be away that is being started anew, in seconds.
_PATIENCE = 30.0

#: How long it is left alone between two attempts then: at first, and at most.
_FIRST, _LONGEST = 0.05, 1.0


#: What the job is told at the first Ctrl-C and the second, and what is said of it.
_STOPS = (
    ("drain", "stopping: finishing what is in flight; Ctrl-C again to drop it"),
    ("cancel", "stopping: dropping what is in flight; Ctrl-C again to wait no more"),
)

#: What was raised, as the message of a cause tells it: perhaps where, the class, and the text of the exception.
_RAISED = re.compile(r"(?:in `.*?`: )?(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<text>.*))?", re.DOTALL)


class Watch:
    """Waits for a job."""

    def __init__(self, daemon: Daemon, job: str, name: str) -> None:
        self._daemon = daemon
        self._job = job
        self._name = name
        #: How much of its output was shown, in bytes.
        self._shown = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        #: How often Ctrl-C has come, and of how many the job was told.
        self._interrupts = self._told = 0

    def until_over(self, timeout: float | None = None) -> Report | None:
        """Waits until the job is over, or for so many seconds: its report, or ``None``. Raises what
        ``RemoteEnvironment.submit`` raises."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                if self._told < self._interrupts:
                    self._stop()
                record = self._record(until)
                return None if record is None else self._ended(record)
            except KeyboardInterrupt as error:
                if hasattr(error, "report"):
                    raise
                self._interrupts += 1
                if self._interrupts > len(_STOPS):
                    if self._told < len(_STOPS):
                        self._tell("cancel")
                    waits = f"job {self._job} of `{self._name}` is being cancelled, and was not waited for"
                    raise KeyboardInterrupt(waits) from None

    def _record(self, until: float | None) -> Mapping[str, Any] | None:
        """Waits until the job is over: its record. Goes on with the job manager that comes after one that ends."""
        lost, pause = None, _FIRST
        while True:
            begun = time.monotonic()
            try:
                return self._streamed(until)
            except TimeoutError:
                return None
            except Refused as error:
                if error.status == 404:
                    raise RuntimeError(f"job {self._job} of `{self._name}` was deleted before it was over") from None
                raise
            except (Broken, NoJobManager) as error:
                now = time.monotonic()
                if lost is None or now - begun > _LONGEST:
                    lost, pause = now, _FIRST
                if now - lost > _PATIENCE:
                    raise RuntimeError(
                        f"the job manager is gone while `{self._name}` was waited for, and job {self._job} goes on "
                        f"without it: {error}"
                    ) from error
            # Nothing tells when another one listens.
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST)

    def _streamed(self, until: float | None) -> Mapping[str, Any]:
        with closing(self._daemon.stream(self._job, until)) as stream:
            for happened in stream:
                if happened.name == "output":
                    self._show(happened.data["output"])
                elif happened.name == "over":
                    self._show(None)
                    record: Mapping[str, Any] = happened.data
                    return record
        # So it does when it ends, and when the job is deleted: the next attempt says which.
        raise Broken(f"{self._daemon} has ended the stream")

    def _show(self, length: int | None) -> None:
        """Shows the output up to this byte, or to its end."""
        while length is None or self._shown < length:
            piece = self._daemon.output(self._job, self._shown)
            if piece.next <= self._shown:
                break
            if piece.begin > self._shown:
                _say(f"{piece.begin - self._shown:,} bytes of the job's output are not kept any more")
            self._shown = piece.next
            print(self._decoder.decode(piece.content), end="", flush=True)
        if length is None:
            print(self._decoder.decode(b"", True), end="", flush=True)

    def _stop(self) -> None:
        """Ctrl-C has come."""
        command, line = _STOPS[self._interrupts - 1]
        _say(line)
        self._tell(command)
        self._told = self._interrupts

    def _tell(self, command: str) -> None:
        try:
            self._daemon.of(self._job, command, "POST")
        except (Refused, Broken, NoJobManager) as error:
            # It may be over; else the next one may reach it.
            if not isinstance(error, Refused) or error.status != 409:
                _say(f"{error}")

    def _ended(self, record: Mapping[str, Any]) -> Report:
        reports = self._daemon.of(self._job, "report")["jobs"]
        bad = [report for report in reports if report["outcome"] != "succeeded" or report["cleanliness"] != "clean"]
        found = next(iter(bad), reports[-1] if reports else None)
        text, why = f"no report: {record['why'] or record['state']}", None
        if found is not None:
            text, why = read_report(json.dumps(found))
        report = Report.told(text, json.dumps(found or {}))
        if self._interrupts:
            ends = KeyboardInterrupt(f"job {self._job} of `{self._name}` {_word(record)}")
            ends.report = report  # type: ignore[attr-defined]
            raise ends
        if is_success(record):
            return report
        if why is None or found is None or found["outcome"] != record["state"]:
            # The program has failed, though its jobs have not, or something else has ended them.
            why = f"job `{self._name}` {_word(record)}"
            why += f": {record['why']}" if record["why"] else ""
        raise JobFailed(why, report) from _cause(found)


def _word(record: Mapping[str, Any]) -> str:
    told = record["state"].replace("_", " ")
    return "was lost" if told == "lost" else f"{told} but is not clean" if told == "succeeded" else told


def _cause(report: Mapping[str, Any] | None) -> RemoteCause | None:
    """The first cause of a job's failure, as far as it can be told here."""
    cause = report and report.get("first_cause")
    if not cause or cause["kind"] != "error":
        return None
    message = cause["message"]
    found = _RAISED.fullmatch(message)
    kind, text = (found["kind"], found["text"] or "") if found else ("Exception", message)
    return RemoteCause(kind, text, message)


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except Exception:
        pass  # nobody can see it
