"""The functions and their signal, as SAGE programs import them."""

from sage._functions import *
from sage._functions import __all__ as _functions
from sage._packet import StopSignal

__all__ = [*_functions, "StopSignal"]
