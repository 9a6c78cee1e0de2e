"""The window of --show."""

import subprocess
import sys
import threading

import cv2
import numpy as np

TITLE = "YOLO (q to quit)"


class Window:
    """Shows the newest picture. Any thread may call `put`, only the main one `poll`, as GUIs want it."""

    def __init__(self):
        self._newest = None
        self._lock = threading.Lock()

    def put(self, picture: np.ndarray) -> None:
        """Keep a picture, uint8 (H, W, 3), RGB, for the next `poll`."""
        with self._lock:
            self._newest = picture

    def poll(self, milliseconds: int = 1) -> bool:
        """Show what was put last; return True once `q` is pressed. 0 waits for a key."""
        with self._lock:
            picture, self._newest = self._newest, None
        if picture is not None:
            cv2.imshow(TITLE, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(milliseconds) & 0xFF == ord("q")

    def close(self) -> None:
        cv2.destroyAllWindows()


def open_window() -> Window | None:
    """Return a Window, or None, said in one line, where there is not a display. A child process tries it first, since
    Qt ends the process that fails."""
    probe = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"
    if subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0:
        return Window()
    print("--show: this computer does not have a display; going on without a window", file=sys.stderr)
    return None
