"""What shows how far a job is besides the line on a terminal: an output of a notebook, the packages rich and tqdm, and
functions of the program."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ._arguments import said, warn
from ._metrics import JobMetrics
from ._progress import INTERVAL, WORDS, Shows, is_notebook, line, summary, troubles

#: How often the output of a notebook is replaced, in seconds.
_OUTPUT = 0.25


def of(package: str) -> Callable[[], Shows]:
    """What makes the bar of a package. Raises where it is not installed."""
    made: dict[str, Callable[[], Shows]] = {"rich": Rich, "tqdm": Tqdm}
    if package not in made:
        raise ValueError(f"`progress` is {WORDS}, not {package!r}")
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        needs = f'`progress="{package}"` needs the package {package}: pip install {package}'
        raise ImportError(needs, name=package) from None
    return made[package]


class Output:
    """One output of a notebook's cell, which is replaced each time."""

    interval = _OUTPUT

    def __init__(self) -> None:
        self._display = importlib.import_module("IPython.display")
        self._handle: Any = None

    def _put(self, text: str) -> None:
        content = {"text/plain": text}
        if self._handle is None:
            self._handle = self._display.display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def show(self, metrics: JobMetrics) -> None:
        """Replaces the output."""
        self._put(line(metrics))

    def end(self, metrics: JobMetrics, _is_told: bool) -> None:
        """Replaces it for the last time."""
        self._put(summary(metrics))


class Rich:
    """A bar of the package rich."""

    interval = INTERVAL

    def __init__(self) -> None:
        console, bars = importlib.import_module("rich.console"), importlib.import_module("rich.progress")
        columns = bars.BarColumn(), bars.TextColumn("{task.fields[line]}", markup=False)
        self._bars = bars.Progress(*columns, console=console.Console(stderr=True), auto_refresh=False)
        self._bar: Any = None

    def show(self, metrics: JobMetrics) -> None:
        """Draws the bar."""
        if self._bar is None:
            self._bars.start()
            self._bar = self._bars.add_task("", total=metrics.total, line="")
        self._put(metrics, line(metrics))

    def _put(self, metrics: JobMetrics, text: str) -> None:
        self._bars.update(self._bar, completed=metrics.done, total=metrics.total, line=text, refresh=True)

    def end(self, metrics: JobMetrics, _is_told: bool) -> None:
        """Draws it for the last time."""
        self._put(metrics, summary(metrics))
        self._bars.stop()


class Tqdm:
    """A bar of the package tqdm."""

    interval = INTERVAL

    def __init__(self) -> None:
        bar = importlib.import_module("tqdm.auto" if is_notebook() else "tqdm").tqdm
        # Without a thread of tqdm's that would stay until the end of the program.
        self._make: Any = type("Bar", (bar,), {"monitor_interval": 0})
        self._bar: Any = None

    def show(self, metrics: JobMetrics) -> None:
        """Draws the bar."""
        if self._bar is None:
            self._bar = self._make(desc=metrics.environment, total=metrics.total, unit=" records")
        self._bar.total = metrics.total
        self._bar.set_postfix_str(" ".join(troubles(metrics)), refresh=False)
        self._bar.update(metrics.done - self._bar.n)
        self._bar.refresh()

    def end(self, metrics: JobMetrics, _is_told: bool) -> None:
        """Draws it for the last time."""
        self.show(metrics)
        self._bar.close()


class Told:
    """A function of the program's."""

    interval = INTERVAL

    def __init__(self, function: Callable[[JobMetrics], object]) -> None:
        self._function = function
        self._has_raised = False

    def show(self, metrics: JobMetrics) -> None:
        """Calls it, until it raises."""
        if self._has_raised:
            return
        try:
            self._function(metrics)
        except Exception as error:
            self._has_raised = True
            warn(f"{said(self._function)} was told how far the job is, and is not any more: "
                 f"{type(error).__name__}: {error}")

    def end(self, metrics: JobMetrics, _is_told: bool) -> None:
        """Calls it for the last time."""
        self.show(metrics)
