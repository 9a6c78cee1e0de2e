"""Put the project's root on Python's path. Every script in this folder imports this first, to run from anywhere."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
