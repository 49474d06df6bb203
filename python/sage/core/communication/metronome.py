"""One of the names SAGE programs import."""

from sage._metronome import Metronome, create_metronome

__all__ = ["Metronome", "create_metronome"]
