"""YOLOv3 and YOLOv4 in TensorFlow 2.

Importing the package imports TensorFlow and keeps it, OpenCV and FFmpeg from talking over a script's own lines.
Set TF_CPP_MIN_LOG_LEVEL=0 to hear them. It also keeps NumPy to one thread, if it comes before NumPy: OpenBLAS's threads
spin after every product, and the network beside them loses a third of its speed. A package that is missing, or a
configs.py that Python does not understand, ends a script here in one line.
"""

import difflib
import importlib.machinery
import importlib.util
import os
import sys
import traceback

NEEDED = {"tensorflow": "TensorFlow", "numpy": "NumPy", "cv2": "OpenCV", "tqdm": "tqdm"}  # by every script
IMPORTED_LATE = {"keras.visualization", "keras.src.visualization", "keras.wrappers"}  # no script uses them


class _Late(importlib.machinery.PathFinder):
    """Find modules of Keras that import Matplotlib and scikit-learn, and let them run only when they are first used.

    `detection_demo.py photo.jpg` takes 6.0 seconds instead of 6.5, and 7.2 instead of 8.8 where scikit-learn is
    installed, as NNCF requires (medians of 7 pairs).
    """

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target) if name in IMPORTED_LATE else None
        if spec:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def _check_installed():
    missing = [title for name, title in NEEDED.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"error: this Python ({sys.executable}) lacks {', '.join(missing)}: activate the environment first "
            r"(. .venv/bin/activate, on Windows .venv\Scripts\activate), or pip install -r requirements.txt"
        )


def _import_quietly():
    """Import TensorFlow, and with it Keras, without what `_Late` holds back.

    Standard error is closed meanwhile: recent versions write greetings to it at every log level.
    """
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    sys.meta_path.insert(0, _Late)
    try:
        import tensorflow  # noqa: F401
    except KeyboardInterrupt:  # it takes seconds
        raise SystemExit(130) from None
    finally:
        sys.meta_path.remove(_Late)
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _read_configs():
    """Import configs.py. What is wrong with it, or asked of it and not there, is told in one line."""
    try:
        from yolov3 import configs
    except SyntaxError as error:
        text = (error.text or "").strip()
        raise SystemExit(f"error: yolov3/configs.py line {error.lineno}: {error.msg}: {text}") from None
    except Exception as error:  # a name without quotes, a division by zero ...
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise SystemExit(f"error: yolov3/configs.py line {line.lineno}: {error}: {line.line}") from None

    def missing(name):
        if not name.isupper():
            raise AttributeError(name)
        near = difflib.get_close_matches(name, (x for x in vars(configs) if x.isupper()), 1)
        raise SystemExit(
            f"error: yolov3/configs.py does not have {name}: put the line back"
            + (f", or is it {near[0]}, misspelt?" if near else "")
        )

    configs.__getattr__ = missing


_check_installed()
_read_configs()
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    _import_quietly()
