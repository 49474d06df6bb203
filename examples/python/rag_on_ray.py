"""Reads thousands of files three times and asks the same questions: on threads, in worker processes, and in actors of a
Ray cluster of two nodes. It is one program, ``rag.py``, with one word of difference.

The cluster is begun here, on this machine, and ended here. On a cluster that runs, start ``rag.py --workers ray`` by
``ray job submit``; its nodes must have the folder.
"""

from __future__ import annotations

import argparse
import logging
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rag
import ray
from ray.cluster_utils import Cluster

from sage import JobFailed

QUESTIONS = ["How is an actor restarted?", "How is a requirement parsed?", "What does a placement group reserve?"]


@contextmanager
def cluster(nodes: int) -> Iterator[None]:
    """A Ray cluster on this machine. Each of its nodes has room for two workers."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            made.add_node(num_cpus=2)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()
    finally:
        made.shutdown()


def answers(where: str, arguments: list[str]) -> rag.Notes:
    """Runs the demo there, and tells how it went."""
    print(f"── {where}")
    option = [] if where == "threads" else ["--workers", where]
    begun = time.perf_counter()
    notes, report = rag.answered(rag.parse([*arguments, *option]))
    print(f"{notes.documents} documents, {notes.passages} passages in {time.perf_counter() - begun:.1f} s")
    workers = report.data["workers"]
    left = [worker["pid"] for worker in workers if Path(f"/proc/{worker['pid']}").exists()]
    services = ", ".join(f"{name} {service['state']}" for name, service in report.services.items())
    print(f"the job {report.data['outcome']} and is {report.data['cleanliness']}: {services}")
    print(f"{len(workers)} workers, of which {len(left)} are left\n")
    if left:
        raise RuntimeError(f"processes are left: {left}")
    return notes


def main() -> int:
    parser = argparse.ArgumentParser(description="Asks the same of a folder on threads, in processes and on Ray.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_path("purelib")))
    parser.add_argument("--ext", default="py", help="extensions of the files to read, as md,py (py)")
    parser.add_argument("-q", "--question", action="append", metavar="TEXT", help="a question; may be repeated")
    given = parser.parse_args()
    asked = [word for question in given.question or QUESTIONS for word in ("-q", question)]
    arguments = [str(given.folder), "--ext", given.ext, *asked]
    try:
        first, *others = [answers(where, arguments) for where in ("threads", "processes")]
        with cluster(2):
            print(f"a Ray cluster of {len(ray.nodes())} nodes")
            others.append(answers("ray", arguments))
    except JobFailed as failed:
        print(f"error: {failed}", file=sys.stderr)
        return 1
    if any((other.answers, other.passages) != (first.answers, first.passages) for other in others):
        print("error: the answers differ", file=sys.stderr)
        return 1
    print("The answers are equal.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
