"""ONNX Runtime's providers: which one runs a file, and what is told of those that do not."""

from yolov3.runtimes.onnx_parts import providers
from yolov3.runtimes.onnx_parts.providers import CPU, Profile, import_onnxruntime, open_session

import pytest


class Runtime:
    """ONNX Runtime as it is with other providers; `works` are those whose sessions can be made."""

    def __init__(self, available, works):
        self.__version__, self.__file__, self.asked = "1.23", import_onnxruntime().__file__, []
        self.SessionOptions = import_onnxruntime().SessionOptions
        self.get_available_providers, self.works = lambda: [*available, CPU], [*works, CPU]
        self.preload_dlls = lambda: print("cannot load libcudnn.so.9")

    def InferenceSession(self, file, options, enable_fallback, providers):  # noqa: N802  its name
        name, settings = providers[0]
        self.asked.append((name, settings))
        if name == "broken":
            raise RuntimeError("[ONNXRuntimeError] : 11 : EP_FAIL : a reason.\nand more")
        session = type("Session", (), {})()
        session.get_providers = lambda: [x for x in (name, CPU) if x in self.works]
        return session


@pytest.fixture
def runtime(monkeypatch):
    def put(available, works=(), libraries=None):
        made = Runtime(available, works)
        monkeypatch.setattr(providers, "import_onnxruntime", lambda: made)
        monkeypatch.setattr(providers, "LIBRARIES", libraries or {})
        return made

    return put


def test_the_best_provider_that_works_runs(runtime, tmp_path):
    put = runtime(["CUDAExecutionProvider", "OpenVINOExecutionProvider"], ["OpenVINOExecutionProvider"])
    _, provider, problems = open_session(tmp_path / "x.onnx", providers.PROVIDERS)
    assert provider == "OpenVINOExecutionProvider"
    assert problems == ["CUDAExecutionProvider cannot be used: " + providers.NO_GPU]
    assert [name for name, _ in put.asked] == ["CUDAExecutionProvider", "OpenVINOExecutionProvider"]


@pytest.mark.parametrize(
    ("provider", "remedy"),
    [
        ("CUDAExecutionProvider", "it is in onnxruntime-gpu: pip install -r requirements/onnx-gpu.txt"),
        ("NvTensorRTRTXExecutionProvider", "it is in onnxruntime-ep-nv-tensorrt-rtx, which is not installed"),
        ("CoreMLExecutionProvider", "it is in an onnxruntime for this system, which is not installed"),
    ],
)
def test_a_provider_that_is_asked_for_and_not_installed_is_told(runtime, tmp_path, provider, remedy):
    runtime([])
    assert open_session(tmp_path / "x.onnx", [provider])[1:] == (CPU, [f"{provider} cannot be used: {remedy}"])
    assert open_session(tmp_path / "x.onnx", providers.PROVIDERS)[1:] == (CPU, [])


def test_a_provider_that_fails_is_told_in_one_line(runtime, tmp_path):
    runtime(["broken"])
    _, provider, problems = open_session(tmp_path / "x.onnx", ["broken"])
    assert (provider, problems) == (CPU, ["broken cannot be used (11 : EP_FAIL : a reason)"])


@pytest.mark.parametrize(
    ("needed", "remedy"),
    [
        ("libnvinfer.so.10", "it is in tensorrt-cu13: pip install -r requirements/onnx-gpu.txt"),
        ("libcudart.so.13", "it is in onnxruntime-gpu[cuda,cudnn]: pip install -r requirements/onnx-gpu.txt"),
        ("libcuda.so.1", "there is no NVIDIA GPU that it can use"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_package(runtime, monkeypatch, tmp_path, capfd, needed, remedy):
    """As the loader of the system says it, of a file that exists."""
    runtime(["TensorrtExecutionProvider"], libraries={"TensorrtExecutionProvider": "__init__.py"})

    def cannot_open(file, *_):
        if file.endswith("__init__.py"):
            raise OSError(f"{needed}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(providers.ctypes, "CDLL", cannot_open)
    _, provider, (problem,) = open_session(tmp_path / "x.onnx", providers.PROVIDERS)
    assert provider == CPU
    assert problem.startswith(f"TensorrtExecutionProvider cannot be used: {needed} cannot be loaded: {remedy}")
    assert capfd.readouterr().out == ""


def test_tensorrt_keeps_its_engines_in_the_checkpoint_folder(runtime, tmp_path):
    put = runtime(["TensorrtExecutionProvider"], ["TensorrtExecutionProvider"])
    profile = Profile("INT8", (416, 416, 3), (2, 8), 1024)
    _, provider, problems = open_session(tmp_path / "x.onnx", providers.PROVIDERS, 0, profile)
    assert (provider, problems) == ("TensorrtExecutionProvider", [])
    cache = str(tmp_path / "cache")
    assert put.asked == [
        (
            "TensorrtExecutionProvider",
            {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": cache,
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": cache,
                "trt_int8_enable": "1",
                "trt_max_workspace_size": str(2**30),
                "trt_profile_min_shapes": "images:2x416x416x3",
                "trt_profile_opt_shapes": "images:2x416x416x3",
                "trt_profile_max_shapes": "images:8x416x416x3",
            },
        )
    ]


def test_a_provider_of_a_package_of_its_own(runtime, monkeypatch, tmp_path):
    """As TensorRT-RTX comes; without a GPU it finds no device."""
    put = runtime([])
    put.capi = import_onnxruntime().capi
    registered = []
    put.register_execution_provider_library = lambda *pair: registered.append(pair)
    put.get_ep_devices = lambda: []
    (tmp_path / "onnxruntime_ep_nv_tensorrt_rtx.py").write_text("get_library_path = lambda: 'the library'")
    monkeypatch.syspath_prepend(str(tmp_path))
    _, provider, problems = open_session(tmp_path / "x.onnx", providers.PROVIDERS)
    assert registered == [("NvTensorRTRTXExecutionProvider", "the library")]
    assert (provider, problems) == (CPU, ["NvTensorRTRTXExecutionProvider cannot be used: " + providers.NO_GPU])
