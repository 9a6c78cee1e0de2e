"""Follow by Deep SORT: give the objects that a detector finds numbers that stay with them from frame to frame.

It needs only NumPy and SciPy and works with any detector.
"""

from .options import OptionError, TrackerOptions
from .tracker import Track, Tracker

__all__ = ["OptionError", "Track", "Tracker", "TrackerOptions"]
