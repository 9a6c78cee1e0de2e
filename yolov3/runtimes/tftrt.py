"""What TF-TRT, TensorFlow's own way into TensorRT, needs: checked before anything heavy.

TensorFlow opens TensorRT's libraries by name, at run time. Most of its own words for what is missing come late or end
the process, so the questions are asked here, each answered in one line that says what to do.
"""

import ctypes
import importlib.util
from pathlib import Path

from yolov3.checks import UserError

import tensorflow as tf

CONTAINER = "NVIDIA's container tensorflow:25.02-tf2-py3"
INSTALL = "pip install -r requirements/trt.txt in an environment of its own, of Python 3.10 or 3.11"
NEWEST_GPU = {(8, 5): (9, 0), (10, 8): (12, 0)}  # TensorRT, from that version on -> newest compute capability it knows
ROOM = 1024  # MB of GPU memory beside the workspace: weights, 258 MB at most, in TensorFlow and TensorRT, and cuDNN


def import_converter():
    from tensorflow.python.compiler.tensorrt import trt_convert

    return trt_convert


def check_tensorrt(workspace=0):
    """Raises UserError at the first thing that TF-TRT lacks; workspace: MB of GPU memory to build engines in."""
    check_build()
    check_library()
    check_found()
    check_gpu()
    check_memory(workspace)


# --- The checks, in their order: each is safe once those before it have passed ---------------------------------------


def check_build():
    if not tf.sysconfig.get_build_info().get("is_tensorrt_build"):
        raise UserError(
            f"TensorFlow {tf.__version__} is built without TF-TRT, which 2.17 was the last to have",
            f"{INSTALL}, or use {CONTAINER}",
        )


def check_library():
    for name in libraries():
        try:
            open_library(name)
        except OSError as error:
            raise UserError(f"{name} of TensorRT {version()} cannot be loaded ({error})", remedy()) from None


def check_found():
    if not _bindings().is_tensorrt_enabled():
        raise UserError(
            f"TensorFlow does not find TensorRT {version()}, though {libraries()[0]} can be loaded",
            "put its folder into LD_LIBRARY_PATH before Python starts",
        )


def check_gpu():
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise UserError(
            "TensorFlow sees no NVIDIA GPU, without which TensorRT cannot run",
            "nvidia-smi should list one (a container needs --gpus all); on a CPU use YOLO_FRAMEWORK = "
            '"openvino" or "tf"',
        )
    details = tf.config.experimental.get_device_details(gpus[0])
    capability = details.get("compute_capability", (0, 0))
    newest = newest_gpu(_bindings().get_linked_tensorrt_version())
    if capability > newest:
        raise UserError(
            f"{details.get('device_name', 'the GPU')} has compute capability {_dotted(capability)}, but TensorRT "
            f"{version()} knows GPUs up to {_dotted(newest)}",
            f'use {CONTAINER}, or YOLO_FRAMEWORK = "tf"',
        )


def check_memory(workspace):
    free = free_memory()
    if free is not None and free < workspace + ROOM:
        raise UserError(
            f"the GPU has {free:.0f} MB free, but it takes {workspace + ROOM}, {workspace} of them YOLO_TRT_WORKSPACE",
            "end what else runs on it (nvidia-smi lists it), or convert with a smaller workspace",
        )


# --- What they ask ---------------------------------------------------------------------------------------------------


def _bindings():
    from tensorflow.compiler.tf2tensorrt import _pywrap_py_utils

    return _pywrap_py_utils


def version():
    """Of the TensorRT that TensorFlow was built for; the one it has loaded is never asked for its version, since that
    ends the process if there is none."""
    return _dotted(_bindings().get_linked_tensorrt_version())


def op_converters():
    """The kinds of operation that TF-TRT can take."""
    return set(_bindings().get_registered_op_converters())


def libraries():
    """The files that TensorFlow opens, by these very names."""
    return [f"libnvinfer.so.{version()}", f"libnvinfer_plugin.so.{version()}"]


def open_library(name):
    """As TensorFlow does: where the system looks, or in the two folders beside its own that it looks in too."""
    packages = Path(tf.__file__).resolve().parent.parent
    places = [packages / folder / name for folder in ("tensorflow", "tensorrt")]
    return ctypes.CDLL(str(next((place for place in places if place.exists()), name)))


def remedy():
    """TensorRT's package for pip names its libraries by their first number only, so that TensorFlow finds none."""
    package = importlib.util.find_spec("tensorrt_libs")
    if package is None:
        return f"{INSTALL}; if it is installed, put its folder into LD_LIBRARY_PATH before Python starts"
    folder, major = package.submodule_search_locations[0], version().split(".")[0]
    links = [f"ln -sf {name.removesuffix(version())}{major} {name}" for name in libraries()]
    return " && ".join([f"cd {folder}", *links, f"export LD_LIBRARY_PATH={folder}"]) + ", then start again"


def newest_gpu(tensorrt):
    """TensorRT's version -> the newest compute capability that it knows."""
    return max((gpu for since, gpu in NEWEST_GPU.items() if since <= tuple(tensorrt)), default=(8, 6))


def free_memory():
    """MB free on the GPU that TensorFlow takes, the first one; None if its driver does not say.

    Asked of the driver: it counts what other processes hold, and heeds CUDA_VISIBLE_DEVICES, as nvidia-smi does not.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    if cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0):
        return None
    cuda.cuCtxPushCurrent_v2(context)
    failed = cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
    cuda.cuDevicePrimaryCtxRelease_v2(0)
    return None if failed else free.value / 2**20


def _dotted(numbers):
    return ".".join(map(str, numbers))
