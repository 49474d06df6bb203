"""The sources of files and sockets, as SAGE programs import them."""

from sage._io import FileSource
from sage._sockets import SocketSource

__all__ = ["FileSource", "SocketSource"]
