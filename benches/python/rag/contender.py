"""One process of one round of P8: a line of JSON with the seconds outside of the embedder, and a hash of the answer."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
from importlib import import_module
from pathlib import Path
from time import perf_counter

from rag.documents import Wordllama, written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system")
    parser.add_argument("files", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("guide", type=Path, help="a text whose words the files are made of")
    arguments = parser.parse_args()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    embedder = Wordllama()
    questions = written(arguments.folder, arguments.guide, arguments.files)
    found = import_module(f"rag.{arguments.system}").found
    embedder.embed(questions[:10])
    gc.collect()
    embedder.seconds, begin = 0.0, perf_counter()
    answers = found(arguments.folder, questions, embedder)
    whole = perf_counter() - begin
    digests = [hashlib.sha256(answer.encode()).hexdigest()[:16] for answer in answers]
    line = {"seconds": whole - embedder.seconds, "embedder": embedder.seconds, "answers": digests}
    print(json.dumps(line), file=out, flush=True)


if __name__ == "__main__":
    main()
