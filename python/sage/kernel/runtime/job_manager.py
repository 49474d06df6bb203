"""One of the names SAGE programs import."""

from sage._jobmanager import JobManager

__all__ = ["JobManager"]

if __name__ == "__main__":
    from sage._command import daemon

    daemon()
