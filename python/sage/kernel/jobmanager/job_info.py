"""One of the names SAGE programs import."""

from sage._jobmanager import JobInfo

__all__ = ["JobInfo"]
