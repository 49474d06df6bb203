"""A real job manager, and a real browser that looks at its page."""

import json
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, Playwright, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SAGE = ROOT / "target/debug/sage"
COUNTING = ROOT / "target/debug/examples/counting"


class Manager:
    """A job manager with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environ = {**os.environ, "SAGE_HOME": str(folder)}
        self.start()

    def start(self) -> None:
        self.url = "http://" + str(self.told("jobmanager", "start", "--port", "0")["daemon"])

    def run(self, *words: object, code: int = 0) -> str:
        """What `sage` prints, which has to end with this exit code."""
        command = [str(SAGE), *(str(word) for word in words)]
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, (command, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def told(self, *words: object) -> dict[str, object]:
        """What `sage` tells as JSON."""
        told = json.loads(self.run(words[0], "--json", *words[1:]))
        assert isinstance(told, dict)
        return told

    def submit(self, *arguments: str, name: str = "counting", program: Path = COUNTING) -> str:
        """Submits a job, and returns its id."""
        return str(self.told("job", "submit", "--port", "0", "--name", name, program, *arguments)["id"])

    def job(self, verb: str, job: str, *words: str) -> dict[str, object]:
        return self.told("job", verb, "--port", "0", *words, job)

    def link(self) -> str:
        return str(self.told("jobmanager", "link", "--port", "0")["page"])


def kill(marker: str) -> None:
    """Kills the browser that was started with this word."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marker.encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


@contextmanager
def killed_after(seconds: float, marker: str) -> Iterator[None]:
    """Kills a browser that does not answer, for which most calls have no limit: they fail then, and say where."""
    timer = threading.Timer(seconds, kill, [marker])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@dataclass(frozen=True)
class Chromium:
    """A browser, and the word that it was started with."""

    browser: Browser
    marker: str

    def close(self, what: Browser | BrowserContext) -> None:
        """Closes it. A browser that does not answer even to that is killed: what was tested is over."""
        with suppress(Error), killed_after(30, self.marker):
            what.close()


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture
def started(playwright: Playwright) -> Iterator[Chromium]:
    """A browser that answers: some never do after their start, in containers above all (Playwright, issue 42692)."""
    for _ in range(3):
        marker = f"--sage-test={uuid.uuid4()}"
        # Without its process for graphics, for which some wait for ever (Playwright, issue 4761).
        arguments = ["--no-sandbox", "--disable-gpu", marker]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        with suppress(Error), killed_after(30, marker):
            context = browser.new_context()
            context.new_page().goto("about:blank")
            context.close()
            break
    started = Chromium(browser, marker)
    with killed_after(180, marker):
        yield started
    started.close(browser)


@pytest.fixture
def chromium(started: Chromium) -> Browser:
    return started.browser


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "sage")
    yield manager
    manager.run("jobmanager", "stop", "--port", "0", "--jobs", "cancel")


@pytest.fixture
def context(started: Chromium, manager: Manager, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A browser that is logged in, and in which nothing goes wrong but what a test is marked to `expect`."""
    context = started.browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(15_000)
    wrong: list[str] = []
    context.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    page = context.new_page()
    page.goto(manager.link())
    page.close()
    yield context
    started.close(context)
    expected = [word for mark in request.node.iter_markers("expects") for word in mark.args]
    assert [words for words in wrong if not any(word in words for word in expected)] == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
