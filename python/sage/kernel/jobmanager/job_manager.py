"""One of the names SAGE programs import."""

from sage._jobmanager import JobManager

__all__ = ["JobManager"]
