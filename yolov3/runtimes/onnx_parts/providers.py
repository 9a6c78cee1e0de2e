"""Choose the execution provider of ONNX Runtime that runs a network here, and say what the better ones lack.

ONNX Runtime itself passes over a provider whose libraries it cannot load, and says so in many lines of its log.
"""

import contextlib
import ctypes
import importlib
import importlib.util
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from yolov3.checks import UserError

CPU = "CPUExecutionProvider"
TENSORRT, TENSORRT_RTX, CUDA = "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider", "CUDAExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
PROVIDERS = (TENSORRT, TENSORRT_RTX, CUDA, OPENVINO, "CoreMLExecutionProvider", "DmlExecutionProvider", CPU)
NVIDIA = (TENSORRT, TENSORRT_RTX, CUDA)
GPU_REQUIREMENTS = "pip install -r requirements/onnx-gpu.txt"
PLUGINS = {  # packages that bring a provider to any ONNX Runtime
    TENSORRT_RTX: "onnxruntime_ep_nv_tensorrt_rtx",
    OPENVINO: "onnxruntime_ep_openvino",
}
LIBRARIES = {  # the file in onnxruntime/capi that a provider is loaded from
    TENSORRT: "libonnxruntime_providers_tensorrt.so",
    CUDA: "libonnxruntime_providers_cuda.so",
}
SHARED = "libonnxruntime_providers_shared.so"
NO_GPU = "there is no NVIDIA GPU that it can use: nvidia-smi should list one (a container needs --gpus all)"
REMEDIES = (  # for a missing library, by the beginning of its name
    ("libcuda.", NO_GPU),
    ("libnv", f"it is in tensorrt-cu13: {GPU_REQUIREMENTS}"),
    ("lib", f"it is in onnxruntime-gpu[cuda,cudnn]: {GPU_REQUIREMENTS}"),
)
CACHE = "cache"  # the folder of engines within a checkpoint folder


class Profile(NamedTuple):
    """Say what TensorRT is to build engines for."""

    precision: str = "FP32"
    shape: tuple[int, ...] = ()  # of the input, without the batch
    batch_sizes: tuple[int, ...] = ()  # (): any; then each batch that is larger than those before takes a new engine
    workspace: int = 0  # MB; 0: as much as it wants


ANY = Profile()


def import_onnxruntime() -> ModuleType:
    """Return the package `onnxruntime`. Raises UserError if it is missing."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        problem = f"ONNX Runtime is not installed or cannot be loaded ({error})"
        raise UserError(problem, "pip install -r requirements/onnx.txt") from None
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0":
        runtime.set_default_logger_severity(4)  # failures raise exceptions, which say it, too
    return runtime


def open_session(
    file: Path, providers: Iterable[str], threads: int = 0, profile: Profile = ANY
) -> tuple[Any, str, list[str]]:
    """Return an InferenceSession of an ONNX file, the provider that runs it, and why those before it do not, in words.

    providers  by their names, best first; the CPU's is the last in any case
    threads    of the CPU; 0: as many as ONNX Runtime finds useful

    Raises UserError if the file cannot be loaded.
    """
    runtime = import_onnxruntime()
    problems: list[str] = []
    by_hand = not set(NVIDIA).issubset(providers)  # a list that has all of them is for any machine
    for provider in dict.fromkeys((*providers, CPU)):
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            chosen = _choose(runtime, provider, options, Path(file).parent, profile)
            if chosen is None:
                if by_hand:
                    problems.append(f"{provider} cannot be used: {not_installed(provider)}")
                continue
            session = runtime.InferenceSession(str(file), options, enable_fallback=0, **chosen)
        except UserError as error:
            problems.append(str(error))
            continue
        except Exception as error:  # of classes that a C++ library defines
            reason = _first_line(error)
            if provider == CPU:
                problem = f"{file} cannot be loaded by ONNX Runtime {runtime.__version__} ({reason})"
                raise UserError(problem, "convert again") from None
            problems.append(f"{provider} cannot be used ({reason})")
            continue
        if provider in session.get_providers():
            return session, provider, problems
        problems.append(
            f"{provider} cannot be used: {NO_GPU if provider in NVIDIA else 'ONNX Runtime does not say why'}"
        )
    raise AssertionError("the CPU provider is always there")


def not_installed(provider: str) -> str:
    """Return that a provider is not there, and how to install it."""
    if provider in (TENSORRT, CUDA):
        return f"it is in onnxruntime-gpu: {GPU_REQUIREMENTS}"
    package = PLUGINS.get(provider, "an onnxruntime for this system").replace("_", "-")
    return f"it is in {package}, which is not installed"


def _choose(runtime: Any, provider: str, options: Any, folder: Path, profile: Profile) -> dict[str, Any] | None:
    """Return the arguments that make a session use a provider; None if it is not installed.

    Raises UserError if it cannot be loaded.
    """
    if provider in runtime.get_available_providers():
        if provider in LIBRARIES:
            _load_libraries(runtime, provider)
        settings = _settings(provider, folder, profile)
        return {"providers": [(provider, settings)] + [(CPU, {})] * (provider != CPU)}
    if provider not in PLUGINS or importlib.util.find_spec(PLUGINS[provider]) is None:
        return None
    package = importlib.import_module(PLUGINS[provider])
    with contextlib.suppress(runtime.capi.onnxruntime_pybind11_state.Fail):  # it is registered already
        runtime.register_execution_provider_library(provider, package.get_library_path())
    devices = [device for device in runtime.get_ep_devices() if device.ep_name == provider]
    if not devices:
        reason = NO_GPU if provider in NVIDIA else "it finds no device that it takes"
        raise UserError(f"{provider} cannot be used: {reason}")
    options.add_provider_for_devices(devices[:1], _settings(provider, folder, profile))
    return {}


def _settings(provider: str, folder: Path, profile: Profile) -> dict[str, str]:
    """Return the options of a provider, by name. Engines are kept in the checkpoint folder, where possible."""
    if provider not in (TENSORRT, TENSORRT_RTX):
        return {}
    prefix, settings, cache = "trt" if provider == TENSORRT else "nv", {}, folder / CACHE
    with contextlib.suppress(OSError):
        cache.mkdir(exist_ok=True)
        settings = {"nv_runtime_cache_path": str(cache)}
        if provider == TENSORRT:
            settings = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache)}
            settings |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(cache)}
    if provider == TENSORRT and profile.precision in ("FP16", "INT8"):
        settings[f"trt_{profile.precision.lower()}_enable"] = "1"
    if profile.workspace:
        settings[f"{prefix}_max_workspace_size"] = str(profile.workspace * 2**20)
    if sizes := profile.batch_sizes:
        for name, size in (("min", min(sizes)), ("opt", sizes[0]), ("max", max(sizes))):
            settings[f"{prefix}_profile_{name}_shapes"] = f"images:{'x'.join(map(str, (size, *profile.shape)))}"
    return settings


def _load_libraries(runtime: Any, provider: str) -> None:
    """Load the libraries of a provider from NVIDIA's packages for pip, where the system does not look for them.

    Raises UserError that names a missing library and its package.
    """
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        runtime.preload_dlls()  # prints what is missing
    package = importlib.util.find_spec("tensorrt_libs") if provider == TENSORRT else None
    for place in (package and package.submodule_search_locations) or ():
        for file in sorted(Path(place).glob("libnv*.so.*")):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
    capi = Path(runtime.__file__).parent / "capi"
    if not (capi / LIBRARIES[provider]).is_file():  # Windows
        return
    try:
        ctypes.CDLL(str(capi / SHARED), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(capi / LIBRARIES[provider]))
    except OSError as error:
        missing = str(error).split(":")[0]
        remedy = next((remedy for start, remedy in REMEDIES if missing.startswith(start)), "reinstall onnxruntime-gpu")
        raise UserError(f"{provider} cannot be used: {missing} cannot be loaded", remedy) from None


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return re.sub(r"\s+", " ", text.splitlines()[0]).removeprefix("[ONNXRuntimeError] : ").rstrip(".")
