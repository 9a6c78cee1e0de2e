"""Check all that TF-TRT, TensorFlow's interface to TensorRT, needs, before any long work begins.

TensorFlow opens TensorRT's libraries by name, at run time. If something is missing, it mostly says so late or ends the
process. The checks here say it in one line, with the remedy.
"""

import ctypes
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from yolov3.checks import UserError

import tensorflow as tf

CONTAINER = "NVIDIA's container tensorflow:25.02-tf2-py3"
INSTALL = "pip install -r requirements/trt.txt in an environment of its own, of Python 3.10 or 3.11"
NEWEST_GPU = {(8, 5): (9, 0), (10, 8): (12, 0)}  # highest compute capability of TensorRT from that version on
ROOM = 1024  # MB of GPU memory beside the workspace: weights, 258 MB at most, in TensorFlow and TensorRT, and cuDNN


def import_converter() -> ModuleType:
    """Return TF-TRT's converter. The import also registers TRTEngineOp, the operation that runs an engine."""
    from tensorflow.python.compiler.tensorrt import trt_convert

    return trt_convert


def check_tensorrt(workspace: int = 0) -> None:
    """Raise UserError for the first thing that TF-TRT lacks.

    workspace  MB of GPU memory to build engines in
    """
    check_build()
    check_library()
    check_found()
    check_gpu()
    check_memory(workspace)


# --- The checks, in their order: each relies on those before it ------------------------------------------------------


def has_tftrt() -> bool:
    """Return whether TensorFlow was built with TF-TRT."""
    return bool(tf.sysconfig.get_build_info().get("is_tensorrt_build"))


def check_build() -> None:
    """Raise UserError if TensorFlow was built without TF-TRT."""
    if not has_tftrt():
        raise UserError(
            f"TensorFlow {tf.__version__} is built without TF-TRT, which 2.17 was the last to have",
            f"convert again with YOLO_TRT_BACKEND = None; or {INSTALL}; or use {CONTAINER}",
        )


def check_library() -> None:
    """Raise UserError if a library of TensorRT cannot be loaded."""
    for name in libraries():
        try:
            open_library(name)
        except OSError as error:
            raise UserError(f"{name} of TensorRT {version()} cannot be loaded ({error})", remedy()) from None


def check_found() -> None:
    """Raise UserError if TensorFlow does not find TensorRT's libraries."""
    if not _bindings().is_tensorrt_enabled():
        raise UserError(
            f"TensorFlow does not find TensorRT {version()}, though {libraries()[0]} can be loaded",
            "put its folder into LD_LIBRARY_PATH before Python starts",
        )


def check_gpu() -> None:
    """Raise UserError if there is not a GPU that TensorRT supports."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise UserError(
            "TensorFlow finds no NVIDIA GPU, without which TensorRT cannot run",
            'nvidia-smi should list one (containers need --gpus all); on a CPU use YOLO_FRAMEWORK = "openvino" or "tf"',
        )
    details = tf.config.experimental.get_device_details(gpus[0])
    capability = details.get("compute_capability", (0, 0))
    newest = newest_gpu(_bindings().get_linked_tensorrt_version())
    if capability > newest:
        raise UserError(
            f"{details.get('device_name', 'the GPU')} has compute capability {_dotted(capability)}, but TensorRT "
            f"{version()} supports GPUs up to {_dotted(newest)}",
            f'use {CONTAINER}, or YOLO_FRAMEWORK = "tf"',
        )


def check_memory(workspace: int) -> None:
    """Raise UserError if too little GPU memory is free."""
    free = free_memory()
    needed = workspace + ROOM
    if free is not None and free < needed:
        raise UserError(
            f"the GPU has {free:.0f} MB free, but {needed} are needed, {workspace} of them YOLO_TRT_WORKSPACE",
            "end other programs on it (nvidia-smi lists them), or convert with a smaller workspace",
        )


# --- What the checks ask ---------------------------------------------------------------------------------------------


def _bindings():
    from tensorflow.compiler.tf2tensorrt import _pywrap_py_utils

    return _pywrap_py_utils


def version() -> str:
    """Return the version of the TensorRT that TensorFlow was built for.

    TensorFlow must not be asked for the version that it has loaded: without one, that ends the process.
    """
    return _dotted(_bindings().get_linked_tensorrt_version())


def op_converters() -> set[str]:
    """Return the kinds of operations that TF-TRT can convert."""
    return set(_bindings().get_registered_op_converters())


def libraries() -> list[str]:
    """Return the names of the library files that TensorFlow opens."""
    return [f"libnvinfer.so.{version()}", f"libnvinfer_plugin.so.{version()}"]


def open_library(name: str) -> ctypes.CDLL:
    """Open a library as TensorFlow does: in the folders of the system, or in two folders beside its own."""
    packages = Path(tf.__file__).resolve().parent.parent
    places = [packages / folder / name for folder in ("tensorflow", "tensorrt")]
    return ctypes.CDLL(str(next((place for place in places if place.exists()), name)))


def remedy() -> str:
    """Return what helps if a library cannot be loaded.

    The names in TensorRT's pip package end in the first number of the version, so TensorFlow does not find them.
    """
    package = importlib.util.find_spec("tensorrt_libs")
    if package is None:
        return f"{INSTALL}; if it is installed, put its folder into LD_LIBRARY_PATH before Python starts"
    folder, major = (package.submodule_search_locations or [""])[0], version().split(".")[0]
    links = [f"ln -sf {name.removesuffix(version())}{major} {name}" for name in libraries()]
    return " && ".join([f"cd {folder}", *links, f"export LD_LIBRARY_PATH={folder}"]) + ", then start again"


def newest_gpu(tensorrt: Iterable[int]) -> tuple[int, int]:
    """Return the highest compute capability that a version of TensorRT supports."""
    return max((gpu for since, gpu in NEWEST_GPU.items() if since <= tuple(tensorrt)), default=(8, 6))


def free_memory() -> float | None:
    """Return the MB that are free on the first GPU, which TensorFlow uses, or None if its driver does not say.

    The driver counts what other processes hold and, unlike nvidia-smi, follows CUDA_VISIBLE_DEVICES.
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
