"""Answers questions about a folder of documents, each with the file and the lines the answer comes from.

It is ``examples/rag.rs`` in Python: one job, with two native services and one written here.

    walk ─ read ─ note ─ chunk ─┬─ index ─┬─ count ─ ask ─ answer ─ print
                                └─ index ─┘

``embedder`` and ``store`` are the engine's own and compute without the interpreter's lock, so two replicas of
``index`` use two cores. ``memory`` is written in Python and calls the other two. The questions are asked when the last
passage is stored, because ``count`` gives its one record at the end of its input; a signal before that ends the walk,
and no question is asked of half an index.

With ``--workers``, ``read``, ``chunk`` and ``index`` run in processes of their own, or in actors of a Ray cluster,
whose nodes must have the folder. The services stay here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sage import BatchFunction, JobFailed, LocalEnvironment, RemoteEnvironment, Report, Service
from sage.services import Answer, Chunker, Embedder, Passage, VectorStore, documents, read_document

#: Asked when no folder is given.
QUESTIONS = [
    "In which order do services start and stop?",
    "What happens on the first SIGINT?",
    "What does clean mean?",
    "What happens when a cleanup hangs?",
    "How does the engine know that the input has ended?",
]
#: Read in a folder that is given.
EXTENSIONS = ["md", "markdown", "txt", "rst", "html", "htm"]
#: Passages the store is asked for; reranking chooses among them.
RETRIEVED = 50


class Memory(Service):
    """Finds answers, and remembers them: a question that is asked again is not looked up again."""

    def __init__(self, embedder: Embedder, store: VectorStore, passages: int) -> None:
        self.embedder = embedder
        self.store = store
        self.passages = passages

    def setup(self) -> None:
        self.answers: dict[str, Answer | None] = {}

    def answer(self, question: str) -> Answer | None:
        """The answer to a question; ``None`` if no document answers it."""
        key = " ".join(question.split())
        if key in self.answers:
            self.logger.info("remembered: %s", key)
        else:
            self.answers[key] = self.find(question)
        return self.answers[key]

    def find(self, question: str) -> Answer | None:
        vector = self.embedder.embed_query(question)
        # None of its words is in any passage.
        if vector.is_zero():
            return None
        hits = self.embedder.rerank(question, self.store.search(vector, RETRIEVED), self.passages)
        return self.embedder.answer(question, hits)

    def cleanup(self) -> None:
        self.answers.clear()


@dataclass
class Document:
    """What was read of a file, or what kept it from being read."""

    name: str = ""
    text: str = ""
    is_utf8: bool = True
    trouble: str = ""


@dataclass
class Notes:
    """Notes that the functions of this process take beside their records. Only one task changes each number."""

    documents: int = 0
    passages: int = 0
    passed_over: int = 0
    not_utf8: int = 0
    all_read: bool = False
    named: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def pass_over(self, error: Exception | str) -> None:
        self.passed_over += 1
        self.named.append(f"passed over: {error}")

    def show(self, answered: tuple[str, Answer | None]) -> None:
        question, answer = answered
        told = {name: getattr(answer, name, None) for name in ("path", "first_line", "last_line", "coverage")}
        self.answers.append({"question": question, "answer": answer.text if answer else None, **told})
        print(f"Q: {question}")
        if answer is None:
            print("A: no document answers this\n")
            return
        last = "" if answer.last_line == answer.first_line else f"-{answer.last_line}"
        print(f"A: {answer.text}\n   {answer.path}:{answer.first_line}{last}\n")


class Walk(BatchFunction):
    """The paths of the documents. It is made where the job runs, so that the job may run anywhere."""

    def __init__(self, folder: Path, extensions: list[str], notes: Notes) -> None:
        self.notes = notes
        self.paths = documents(folder, extensions, on_error=notes.pass_over)

    def execute(self) -> str | None:
        path = next(self.paths, None)
        self.notes.all_read = path is None
        return path


def declare(env: LocalEnvironment | RemoteEnvironment, arguments: argparse.Namespace, notes: Notes) -> None:
    """Declares the services and the stream."""
    embedder = env.service("embedder", Embedder)
    store = env.service("store", VectorStore, after=[embedder])
    memory = env.service("memory", Memory, (embedder, store, arguments.passages), after=[embedder, store])
    folder: Path = arguments.folder
    workers: Literal["processes", "ray"] | None = arguments.workers
    chunker = Chunker()

    def read(path: str) -> Document:
        try:
            document = read_document(path)
        except (OSError, ValueError) as error:
            return Document(trouble=str(error))
        # A name need not be UTF-8 either.
        name = os.fsencode(Path(path).relative_to(folder)).decode("utf-8", "replace")
        return Document(name, document.text, document.is_utf8)

    def note(document: Document) -> bool:
        if document.trouble:
            notes.pass_over(document.trouble)
            return False
        if not document.is_utf8:
            notes.not_utf8 += 1
            notes.named.append(f"read with U+FFFD in the place of what is not UTF-8: `{document.name}`")
        notes.documents += 1
        return True

    def index(passage: Passage) -> str | None:
        vector = embedder.embed_passage(passage.text_with_heading())
        # A passage without a word cannot be found, so it is left out.
        if vector.is_zero():
            return None
        store.upsert_batch([passage.record(vector)])
        return passage.id

    def ask(stored: int) -> list[str]:
        notes.passages = stored
        return arguments.question if stored and notes.all_read else []

    (
        env.from_batch(Walk, folder, arguments.ext, notes, name="walk")
        .map(read, name="read", workers=workers)
        .filter(note, name="note")
        .flatmap(lambda document: chunker.chunks(document.name, document.text), name="chunk", workers=workers)
        .map(index, parallelism=arguments.parallelism, name="index", workers=workers)
        .count()
        .flatmap(ask, name="ask")
        .map(lambda question: (question, memory.answer(question)), name="answer")
        .sink(notes.show, name="print")
    )


def summarise(report: Report, notes: Notes) -> None:
    print(f"{notes.documents} documents read, {notes.passages} passages stored, {len(notes.answers)} questions asked")
    for trouble in notes.named[:10]:
        print(f"  {trouble}")
    if len(notes.named) > 10:
        print(f"  and {len(notes.named) - 10} more")
    print(f"\n{report}")
    for name, service in report.services.items():
        print(name, service["state"])


def answered(arguments: argparse.Namespace) -> tuple[Notes, Report]:
    """Runs the job. Raises ``JobFailed``."""
    notes = Notes()
    env = LocalEnvironment("rag")
    declare(env, arguments, notes)
    return notes, env.submit(autostop=True).report


def run(arguments: argparse.Namespace) -> int:
    try:
        notes, report = answered(arguments)
    except JobFailed as failed:
        print(f"error: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Everything is stopped and cleaned by now.
        print("stopped before all questions were answered", file=sys.stderr)
        return 130
    summarise(report, notes)
    if arguments.report:
        told = {"answers": notes.answers, "documents": notes.documents, "passages": notes.passages}
        told |= {"passed_over": notes.passed_over, "not_utf8": notes.not_utf8, "job": report.data}
        try:
            arguments.report.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            print(f"error: the report cannot be written: {error}", file=sys.stderr)
            return 1
    if not notes.documents:
        extensions = ", ".join(arguments.ext)
        print(f"error: no document in `{arguments.folder}` ends in one of: {extensions}; see --ext", file=sys.stderr)
        return 1
    return 0


def question(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("a question is UTF-8") from None
    if not text.strip():
        raise argparse.ArgumentTypeError("a question is not empty")
    return text


def number(most: int) -> Any:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"`{text}` is not a number from 1 to {most}")
        return int(text)

    return read


def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Answers questions about a folder of documents, each with the file and the lines the answer comes "
        "from. Without arguments it reads this repository's own documents and asks a few questions about them. Answers "
        "are quoted word for word; no model is used and nothing is downloaded.",
        epilog="Example: rag.py docs --question 'What stops first?' --report run.json. "
        "Ctrl-C ends the reading, stores what was read and cleans up. The exit code is 0 when the job succeeded and "
        "left nothing behind, 130 after SIGINT, 143 after SIGTERM, 2 for wrong arguments, else 1.",
    )
    add = parser.add_argument
    add("folder", nargs="?", type=Path, help="folder to read; this repository's documents unless given")
    add("-q", "--question", action="append", type=question, metavar="TEXT", help="a question; may be repeated")
    add("--questions", metavar="FILE", help="a file of questions, one a line; - is standard input")
    add("--ext", help="extensions of the files to read, as md,rs,py; md,markdown,txt,rst,html,htm unless given")
    add("--parallelism", type=number(64), default=2, metavar="N", help="replicas of `index`, 1 to 64 (2)")
    add("--workers", choices=["processes", "ray"], help="have workers read, chunk and index; threads do unless given")
    add("--passages", type=number(RETRIEVED), default=5, metavar="N", help="passages an answer is from, 1 to 50 (5)")
    add("--report", type=Path, metavar="FILE", help="write the answers and the job's report to this file, as JSON")
    arguments = parser.parse_args(given)

    own = arguments.folder is None
    arguments.folder = Path(__file__).resolve().parents[2] if own else arguments.folder
    if not arguments.folder.is_dir():
        parser.error(f"`{arguments.folder}` is not a folder that can be read; give a folder, as in `rag.py docs`")
    arguments.ext = arguments.ext.split(",") if arguments.ext else ["md"] if own else EXTENSIONS
    arguments.question = list(arguments.question or [])
    if arguments.questions:
        try:
            text = sys.stdin.read() if arguments.questions == "-" else Path(arguments.questions).read_text("utf-8")
            arguments.question += [question(line.strip()) for line in text.splitlines() if line.strip()]
        except (OSError, ValueError, argparse.ArgumentTypeError) as error:
            parser.error(f"the questions in `{arguments.questions}` cannot be read: {error}")
    if not arguments.question and not own:
        parser.error("nothing to ask; give a question with --question, or a file of them with --questions")
    arguments.question = arguments.question or QUESTIONS
    return arguments


if __name__ == "__main__":
    sys.exit(run(parse()))
