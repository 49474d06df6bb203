"""The conversation of the demo ``rag.py``, which is remembered from one run to the next: what ``--chat`` asks for."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rag_services import Finder, Told
from sage import LocalEnvironment, RemoteEnvironment
from sage.services import Hit, Memory, Scope

#: Turns of the conversation that a model is told.
TOLD = 6
#: Earlier turns that an answer may be from.
RECALLED = 3


class Typed:
    """The lines that are typed, from when the documents are read."""

    def __init__(self) -> None:
        self._begun = threading.Event()

    def begin(self) -> None:
        if not self._begun.is_set():
            prompt()
            self._begun.set()

    async def lines(self) -> AsyncIterator[str]:
        """A thread reads them: nothing can end its wait for a line, but the job need not wait for it."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()

        def read() -> None:
            self._begun.wait()
            for line in sys.stdin.buffer:
                if text := line.decode("utf-8", "replace").strip():
                    loop.call_soon_threadsafe(queue.put_nowait, text)
            loop.call_soon_threadsafe(queue.put_nowait, None)

        threading.Thread(target=read, daemon=True).start()
        while (line := await queue.get()) is not None:
            yield line


@dataclass
class Conversation:
    """What a line is answered from, and what becomes of it."""

    memory: Memory
    finder: Finder
    session: Scope
    show: Callable[[Told], None]

    @property
    def user(self) -> Scope:
        return Scope("rag", user=self.session.user)

    def found(self, line: str) -> tuple[str, list[Hit]]:
        """Passages of the documents, and earlier turns of the user, that a line is about."""
        hits = list(self.finder.find(line))
        recalled = self.memory.recall(self.user, line, k=4 * RECALLED)
        # What was asked answers nothing.
        told = [one for one in recalled if one.turn.role == "user" and not is_question(one.turn.text)]
        for one in told[:RECALLED]:
            hits.append(Hit(f"what you said on {one.turn.said:%Y-%m-%d %H:%M} UTC", one.score, one.turn.text))
        return line, hits

    def before(self, asked: tuple[str, list[Hit]]) -> tuple[str, list[Hit]]:
        """The line with the turns before it, for a model."""
        line, hits = asked
        turns = self.memory.window(self.session, turns=TOLD)
        if turns:
            line += "\n\nEarlier in this conversation:\n"
            line += "".join(f"{turn.role}: {turn.text}\n" for turn in turns)
        return line, hits

    def remember(self, told: Told) -> None:
        """Prints an answer, and remembers it with its line."""
        line, answer = told[0].split("\n", 1)[0], told[1]
        if line == "/forget":
            print(self.memory.erase(self.user))
        else:
            turns = [("user", line)]
            if is_question(line) or (answer is not None and answer.coverage is None):
                turns += [("assistant", answer.text)] if answer else []
                self.show((line, answer))
            else:
                print("I shall remember that.\n")
            self.memory.append(self.session, turns)
        prompt()


def is_question(text: str) -> bool:
    return text.rstrip().endswith("?")


def prompt() -> None:
    if sys.stdin.isatty():
        print("> ", end="", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("a conversation").add_argument
    add("--chat", action="store_true", help="ask for questions, and remember what is said; /forget erases all of it")
    add("--memory", type=Path, metavar="FILE", help="the memory; chat.memory in SAGE_HOME or ~/.sage unless given")
    add("--user", metavar="NAME", help="whose conversation it is (you)")


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the program if the options do not fit together."""
    if arguments.chat and (arguments.question or arguments.questions):
        parser.error("--chat asks for questions: give none")
    if not arguments.chat and (arguments.memory is not None or arguments.user is not None):
        parser.error("--memory and --user are for --chat")


def declare(
    env: LocalEnvironment | RemoteEnvironment,
    arguments: argparse.Namespace,
    finder: Finder,
    answer: Callable[[tuple[str, list[Hit]]], Any],
    show: Callable[[Told], None],
) -> Typed:
    """Declares the memory and the conversation."""
    home = Path(os.environ.get("SAGE_HOME") or Path.home() / ".sage")
    memory = env.service("memory", Memory, [arguments.memory or home / "chat.memory"])
    now = datetime.now(timezone.utc).isoformat()
    session = Scope("rag", user="you" if arguments.user is None else arguments.user, session=now)
    conversation = Conversation(memory, finder, session, show)
    typed = Typed()
    found = env.from_collection(typed.lines(), name="lines").map(conversation.found, name="recall")
    if arguments.llm != "none":
        found = found.map(conversation.before, name="before")
    found.map(answer, name="reply").sink(conversation.remember, name="remember")
    return typed
