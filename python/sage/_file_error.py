"""What is wrong with a file of the program's: each error names the file, and the line if there is one."""

from __future__ import annotations

from typing import Any


class FileError(ValueError):
    """A file cannot be read as what it is said to be, or a record cannot be written to it.

    ``path`` is the file; ``line`` is the number of the line or of the record in it, from 1, or ``None``; ``why`` says
    what is wrong. Errors of the system, such as a file that is not there, are ``OSError`` as elsewhere.

    >>> env = LocalEnvironment("numbers")
    >>> _ = env.from_batch([{"n": float("nan")}]).to_jsonl("/dev/null")
    >>> try:
    ...     env.submit(autostop=True)
    ... except JobFailed as failed:
    ...     print(failed.__cause__)
    /dev/null: record 1: the field `n` cannot be written: JSON has no form for nan; `None` is written as null
    """

    def __init__(self, path: str, why: str, line: int | None = None) -> None:
        super().__init__(f"{path if line is None else f'{path}, line {line}'}: {why}")
        self.path, self.why, self.line = path, why, line

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.why, self.line)


class BadLine(FileError):
    """A line of a file is not what the file's format says. ``on_error`` of the reader says what becomes of it.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "in.jsonl")
    >>> with open(path, "w") as file:
    ...     _ = file.write("[1, 2]\\n[3\\n")
    >>> env = LocalEnvironment("lists")
    >>> lists = env.from_jsonl(path).collect()
    >>> try:
    ...     env.submit(autostop=True)
    ... except JobFailed as failed:
    ...     failed.__cause__.line, failed.__cause__.why
    (2, "not JSON: Expecting ',' delimiter, at character 3")
    """
