"""The function classes, as SAGE programs import them."""

from sage._functions import *
from sage._functions import __all__ as __all__
