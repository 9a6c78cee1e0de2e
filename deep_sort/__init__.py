"""Deep SORT: give the objects that a detector finds numbers that stay with them from frame to frame.

It needs NumPy and SciPy only and knows nothing of any detector.
"""

from .options import OptionError, TrackerOptions
from .tracker import Track, Tracker

__all__ = ["OptionError", "Track", "Tracker", "TrackerOptions"]
