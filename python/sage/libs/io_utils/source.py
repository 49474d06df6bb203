"""The sources of files, as SAGE programs import them."""

from sage._io import FileSource

__all__ = ["FileSource"]
