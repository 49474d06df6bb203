"""The step that cuts texts, as SAGE programs import it."""

from sage._loaders import CharacterSplitter

__all__ = ["CharacterSplitter"]
