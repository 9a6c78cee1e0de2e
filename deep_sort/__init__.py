"""Deep SORT: numbers that stay with the objects a detector finds. Needs NumPy and SciPy, knows no detector."""

from .tracker import Track, Tracker

__all__ = ["Track", "Tracker"]
