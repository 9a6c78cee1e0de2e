"""TensorRT as far as it goes without a GPU: what is checked beforehand and said, what TF-TRT's converter is given, and
that a graph with engines in it survives being saved with both signatures. tests/gpu has the rest."""

import inspect
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace

from yolov3 import configs
from yolov3.boxes import decode
from yolov3.checkpoint import ModelSpec, read_about, read_model, write_about
from yolov3.checks import PROJECT, UserError
from yolov3.images import read_picture
from yolov3.loading import SHIPPED, Load_Yolo_model
from yolov3.networks import NETWORKS
from yolov3.runtimes import savedmodel, tftrt, tftrt_engines, trt
from yolov3.runtimes.common import folder_size, sample_images
from yolov3.runtimes.tf import freeze, keras_network
from yolov3.yolov4 import Create_Yolo

import Convert_to_TRT
import numpy as np
import pytest
import tensorflow as tf

SIZE = 160
HAS_TFTRT = bool(tf.sysconfig.get_build_info().get("is_tensorrt_build"))
needs_tftrt = pytest.mark.skipif(not HAS_TFTRT, reason="needs a TensorFlow with TF-TRT: 2.17.1")

# Of the operations that TF-TRT 2.17 has converters for, those that our networks are made of up to their raw heads
TAKEN = {
    *("AddV2", "AvgPool", "BiasAdd", "Cast", "ConcatV2", "Const", "Conv2D", "FusedBatchNormV3", "Identity"),
    *("LeakyRelu", "MaxPool", "Mul", "Pad", "ReadVariableOp", "Reshape", "ResizeNearestNeighbor", "Rsqrt"),
    *("Softplus", "Split", "Squeeze", "StridedSlice", "Sub", "Tanh"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The shipped model as a SavedModel -> its folder and Model."""
    folder = tmp_path_factory.mktemp("source")
    model = replace(read_model(PROJECT / SHIPPED), input_size=(SIZE, SIZE))
    savedmodel.save(folder, freeze(keras_network(model, PROJECT / SHIPPED), model.heads), model, 0.3, 0.45, 10**8)
    write_about(folder, model, SHIPPED, score_threshold=0.3, iou_threshold=0.45, max_pixels=10**8)
    return folder, model


@pytest.fixture
def picture(source):
    return sample_images(source[1])


class Bindings:
    """TensorFlow's answers about TensorRT."""

    def __init__(self, version=(8, 6, 1), enabled=True):
        self.get_linked_tensorrt_version = lambda: version
        self.is_tensorrt_enabled = lambda: enabled


def cannot_open(name):
    raise OSError(f"{name}: cannot open shared object file")


# --- The checks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def probes(monkeypatch):
    """Every question answered well; call it with other answers."""

    def answer(built=True, opened=None, gpus=("gpu",), details=None, free=8192.0, **bindings):
        details = details or {"device_name": "Tesla T4", "compute_capability": (7, 5)}
        monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: {"is_tensorrt_build": built})
        monkeypatch.setattr(tftrt, "open_library", opened or str)
        monkeypatch.setattr(tftrt, "_bindings", lambda: Bindings(**bindings))
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(gpus))
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
        monkeypatch.setattr(tftrt, "free_memory", lambda: free)

    return answer


BLACKWELL = {"device_name": "NVIDIA B200", "compute_capability": (10, 0)}
HOPPER = {"device_name": "NVIDIA H200", "compute_capability": (9, 0)}
UNFIT = {
    "built without": ({"built": False}, ["built without TF-TRT", "requirements/trt.txt", "25.02-tf2-py3"]),
    "library": ({"opened": cannot_open}, ["libnvinfer.so.8.6.1", "TensorRT 8.6.1", "requirements/trt.txt"]),
    "not found": ({"enabled": False}, ["does not find TensorRT 8.6.1", "LD_LIBRARY_PATH"]),
    "no GPU": ({"gpus": ()}, ["no NVIDIA GPU", "nvidia-smi", '"openvino"']),
    "too new": ({"details": BLACKWELL}, ["B200", "10.0", "up to 9.0", "25.02-tf2-py3"]),
    "memory": ({"free": 2000.0}, ["2000 MB free", "3072", "2048 of them YOLO_TRT_WORKSPACE"]),
}


@pytest.mark.parametrize(("answers", "parts"), UNFIT.values(), ids=UNFIT)
def test_what_is_missing_is_one_line_that_says_what_to_do(probes, answers, parts):
    probes(**answers)
    with pytest.raises(UserError) as error:
        tftrt.check_tensorrt(2048)
    assert len(str(error.value).splitlines()) == 1
    for part in parts:
        assert part in str(error.value)


def test_the_first_thing_missing_is_the_one_told(probes):
    told = []
    missing = {"built": False, "opened": cannot_open, "enabled": False, "gpus": (), "details": BLACKWELL, "free": 0.0}
    for name in list(missing):
        probes(**missing)
        with pytest.raises(UserError) as error:
            tftrt.check_tensorrt(2048)
        told.append(str(error.value))
        del missing[name]
    expected = ["built without", "libnvinfer", "does not find", "no NVIDIA GPU", "capability", "free"]
    assert all(part in line for part, line in zip(expected, told, strict=True))


def test_nothing_missing_is_silence(probes):
    for answers in ({}, {"details": HOPPER}, {"free": None}, {"details": BLACKWELL, "version": (10, 8, 0)}):
        probes(**answers)
        tftrt.check_tensorrt(2048)


def test_pips_libraries_are_to_be_linked_under_the_names_tensorflow_opens(probes, monkeypatch, tmp_path):
    (tmp_path / "tensorrt_libs").mkdir()
    (tmp_path / "tensorrt_libs" / "__init__.py").touch()
    for name in ("libnvinfer.so.8", "libnvinfer_plugin.so.8"):
        (tmp_path / "tensorrt_libs" / name).write_text(name)
    monkeypatch.syspath_prepend(str(tmp_path))
    probes(opened=cannot_open)
    with pytest.raises(UserError) as error:
        tftrt.check_tensorrt()
    command = str(error.value).split("): ")[1].removesuffix(", then start again")
    subprocess.run(command, shell=True, check=True)
    for name in ("libnvinfer", "libnvinfer_plugin"):
        assert (tmp_path / "tensorrt_libs" / f"{name}.so.8.6.1").read_text() == f"{name}.so.8"


@needs_tftrt
def test_tensorflow_opens_the_libraries_by_the_names_we_ask_for():
    asked = subprocess.run(
        [
            sys.executable,
            "-c",
            "from tensorflow.compiler.tf2tensorrt import _pywrap_py_utils as x; x.is_tensorrt_enabled()",
        ],
        env={"LD_DEBUG": "libs", "PATH": ""},
        capture_output=True,
        text=True,
    ).stderr
    for name in tftrt.libraries():
        assert f"find library={name} " in asked


@pytest.mark.slow
def test_without_tensorrt_script_and_detector_end_in_one_line(tmp_path):
    try:
        tftrt.check_tensorrt()
    except UserError as error:
        expected = str(error)
    else:
        pytest.skip("TensorRT is all there")
    ran = subprocess.run(
        [sys.executable, PROJECT / "tools" / "Convert_to_TRT.py", "--set", "YOLO_TRT_BACKEND=tftrt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (1, f"error: {expected}\n")

    model = replace(read_model(PROJECT / SHIPPED), framework="trt", precision="FP16")
    write_about(tmp_path, model, SHIPPED)
    with pytest.raises(UserError, match="TensorRT|TF-TRT"):
        Load_Yolo_model(weights=str(tmp_path))


@pytest.mark.parametrize(
    ("constant", "value", "part"),
    [
        ("YOLO_TRT_QUANTIZE_MODE", "INT4", "'INT8', 'FP16', 'FP32'"),
        ("YOLO_TRT_BACKEND", "ONNX", "None, 'onnx', 'tftrt'"),
        ("YOLO_TRT_WORKSPACE", 0.5, "whole number"),
        ("YOLO_TRT_BATCH_SIZES", 4, "(1, 8)"),
        ("YOLO_TRT_BATCH_SIZES", (), "(1, 8)"),
        ("YOLO_TRT_BATCH_SIZES", (1, 0), "1 or more"),
        ("YOLO_TRT_MIN_SEGMENT", 0, "1 or more"),
        ("YOLO_TRT_PORTABLE", "yes", "True, False"),
    ],
)
def test_a_wrong_constant_is_named(monkeypatch, constant, value, part):
    monkeypatch.setattr(configs, constant, value)
    monkeypatch.setattr(sys, "argv", ["Convert_to_TRT.py"])
    with pytest.raises(UserError, match=constant) as error:
        Convert_to_TRT.main.__wrapped__()
    assert part in str(error.value)


# --- What TF-TRT is given ------------------------------------------------------------------------------------------


def test_the_converter_takes_our_arguments():
    converter = tftrt.import_converter().TrtGraphConverterV2
    arguments = tftrt_engines.converter_arguments(
        "folder", "INT8", tftrt_engines.Options(batch_sizes=(1, 8), portable=True)
    )
    bound = inspect.signature(converter.__init__).bind(None, **arguments).arguments
    assert bound["max_workspace_size_bytes"] == 2**31
    assert bound["use_calibration"]
    inspect.signature(converter.convert).bind(None, calibration_input_fn=None)
    inspect.signature(converter.build).bind(None, input_fn=None)
    inspect.signature(converter.save).bind(None, output_saved_model_dir="", save_gpu_specific_engines=True)
    strategies = tftrt.import_converter().supported_profile_strategies()
    assert arguments["dynamic_shape_profile_strategy"] in strategies


def test_calibration_is_on_batches_of_one_size():
    inputs = [np.full((1, SIZE, SIZE, 3), i, np.float32) for i in range(5)]
    feed = tftrt_engines.batches(inputs, 2)
    for _ in range(2):  # TF-TRT may ask twice
        given = list(feed())
        assert [[x.shape for x in one] for one in given] == [[(2, SIZE, SIZE, 3)]] * 3
        assert all(one[0].dtype == np.float32 for one in given)
        assert [one[0][:, 0, 0, 0].tolist() for one in given] == [[0, 1], [2, 3], [4, 0]]
    assert [one[0].shape[0] for one in tftrt_engines.batches(inputs[:1], 3)()] == [3]
    assert [one[0].shape for one in tftrt_engines.of_each_size(inputs[0], (1, 4))()] == [
        (n, SIZE, SIZE, 3) for n in (1, 4)
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_tftrt_has_a_converter_for_all_of_every_network(name):
    """Up to the raw heads. Of what follows them it has none for FloorMod, and int32 arithmetic is not for it either."""
    network = Create_Yolo(64, name.split("-")[0], name.endswith("-tiny"), ("a", "b"), features=True)
    graph = tf.function(lambda x: network(x, training=False)).get_concrete_function(tf.TensorSpec((None, 64, 64, 3)))
    kinds = {x.type for x in graph.graph.get_operations()} - {"Placeholder", "NoOp"}
    assert kinds <= TAKEN
    if HAS_TFTRT:
        assert kinds <= tftrt.op_converters()
        boxes = tf.function(lambda heads: decode(heads, NETWORKS[name].heads))
        boxes = boxes.get_concrete_function([tf.TensorSpec(x.shape) for x in network.outputs[:-1]])
        left = {x.type for x in boxes.graph.get_operations()} - tftrt.op_converters() - {"Placeholder"}
        assert left == {"FloorMod"}


@needs_tftrt
def test_features_come_along(picture, tmp_path):
    model = replace(read_model(PROJECT / SHIPPED), input_size=(SIZE, SIZE), features=True)
    source, made = tmp_path / "source", tmp_path / "made"
    savedmodel.save(source, freeze(keras_network(model, PROJECT / SHIPPED), model.heads), model, 0.3, 0.45, 10**8)
    tftrt_engines.save_raw_heads(tmp_path / "heads", source, model)
    savedmodel.save(made, tftrt_engines.Converted(tmp_path / "heads", model), model, 0.3, 0.45, 10**8)
    ours, theirs = (savedmodel.load_network(folder, model)(picture) for folder in (made, source))
    for name in ("predictions", "features"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)


@needs_tftrt
def test_cut_at_the_raw_heads_and_put_together_again_it_answers_alike(source, picture, tmp_path):
    folder, model = source
    tftrt_engines.save_raw_heads(tmp_path / "heads", folder, model)
    raw = tf.saved_model.load(str(tmp_path / "heads")).signatures["serving_default"](images=picture)
    assert [raw[f"output_{i}"].shape for i in range(2)] == [(1, *shape) for shape in tftrt_engines.head_shapes(model)]
    assert np.allclose(decode([raw["output_0"], raw["output_1"]], model.heads), answers_of(folder, picture), atol=1e-5)

    savedmodel.save(tmp_path / "made", tftrt_engines.Converted(tmp_path / "heads", model), model, 0.3, 0.45, 10**8)
    shutil.rmtree(tmp_path / "heads")
    assert np.allclose(answers_of(tmp_path / "made", picture), answers_of(folder, picture), atol=1e-5)


def answers_of(folder, images):
    return savedmodel.load(folder)(images=images)["predictions"]


@pytest.fixture
def without_optimiser(monkeypatch):
    """All of TF-TRT's Python as it is; only TensorRT's own part, which needs a GPU, leaves the graph as it was.

    -> the inputs that TF-TRT asks for, as they come."""
    module, given = tftrt.import_converter(), []
    monkeypatch.setattr(module, "_check_trt_version_compatibility", lambda: None)
    monkeypatch.setattr(module.TrtGraphConverterV2, "_run_conversion", lambda self, graph: graph.graph_def)
    monkeypatch.setattr(module, "array_ops", OnGPU(module.array_ops))
    monkeypatch.setattr(module, "_convert_to_tensor", spy(module._convert_to_tensor, given))
    return given


class OnGPU:
    """A module whose zeros are on a GPU, by their own account."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, name)

    def zeros(self, shape):
        return type("Tensor", (), {"device": "GPU:0"})


@needs_tftrt
@pytest.mark.parametrize("portable", [True, False])
def test_tftrt_calibrates_builds_and_saves_what_it_is_given(source, picture, without_optimiser, tmp_path, portable):
    folder, model = source
    options = tftrt_engines.Options(batch_sizes=(2, 3), portable=portable)
    tftrt_engines.save_raw_heads(tmp_path / "heads", folder, model)
    arguments = tmp_path / "heads", tmp_path / "converted", "INT8", options, picture.numpy(), [picture.numpy()] * 5
    graph = tftrt_engines.convert(*arguments)
    assert tftrt_engines.share_of_engines(graph).outside["Conv2D"] == 21
    assert [x[0].shape[0] for x in without_optimiser][:5] == [2, 3, 2, 2, 2]  # profiles of two sizes, then calibration
    network = tftrt_engines.Converted(tmp_path / "converted", model)
    assert np.allclose(network(picture)["predictions"], answers_of(folder, picture), atol=1e-5)


@needs_tftrt
def test_a_folder_is_written_whole_and_run_by_the_detector(source, without_optimiser, monkeypatch, tmp_path):
    folder, model = source
    target, made = replace(model, framework="trt", precision="FP32"), tmp_path / "made"
    with pytest.raises(UserError, match="lower YOLO_TRT_MIN_SEGMENT"):  # no engine, as no TensorRT
        trt.write(made, folder, target)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(trt, "share_of_engines", lambda graph: tftrt_engines.Share(1, 1, Counter()))
    written = trt.write(made, folder, target, tftrt_engines.Options(batch_sizes=(1, 2)))
    assert written.worst < 1e-5
    assert folder_size(made) > 20
    about = read_about(made)
    assert (about["framework"], about["precision"], about["batch_sizes"]) == ("trt", "FP32", [1, 2])
    assert (about["portable"], about["score_threshold"], about["made_from"]) == (
        False,
        0.3,
        f"{folder}, made from {SHIPPED}",
    )

    monkeypatch.setattr(trt, "check_tensorrt", lambda: None)
    monkeypatch.setattr(configs, "YOLO_INPUT_SIZE", SIZE)
    detector = Load_Yolo_model(weights=str(made))
    frame = read_picture(PROJECT / "IMAGES" / "digits" / "00000.jpg", 10**8)
    files = savedmodel.load(made, "detect_bytes")
    answers = files(image_bytes=tf.constant([(PROJECT / "IMAGES" / "digits" / "00000.jpg").read_bytes()]))
    assert detector.spec.framework == "trt"
    assert len(detector([frame])[0]) == answers["valid_detections"][0]


def spy(function, arguments):
    def call(argument):
        arguments.append(argument)
        return function(argument)

    return call


# --- What comes of it ----------------------------------------------------------------------------------------------


class Engine(tf.saved_model.experimental.TrackableResource):
    """Kept as TF-TRT's are: a resource, filled from a file beside the graph when it is loaded. A table, for CPUs."""

    def __init__(self, name, file):
        super().__init__()
        self.name = name
        self.file = self._track_trackable(tf.saved_model.Asset(str(file)), "_file")
        assert self.resource_handle is not None  # made now, rather than within a graph

    def _create_resource(self):
        return tf.raw_ops.HashTableV2(shared_name=self.name, key_dtype=tf.int64, value_dtype=tf.float32)

    def _initialize(self):
        tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=self.resource_handle, filename=self.file.asset_path, key_index=-1, value_index=0
        )


def save_with_engine(folder, number, shapes):
    """A SavedModel kept as TF-TRT's are, whose raw heads are all one number, which its engine's file holds."""
    name = "TRTEngineOp_000_000"
    file = folder / f"trt-serialized-engine.{name}"
    file.write_text(f"{number}\n")
    module = tf.Module()
    module.trt_engine_resources = {name: Engine(name, file)}

    @tf.function(input_signature=[tf.TensorSpec((None, 64, 64, 3), tf.float32, "images")])
    def heads(images):
        table = module.trt_engine_resources[name].resource_handle
        keys, missing = tf.constant([0], tf.int64), tf.constant(-1.0)
        found = tf.raw_ops.LookupTableFindV2(table_handle=table, keys=keys, default_value=missing)
        return {f"output_{i}": tf.ones((tf.shape(images)[0], *shape)) * found for i, shape in enumerate(shapes)}

    tf.saved_model.save(module, str(folder / "saved"), {"serving_default": heads})
    file.unlink()
    return folder / "saved"


@needs_tftrt
def test_engines_are_saved_along_under_a_name_of_their_own(tmp_path):
    model = ModelSpec("yolov4", True, ("a", "b"), (64, 64), "letterbox", NETWORKS["yolov4-tiny"].heads)
    images, shapes = tf.zeros((2, 64, 64, 3)), tftrt_engines.head_shapes(model)
    saved = save_with_engine(tmp_path, 1.5, shapes)
    tftrt_engines.rename_engines(saved, "trt01234567")
    trt.elsewhere(trt.add_signatures, tmp_path / "made", saved, model, 0.3, 0.45, 10**8)
    shutil.rmtree(saved)
    engine = tmp_path / "made" / "assets" / "trt-serialized-engine.trt01234567_000_000"
    assert engine.read_text() == "1.5\n"
    assert b"TRTEngineOp_000_000" not in (tmp_path / "made" / "saved_model.pb").read_bytes()
    expected = decode([tf.fill((2, *shape), 1.5) for shape in shapes], model.heads)
    assert np.allclose(trt.elsewhere(trt.answer, tmp_path / "made", model, [images.numpy()])[0], expected)


def test_renaming_engines_leaves_the_kind_of_operation(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"TRTEngineOp TRTEngineOp_000_000 x/TRTEngineOp_000_001_native_segment")
    tftrt_engines.rename_engines(tmp_path, "trtaaaaaaaa")
    renamed = (tmp_path / "saved_model.pb").read_bytes()
    assert renamed == b"TRTEngineOp trtaaaaaaaa_000_000 x/trtaaaaaaaa_000_001_native_segment"


@needs_tftrt
def test_tensorflow_leaves_engines_names_as_they_are():
    """It renames whatever has a shared_name when it loads a graph; engines are found by a resource_name instead."""
    from tensorflow.compiler.tf2tensorrt.ops import gen_trt_ops

    parameters = inspect.signature(gen_trt_ops.create_trt_resource_handle).parameters
    assert "resource_name" in parameters
    assert "shared_name" not in parameters
    assert "shared_name" not in inspect.signature(gen_trt_ops.trt_engine_op).parameters


def test_the_report_counts_what_went_into_engines_and_says_why_the_rest_did_not():
    graph = tf.compat.v1.GraphDef()
    segment = graph.library.function.add()
    segment.signature.name = "TRTEngineOp_000_000_native_segment"
    for kind in ("Conv2D", "Const", "LeakyRelu", "Identity"):
        segment.node_def.add(op=kind)
    graph.node.add(op="TRTEngineOp").attr["segment_func"].func.name = segment.signature.name
    for kind in ("Placeholder", "Pad", "FloorMod", "FloorMod"):
        graph.node.add(op=kind)
    share = tftrt_engines.share_of_engines(graph)
    assert share == (1, 2, Counter(FloorMod=2, Pad=1))
    lines = tftrt_engines.report(share, supported={"Pad", "Conv2D"}, min_segment=3)
    assert lines[0] == "TensorRT: 2 of 5 operations up to the raw heads, in 1 engine"
    assert lines[2] == "TensorFlow: 2 FloorMod: TF-TRT has no converter for it"
    assert lines[3].startswith("TensorFlow: 1 Pad: fewer than YOLO_TRT_MIN_SEGMENT = 3")
