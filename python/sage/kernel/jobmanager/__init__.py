"""The job manager, as SAGE programs import it."""

from sage._jobmanager import JobManager

__all__ = ["JobManager"]
