"""Answers questions about a folder of documents, each with the file and the lines the answer comes from.

It is ``examples/rag.rs`` in Python, with the same options: one job, with the engine's services and one written here.

    walk ─ read ─ note ─ chunk ─ plan ─┬─ embed ─┬─ upsert ─ count ─ sweep ─ retrieve ─ answer ─ print
                                       └─ embed ─┘

``embedder``, ``store`` and ``ingest`` are the engine's own and compute without the interpreter's lock, so two replicas
of ``embed`` use two cores. ``finder`` is written in Python (``rag_services.py``) and calls the others. ``plan`` looks
up what the store has of a document already, so that only what changed is embedded, and ``sweep`` deletes what is gone.
The questions are asked when the last passage is stored, because ``count`` gives its one record at the end of its input;
a signal before that ends the walk, nothing is deleted, and no question is asked of half an index.

With ``--workers``, ``read`` and ``chunk`` run in processes of their own, or in actors of a Ray cluster, whose nodes
must have the folder. The services stay here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import rag_chat
from rag_services import RETRIEVED, Told, add_arguments, answering, check, number, services
from sage import BatchFunction, JobFailed, LocalEnvironment, RemoteEnvironment, Report
from sage.services import Chunker, DocumentText, Hit, Passage, Plan, Record, documents, read_document

#: Asked when no folder is given.
QUESTIONS = [
    "In which order do services start and stop?",
    "What happens on the first SIGINT?",
    "What does clean mean?",
    "What happens when a cleanup hangs?",
    "How does the engine know that the input has ended?",
]
#: Read in a folder that is given.
EXTENSIONS = ["md", "markdown", "txt", "rst", "html", "htm", "csv", "jsonl", "pdf", "docx"]
#: Documents whose passages are looked up, embedded and stored at once.
BATCH = 16


@dataclass
class Document:
    """What was read of a file, or what kept it from being read."""

    name: str
    text: DocumentText | None = None
    trouble: str = ""


@dataclass
class Notes:
    """Notes that the functions of this process take beside their records. Only one task changes each number."""

    documents: int = 0
    passages: int = 0
    embedded: int = 0
    deleted: int = 0
    passed_over: int = 0
    not_utf8: int = 0
    all_read: bool = False
    has_gaps: bool = False
    named: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def miss(self, error: OSError) -> None:
        # Documents in a folder that cannot be read are not gone.
        self.has_gaps = True
        self.pass_over(error)

    def pass_over(self, error: Exception | str) -> None:
        self.passed_over += 1
        self.named.append(f"passed over: {error}")

    def show(self, answered: Told) -> None:
        question, answer = answered
        told = {name: getattr(answer, name, None) for name in ("path", "first_line", "last_line", "coverage")}
        self.answers.append({"question": question, "answer": answer.text if answer else None, **told})
        print(f"Q: {question}")
        if answer is None:
            print("A: no document answers this\n")
            return
        last = "" if answer.last_line == answer.first_line else f"-{answer.last_line}"
        print(f"A: {answer.text}\n   {answer.path}:{answer.first_line}{last}")
        print("".join(f"   {note}\n" for note in getattr(answer, "notes", ())))


class Walk(BatchFunction):
    """The paths of the documents. It is made where the job runs, so that the job may run anywhere."""

    def __init__(self, folder: Path, extensions: list[str], notes: Notes) -> None:
        self.notes = notes
        self.paths = documents(folder, extensions, on_error=notes.miss)

    def execute(self) -> str | None:
        path = next(self.paths, None)
        self.notes.all_read = path is None
        return path


def declare(env: LocalEnvironment | RemoteEnvironment, arguments: argparse.Namespace, notes: Notes) -> None:
    """Declares the services and the stream. Raises ``OSError`` or ``ValueError`` for a model that cannot be used."""
    asked = services(env, arguments)
    answer = answering(env, arguments, asked.words)
    store, ingest, finder = asked.store, asked.ingest, asked.finder
    typed = rag_chat.declare(env, arguments, finder, answer, notes.show) if arguments.chat else None
    folder: Path = arguments.folder
    workers: Literal["processes", "ray"] | None = arguments.workers
    at_once: dict[str, Any] = {} if arguments.llm == "none" else {"in_flight": arguments.in_flight}
    chunker = Chunker()

    def read(path: str) -> Document:
        # A name need not be UTF-8.
        name = os.fsencode(Path(path).relative_to(folder)).decode("utf-8", "replace")
        try:
            return Document(name, read_document(path))
        except (OSError, ValueError) as error:
            return Document(name, trouble=str(error))

    def note(document: Document) -> bool:
        if document.text is None:
            notes.pass_over(document.trouble)
            ingest.keep(document.name)
            return False
        if not document.text.is_utf8:
            notes.not_utf8 += 1
            notes.named.append(f"read with U+FFFD in the place of what is not UTF-8: `{document.name}`")
        notes.documents += 1
        return True

    def chunk(document: Document) -> list[Passage]:
        return chunker.chunk_document(document.name, document.text or DocumentText(""))

    def plan(passages: list[list[Passage]]) -> Plan:
        return ingest.plan(store, passages)

    def upsert(embedded: tuple[list[Record], int, int]) -> list[int]:
        records, there, changed = embedded
        if records:
            store.upsert_batch(records)
        notes.embedded += changed
        return [1] * there

    def sweep(stored: int) -> list[str]:
        notes.passages = stored
        if typed is not None:
            typed.begin()
        if not (stored and notes.all_read):
            return []
        notes.deleted = 0 if notes.has_gaps else ingest.sweep(store)
        questions: list[str] = arguments.question
        return questions

    def retrieve(question: str) -> tuple[str, list[Hit]]:
        return question, finder.find(question)

    (
        env.from_batch(Walk, folder, arguments.ext, notes, name="walk")
        .map(read, name="read", workers=workers)
        .filter(note, name="note")
        .map(chunk, name="chunk", workers=workers)
        .batch(BATCH)
        .map(plan, name="plan")
        .map(asked.embed, parallelism=arguments.parallelism, name="embed")
        .flatmap(upsert, name="upsert")
        .count()
        .flatmap(sweep, name="sweep")
        .map(retrieve, name="retrieve")
        .map(answer, name="answer", **at_once)
        .sink(notes.show, name="print")
    )


def summarise(report: Report, notes: Notes) -> None:
    some = f" ({notes.embedded} embedded, the others as they were; {notes.deleted} deleted)"
    passages = f"{notes.passages} passages stored" + (
        some if notes.embedded < notes.passages or notes.deleted else ""
    )
    print(f"{notes.documents} documents read, {passages}, {len(notes.answers)} questions asked")
    for trouble in notes.named[:10]:
        print(f"  {trouble}")
    if len(notes.named) > 10:
        print(f"  and {len(notes.named) - 10} more")
    policies = [service["policy"] for service in report.services.values() if service.get("policy")]
    for call in [call for policy in policies for call in (policy.get("journal") or {}).get("begun_not_ended", ())]:
        print(f"call {call} was out when an earlier run was killed; it may have been made twice")
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
    except (JobFailed, OSError, ValueError) as failed:
        print(f"error: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Everything is stopped and cleaned by now.
        print("stopped before all questions were answered", file=sys.stderr)
        return 130
    summarise(report, notes)
    if arguments.report:
        told = {"answers": notes.answers, "documents": notes.documents, "passages": notes.passages}
        told |= {"embedded": notes.embedded, "deleted": notes.deleted}
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


def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Answers questions about a folder of documents, each with the file and the lines the answer comes "
        "from. Without arguments it reads this repository's own documents and asks a few questions about them. Answers "
        "are quoted word for word; no model is used and nothing is downloaded. With --llm, a language model answers "
        "from the passages that were found.",
        epilog="Example: rag.py docs --question 'What stops first?' --report run.json. "
        "Ctrl-C ends the reading, stores what was read and cleans up. The exit code is 0 when the job succeeded and "
        "left nothing behind, 130 after SIGINT, 143 after SIGTERM, 2 for wrong arguments, else 1.",
    )
    add = parser.add_argument
    add("folder", nargs="?", type=Path, help="folder to read; this repository's documents unless given")
    add("-q", "--question", action="append", type=question, metavar="TEXT", help="a question; may be repeated")
    add("--questions", metavar="FILE", help="a file of questions, one a line; - is standard input")
    add("--ext", help=f"extensions of the files to read, as md,rs,py; {','.join(EXTENSIONS)} unless given")
    add("--parallelism", type=number(64), default=2, metavar="N", help="replicas of `embed`, 1 to 64 (2)")
    add("--workers", choices=["processes", "ray"], help="have workers read and chunk; threads do unless given")
    add("--passages", type=number(RETRIEVED), default=5, metavar="N", help="passages an answer is from, 1 to 50 (5)")
    add("--report", type=Path, metavar="FILE", help="write the answers and the job's report to this file, as JSON")
    add_arguments(parser)
    rag_chat.add_arguments(parser)
    arguments = parser.parse_args(given)
    check(parser, arguments)
    rag_chat.check(parser, arguments)

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
    if arguments.chat:
        return arguments
    if not arguments.question and not own:
        parser.error("nothing to ask; give a question with --question, or a file of them with --questions")
    arguments.question = arguments.question or QUESTIONS
    return arguments


if __name__ == "__main__":
    sys.exit(run(parse()))
