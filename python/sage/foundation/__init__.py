"""The functions, as SAGE programs import them."""

from sage._functions import *
from sage._functions import __all__ as _functions
from sage._io import PrintSink
from sage._logging import CustomLogger

__all__ = [*_functions, "CustomLogger", "PrintSink"]
