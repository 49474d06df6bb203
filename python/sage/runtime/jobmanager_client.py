"""One of the names SAGE programs import."""

from sage._jobmanager_client import JobManagerClient

__all__ = ["JobManagerClient"]
