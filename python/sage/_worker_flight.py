"""In a worker: a function that works on several records at a time. See ``_remote_flight.py`` for the job's side.

The runner is the one that the job itself would have, with its event loop or its threads. The main thread gives it the
records that the job asks for; another one sends the answers.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ._pickling import packed_exception
from ._threads import started
from ._wire import ANSWER, ASK, CANCEL, HURRY

if TYPE_CHECKING:
    from ._worker import Link


class WorkerFlight:
    """Works for the job with a runner."""

    def __init__(self, link: Link, runner: Any, is_timed: bool) -> None:
        self._link = link
        self._runner = runner
        self._is_timed = is_timed
        self._bridge = runner.bridge
        self._patience = runner.patience
        self._watch: threading.Timer | None = None
        link.is_read = True
        self._sender = started(self._send_all, "sage-answers")
        self._reader: threading.Thread | None = None

    def heed(self, kind: int, value: Any) -> None:
        """Does what the job says."""
        if kind == ASK:
            self._bridge.hand_over(value, self._is_timed)
        elif kind == CANCEL:
            begun = [number for number in value if self._bridge.cancel(number)]
            if begun and self._watch is None:
                self._watch = threading.Timer(self._patience, self._look, begun[-1:])
                self._watch.start()
        elif kind == HURRY:
            self._runner.hurry()

    def _look(self, number: int) -> None:
        """Fails what is in flight if the loop has taken no notice that a record was given up: no timeout reaches what
        is behind it."""
        self._watch = None
        if self._bridge.is_unnoticed(number):
            self._bridge.refuse(self._runner.blocked())

    def _send_all(self) -> None:
        while (told := self._bridge.answers()) is not None:
            self._send([(n, word, packed_exception(value) if word == "raised" else value) for n, word, value in told])

    def _send(self, answers: list[tuple[int, str, Any]]) -> None:
        try:
            self._link.send(ANSWER, answers)
        except EOFError:
            pass  # the job is gone, and the main thread sees it
        except Exception as error:
            if len(answers) > 1:
                for answer in answers:
                    self._send([answer])
                return
            from ._worker import unsendable

            number, _, results = answers[0]
            self._send([(number, "raised", packed_exception(unsendable(results, error)))])

    def forget(self) -> None:
        """In a process that a function has forked off: it ends when its call is over, or its loop goes on with
        others."""
        if self._bridge is not None:
            self._bridge.forked()

    def end(self, is_whole: bool) -> None:
        """Ends what is in flight, and waits for it as long as it may take."""
        # What still runs, and the hooks, wait for answers of services.
        self._reader = started(self._read, "sage-reader")
        if self._watch is not None:
            self._watch.cancel()
        self._bridge.wait_ended(self._runner.begin_close(not is_whole))

    def close(self) -> str | None:
        """Closes the function. Says what has not ended."""
        bridge, self._bridge = self._bridge, None
        try:
            left: str | None = self._runner.finish_close()
        finally:
            bridge.ended()
        return left

    def _read(self) -> None:
        try:
            while True:
                self._link.next()
        except (EOFError, OSError):
            pass

    def over(self) -> None:
        """All is told: waits until the job has closed the connection."""
        self._sender.join()
        if self._reader is not None:
            self._reader.join()
