"""YOLOv3 and YOLOv4 in TensorFlow 2.

Importing the package imports TensorFlow and keeps it, OpenCV and FFmpeg from talking over a script's own lines.
Set TF_CPP_MIN_LOG_LEVEL=0 to hear them. It also keeps NumPy to one thread, if it comes before NumPy: OpenBLAS's threads
spin after every product, and the network beside them loses a third of its speed.
"""

import os


def _import_quietly():
    """Recent TensorFlow writes its greetings past every log level, straight to the process's standard error."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow  # noqa: F401
    except KeyboardInterrupt:  # it takes seconds
        raise SystemExit(130) from None
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    _import_quietly()
