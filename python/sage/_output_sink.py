"""The base of sinks that write a file which appears when it is complete, or not at all."""

from __future__ import annotations

from ._arguments import shown
from ._files import Output
from ._functions import Noting, SinkFunction


class OutputSink(SinkFunction, Noting):
    """Has a file that it makes final when all records have come, or the job was told to stop. What a job wrote that a
    signal ended is kept beside it; a job that fails or is cancelled leaves no file.

    Invariant: ``_output`` is there until the file is final, kept or discarded.
    """

    def __init__(self, path: str, hint: str = "use one", *, begins: bool = True) -> None:
        self._path = path
        self._ending = "end"
        #: What the report is to tell.
        self.notes: list[str] = []
        self._output: Output | None = None
        context = self.ctx
        self._kept: list[str] = [] if context is None else context.kept
        if begins and context is not None and context.parallelism > 1:
            raise ValueError(f"replicas would replace what the others wrote to {path}; {hint}")
        if begins:
            self._output = Output(path)

    def _complete(self, output: Output) -> None:
        """Writes what is still to be written before the file is final, or kept."""

    def _completed(self) -> Output | None:
        output, self._output = self._output, None
        if output is not None:
            try:
                self._complete(output)
            except BaseException:
                output.discard()
                raise
        return output

    def _finish(self) -> None:
        """Makes the file final. The engine has this called when all records have come."""
        output = self._completed()
        if output is not None:
            output.publish()

    def _ended(self, ending: str) -> None:
        """How the job ended: by the ``end`` of its input, a ``signal``, or something ``else``. Before ``close``."""
        self._ending = ending

    def close(self) -> None:
        """Closes the file; makes it final, if that was not done and the job did not end otherwise."""
        if self._ending == "end":
            self._finish()
        elif self._ending == "signal":
            output = self._completed()
            partial = None if output is None else output.keep()
            if partial is not None:
                self._kept.append(partial)
                self.notes.append(f"{shown(partial)} has what was written before the job was stopped")
        elif self._output is not None:
            self._output.discard()
            self._output = None
