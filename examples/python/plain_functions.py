"""A pipeline of plain functions: word counts of this repository's documents.

Run it with ``python examples/python/plain_functions.py [FOLDER]``.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sage import JobFailed, LocalEnvironment


def lines(folder: Path) -> Iterator[str]:
    """The lines of all Markdown files below a folder."""
    for file in sorted(folder.rglob("*.md")):
        yield from file.read_text(encoding="utf-8").splitlines()


def words(line: str) -> list[str]:
    """The words of a line, in small letters."""
    return [word.strip(".,:;()`*|#").lower() for word in line.split()]


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs"
    counts: Counter[str] = Counter()
    with LocalEnvironment("words") as env:
        long_words = env.from_batch(lines(folder)).flatmap(words).filter(lambda word: len(word) > 4)
        long_words.sink(lambda word: counts.update((word,)), name="count")
        try:
            env.submit(autostop=True)
        except JobFailed as failed:
            print(failed, file=sys.stderr)
            return 1
    for word, count in counts.most_common(5):
        print(f"{count:6} {word}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
