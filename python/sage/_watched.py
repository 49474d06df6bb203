"""Waits for a job of the job manager: shows its output as it comes, and says how it ended."""

from __future__ import annotations

import codecs
import json
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


class Watch:
    """Waits for a job."""

    def __init__(self, daemon: Daemon, job: str, name: str) -> None:
        self._daemon = daemon
        self._job = job
        self._name = name
        #: How much of its output was shown, in bytes.
        self._shown = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        #: How often Ctrl-C has come.
        self._interrupts = 0

    def until_over(self, timeout: float | None = None) -> Report | None:
        """Waits until the job is over, or for so many seconds: its report, or ``None``. Raises what
        ``RemoteEnvironment.submit`` raises."""
        until = None if timeout is None else time.monotonic() + timeout
        lost, pause = None, _FIRST
        while True:
            try:
                with closing(self._daemon.stream(self._job, until)) as stream:
                    for happened in stream:
                        lost, pause = None, _FIRST
                        if happened.name == "output":
                            self._show(happened.data["output"])
                        elif happened.name == "over":
                            self._show(None)
                            return self._ended(happened.data)
            except KeyboardInterrupt:
                self._interrupted()
                continue
            except TimeoutError:
                return None
            except Refused as error:
                if error.status == 404:
                    raise RuntimeError(f"job {self._job} of `{self._name}` was deleted before it was over") from None
                raise
            except (Broken, NoJobManager) as error:
                now = time.monotonic()
                lost = now if lost is None else lost
                if now - lost > _PATIENCE:
                    raise RuntimeError(
                        f"the job manager is gone while `{self._name}` was waited for, and job {self._job} goes on "
                        f"without it: {error}"
                    ) from error
            # Nothing tells when it listens again; and one that ends tells all that it has before.
            try:
                time.sleep(pause)
            except KeyboardInterrupt:
                self._interrupted()
            pause = min(pause * 2, _LONGEST)

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

    def _interrupted(self) -> None:
        """Ctrl-C has come: drains the job, then cancels it, then waits no more."""
        self._interrupts += 1
        if self._interrupts > 2:
            raise KeyboardInterrupt(f"job {self._job} of `{self._name}` is being cancelled, and was not waited for")
        how = "drain" if self._interrupts == 1 else "cancel"
        what = "finishing what is in flight" if how == "drain" else "dropping what is in flight"
        _say(f"stopping: {what}; Ctrl-C again to {'drop it' if how == 'drain' else 'wait no more'}")
        try:
            self._daemon.of(self._job, how, "POST")
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
        if why is None:
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
    kind, _, text = cause["message"].partition(": ")
    if not kind.replace(".", "_").isidentifier():
        kind, text = "Exception", cause["message"]
    return RemoteCause(kind, text, cause["message"])


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except Exception:
        pass  # nobody can see it
