"""One of the names SAGE programs import."""

from sage._config import load_config

__all__ = ["load_config"]
