"""ONNX: files that answer as TensorFlow does, what is in them, and what is refused."""

import json
import shutil
import sys
from dataclasses import replace

from yolov3 import configs
from yolov3.boxes import decode, suppress
from yolov3.cfg.network import read_network
from yolov3.checkpoint import ModelSpec, read_about, read_model
from yolov3.checks import PROJECT, UserError
from yolov3.conversion import read_served
from yolov3.darknet import load_yolo_weights
from yolov3.images import read_picture
from yolov3.loading import SHIPPED, Load_Yolo_model
from yolov3.networks import NETWORKS
from yolov3.runtimes import RUNTIMES, onnx, savedmodel, trt
from yolov3.runtimes.common import folder_name, sample_images
from yolov3.runtimes.onnx_parts import int8, providers
from yolov3.runtimes.onnx_parts.graph import import_onnx
from yolov3.runtimes.onnx_parts.model import build_model
from yolov3.runtimes.onnx_parts.providers import CPU, Profile, import_onnxruntime, open_session
from yolov3.runtimes.tf import keras_network
from yolov3.yolov4 import make_model

import cfgs
import Convert_to_ONNX
import Convert_to_pb
import Convert_to_TRT
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from oracle import random_weights

SIZE = 160
CLASSES = ("a", "b", "c")
CFGS = {"mixed": cfgs.MIXED, "one head": cfgs.ONE_HEAD, "new_coords": cfgs.NEW_COORDS}
LOW = {"score_threshold": 0.05, "iou_threshold": 0.45, "class_agnostic": False}


def run(model, images, names=None):
    """What ONNX Runtime's CPU provider answers for a model, {name: array}."""
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=[CPU])
    names = names or [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def random_network(name, tmp_path, size=(64, 96), features=True):
    """A network of the table or of a cfg with random weights -> its Keras model and ModelSpec."""
    if name in CFGS:
        (tmp_path / "mine.cfg").write_text(CFGS[name])
        row = read_network(tmp_path / "mine.cfg")
        classes = CLASSES[: row.cfg.classes]
    else:
        row, classes = NETWORKS[name], CLASSES
    network = make_model(row, size, len(classes), features)
    load_yolo_weights(network, random_weights(network, tmp_path / "random.weights"))
    facts = {"features": features, "cfg": row.text}
    return network, ModelSpec(row.type, row.tiny, classes, size, "letterbox", row.heads, "onnx", **facts)


def pictures(count):
    return np.random.RandomState(count).randint(0, 256, (count, 64, 96, 3), np.uint8)


@pytest.fixture
def convert(monkeypatch, tmp_path):
    """convert("pb" or "onnx", constants ...), in a checkpoints folder that is empty at first."""
    monkeypatch.setattr(configs, "TRAIN_CHECKPOINTS_FOLDER", str(tmp_path))
    monkeypatch.setattr(configs, "YOLO_INPUT_SIZE", SIZE)
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", SHIPPED)

    def call(target, *arguments, **constants):
        for name, value in constants.items():
            monkeypatch.setattr(configs, name, value)
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        {"pb": Convert_to_pb, "onnx": Convert_to_ONNX}[target].main.__wrapped__()

    return call


@pytest.fixture(scope="module")
def made(shipped_saved_model, tmp_path_factory):
    """A folder of checkpoints that nobody writes into: the shipped model as a SavedModel, as ONNX in FP32 and FP16, and
    for TensorRT in INT8."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        constants = {"TRAIN_CHECKPOINTS_FOLDER": str(folder), "YOLO_INPUT_SIZE": SIZE, "YOLO_CUSTOM_WEIGHTS": SHIPPED}
        calibration = {"YOLO_CALIBRATION_IMAGES": str(PROJECT / "IMAGES/digits"), "YOLO_CALIBRATION_COUNT": 12}
        tensorrt = {"YOLO_TRT_BACKEND": "onnx", "YOLO_TRT_QUANTIZE_MODE": "INT8", "YOLO_TRT_BATCH_SIZES": (4, 1)}
        for name, value in {**constants, **calibration, **tensorrt}.items():
            patch.setattr(configs, name, value)
        patch.setattr(sys, "argv", ["script"])
        shutil.copytree(shipped_saved_model, folder / shipped_saved_model.name)
        Convert_to_TRT.main.__wrapped__()
        for mode in ("FP32", "FP16"):
            patch.setattr(configs, "YOLO_ONNX_QUANTIZE_MODE", mode)
            Convert_to_ONNX.main.__wrapped__()
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the FP32 folder, to damage."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (made / f"yolov4-tiny-digits-onnx-FP32-{SIZE}").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def load(folder):
    return Load_Yolo_model(folder, input_size=SIZE)


def frames(count=6):
    return [read_picture(PROJECT / f"IMAGES/digits/{i:05d}.jpg", 10**9) for i in range(count)]


def assert_same(ours, theirs, pixels=0.05, scores=1e-4):
    assert [x.labels for x in ours] == [x.labels for x in theirs]
    assert sum(map(len, theirs)) > 5
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.boxes, b.boxes, atol=pixels)
        np.testing.assert_allclose(a.scores, b.scores, atol=scores)


# --- The file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow) if x in ("yolov3", "yolov4") else x for x in (*NETWORKS, *CFGS)]
)
def test_every_network_answers_as_the_keras_model_in_any_batch(tmp_path, name):
    """Those of the table, and of cfgs that hold every layer, activation and padding that is read."""
    network, spec = random_network(name, tmp_path)
    images = pictures(3).astype(np.float32) / 255
    *heads, features = network(images)
    model = build_model(network, spec)
    for count in (3, 1):
        answers = run(model, images[:count])
        np.testing.assert_allclose(answers["predictions"], decode(heads, spec.heads)[:count], atol=1e-5)
        np.testing.assert_allclose(answers["features"], features[:count], atol=1e-5)
    assert sum(node.op_type == "Transpose" for node in model.graph.node) == len(network.outputs) + 1
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}

    raw = run(build_model(network, spec, "raw_heads"), images)
    assert list(raw) == [*(f"raw_head_{i}" for i in range(len(heads))), "features"]
    for ours, theirs in zip(raw.values(), [*heads, features], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov4-tiny"])
def test_boxes_are_those_of_suppress(tmp_path, name, class_agnostic):
    """YOLOv3 measures overlap by IoU, YOLOv4 by DIoU. Scores over 0.05, and so high that little or nothing is left."""
    network, spec = random_network(name, tmp_path, features=False)
    images = pictures(3)
    predictions = decode(network(images / np.float32(255)), spec.heads)
    best = np.sort(predictions[..., 4:].numpy().max((1, 2)))
    for threshold in (0.05, float(best[:2].mean()), 1.0):  # the second leaves one picture without a box
        thresholds = {**LOW, "score_threshold": threshold, "class_agnostic": class_agnostic}
        expected = suppress(predictions, nms=spec.heads.nms, **thresholds)
        answers = run(build_model(network, spec, "boxes", thresholds), images)
        assert {name: x.dtype.name for name, x in answers.items()} == {
            "boxes": "float32",
            "scores": "float32",
            "classes": "int32",
            "valid_detections": "int32",
        }
        boxes, *others = (x.numpy() for x in expected)
        np.testing.assert_allclose(answers["boxes"], boxes.clip(0, 1) * [96, 64, 96, 64], atol=1e-3)
        for ours, theirs in zip(("scores", "classes", "valid_detections"), others, strict=True):
            np.testing.assert_allclose(answers[ours], theirs, atol=1e-5)
    assert best[0] < 0.9  # so that the thresholds do leave boxes, and none


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["yolov3-tiny.weights", "yolov4-tiny-voc.weights"])
def test_boxes_in_photographs_are_those_of_suppress(shared, weights):
    """At the scores of detection and of evaluation; the best of equal scores may be another."""
    tiny, names = weights.startswith("yolov3"), "coco" if weights.startswith("yolov3") else "voc"
    detector = Load_Yolo_model(
        shared / "weights" / weights, shared / f"darknet/{names}.names", 416, "yolov3" if tiny else "yolov4", True
    )
    network = keras_network(detector.spec, shared / "weights" / weights)
    files = sorted((shared / "coco64/images").glob("*.jpg"))[:32]
    images = np.concatenate([detector.fit([read_picture(file, 10**9)]) for file in files])
    images = np.round(images * 255).astype(np.uint8)[:, np.newaxis]
    predictions = [detector.network(tf.constant(image / np.float32(255)))["predictions"] for image in images]
    for threshold in (0.3, 0.005):
        thresholds = {**LOW, "score_threshold": threshold}
        model = build_model(network, detector.spec, "boxes", thresholds)
        session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=[CPU])
        same = 0
        for image, predicted in zip(images, predictions, strict=True):
            expected = [x.numpy() for x in suppress(predicted, nms=detector.spec.heads.nms, **thresholds)]
            boxes, scores, classes, valid = session.run(None, {"images": image})
            same += (
                valid[0] == expected[3][0]
                and np.abs(scores - expected[1]).max() < 1e-4
                and np.abs(boxes / 416 - expected[0].clip(0, 1)).max() < 1e-4
                and (classes == expected[2]).all()
            )
        assert same == len(images) == 32


@pytest.mark.slow
def test_what_is_in_the_file(made):
    """Versions that TensorRT and ONNX Runtime of Python 3.10 know, and what a program needs to use it without ours."""
    model = import_onnx().load(made / f"yolov4-tiny-digits-onnx-FP32-{SIZE}" / onnx.FILE)
    assert model.ir_version == 10
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["classes"]) == list("0123456789")
    assert (facts["type"], facts["resize"], facts["outputs"]) == ("yolov4-tiny", "letterbox", "predictions")
    assert (facts["input_height"], facts["input_width"]) == (str(SIZE), str(SIZE))
    (images,) = model.graph.input
    shape = [x.dim_param or x.dim_value for x in images.type.tensor_type.shape.dim]
    assert (images.name, shape) == ("images", ["N", SIZE, SIZE, 3])


@pytest.mark.slow
def test_boxes_need_no_code_of_ours(convert, tmp_path):
    """Thresholds stand in the file; pictures are bytes."""
    convert("pb", YOLO_SCORE_THRESHOLD=0.4, YOLO_IOU_THRESHOLD=0.5, YOLO_CLASS_AGNOSTIC=True)
    convert("onnx", YOLO_ONNX_OUTPUTS="boxes")
    folder = tmp_path / f"yolov4-tiny-digits-onnx-FP32-{SIZE}"
    session, _, _ = open_session(folder / onnx.FILE, [CPU])
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["score_threshold"], facts["iou_threshold"], facts["class_agnostic"]) == ("0.4", "0.5", "True")
    assert read_about(folder)["outputs"] == "boxes" and read_about(folder)["class_agnostic"] is True
    assert session.get_inputs()[0].type == "tensor(uint8)"
    images = np.round(sample_images(read_model(folder)).numpy() * 255).astype(np.uint8)
    boxes, scores, classes, valid = session.run(None, {"images": np.repeat(images, 2, 0)})
    assert valid[0] == valid[1] > 1
    for answer in (boxes, scores, classes):
        assert answer[0, : valid[0]].any() and not answer[:, valid[0] :].any()
    with pytest.raises(UserError, match=r'boxes, scores, classes.*YOLO_ONNX_OUTPUTS = "predictions"'):
        load(folder)


# --- Precisions ----------------------------------------------------------------------------------------------------


def test_fp16_is_float16_up_to_the_heads_and_close(made):
    model = import_onnx().load(made / f"yolov4-tiny-digits-onnx-FP16-{SIZE}" / onnx.FILE)
    half = import_onnx().TensorProto.FLOAT16
    weights = [x for x in model.graph.initializer if x.name.startswith("conv_")]
    assert len(weights) == 2 * 21 and {x.data_type for x in weights} == {half}
    folders = [made / f"yolov4-tiny-digits-onnx-{mode}-{SIZE}" / onnx.FILE for mode in ("FP32", "FP16")]
    images = sample_images(read_model(folders[0].parent)).numpy()
    exact, ours = (open_session(file, [CPU])[0].run(None, {"images": images})[0] for file in folders)
    assert 0 < np.abs(exact - ours)[..., :4].max() < 2e-3 and np.abs(exact - ours)[..., 4:].max() < 5e-3
    assert folders[1].stat().st_size < 0.51 * folders[0].stat().st_size


def test_weights_beyond_float16_are_clipped(tmp_path):
    network, spec = random_network("yolov3-tiny", tmp_path)
    conv = next(layer for layer in network.layers if layer.name == "conv_000")
    kernel = conv.kernel.numpy()
    kernel[0, 0, 0, 0] = 1e6
    conv.kernel.assign(kernel)
    model = build_model(network, spec, precision="FP16")
    assert np.isfinite(run(model, np.zeros((1, 64, 96, 3), np.float32))["predictions"]).all()


def quantised(tmp_path):
    network, spec = random_network("yolov4-tiny", tmp_path)
    inputs = [np.random.RandomState(i).rand(1, 64, 96, 3).astype(np.float32) for i in range(3)]
    scales = int8.find_scales(network, spec, inputs)
    return network, spec, inputs, scales, build_model(network, spec, precision="INT8", scales=scales)


def test_int8_is_what_tensorrt_takes(tmp_path):
    """Signed, symmetric, a scale for each filter, biases left float, the inputs of convolutions alone."""
    _, _, inputs, scales, model = quantised(tmp_path)
    made_by = {output: node for node in model.graph.node for output in node.output}
    read_by = {}
    for node in model.graph.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node)
    values = {x.name: import_onnx().numpy_helper.to_array(x) for x in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == len(scales) == 21
    for node in convolutions:
        steps = [made_by[name] for name in node.input[:2]]
        assert [x.op_type for x in steps] == ["DequantizeLinear"] * 2
        (_, scale, zero), (_, filters, zeros) = steps[0].input, steps[1].input
        assert values[scale].shape == () and values[scale] == np.float32(scales[node.name])
        assert values[filters].shape == values[zeros].shape == (values[node.input[2]].size,)
        for number in (zero, zeros):
            assert values[number].dtype == np.int8 and not values[number].any()
        assert values[node.input[2]].dtype == np.float32
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            assert {x.op_type for x in read_by[node.output[0]]} == {"Conv"}
    exact = run(build_model(*random_network("yolov4-tiny", tmp_path)), inputs[0])["predictions"]
    assert np.abs(run(model, inputs[0])["predictions"] - exact).mean() < 0.02


def test_one_of_100_000_values_saturates(tmp_path, monkeypatch):
    """Against NumPy's sort of all values, with a share that few pictures can tell."""
    monkeypatch.setattr(int8, "SATURATING", 1e-3)
    network, spec, inputs, scales, _ = quantised(tmp_path)
    convolution = next(layer for layer in network.layers if layer.name == "conv_003")
    values = np.abs(keras.Model(network.inputs, convolution.input)(np.concatenate(inputs))).ravel()
    expected = np.sort(values)[::-1][int(np.ceil(1e-3 * values.size))]
    assert scales["conv_003"] == pytest.approx(expected / 127, rel=1e-4)
    assert (values > 127 * scales["conv_003"] * 1.0001).sum() <= np.ceil(1e-3 * values.size)


# --- Layers --------------------------------------------------------------------------------------------------------


def every_layer(x):
    x = layers.Conv2D(8, 3, 2, "same", activation="relu")(x)
    x = layers.Conv2D(8, 3, padding="same", groups=2, activation="silu")(x)
    x = layers.BatchNormalization(center=False)(layers.ZeroPadding2D(((0, 1), (2, 0)))(x))
    x = layers.Activation("sigmoid")(layers.MaxPooling2D(3, 2, "same")(x))
    y = layers.BatchNormalization(scale=False)(layers.Conv2D(8, (1, 3), padding="same", use_bias=False)(x))
    y = layers.ReLU()(layers.Dropout(0.5)(y))
    x = layers.Add()([layers.Activation("mish")(y), layers.Activation("tanh")(x), x])
    x = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    first, second = keras.ops.split(x, 2, axis=-1)
    x = layers.Concatenate()([first, x[..., 2:5], x[:, :, :, ::2], layers.LeakyReLU(negative_slope=0.2)(second)])
    x = layers.UpSampling2D((2, 3))(x)
    x = layers.Conv2D(4, 3, 2)(layers.ZeroPadding2D(((1, 0), (1, 0)))(x))
    return layers.AveragePooling2D(2)(x)


def test_every_kind_of_layer_of_any_height_and_width():
    from yolov3.runtimes.onnx_parts.graph import Graph
    from yolov3.runtimes.onnx_parts.network import write_layers

    keras.utils.set_random_seed(0)
    pictures = keras.Input((42, 58, 3))
    network = keras.Model(pictures, every_layer(pictures))
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(np.random.normal(0, 0.5, layer.moving_mean.shape))
            layer.moving_variance.assign(np.random.uniform(0.5, 1.5, layer.moving_variance.shape))
    graph = Graph()
    (output,) = write_layers(graph, network, "images")
    graph.rename(output, "output")
    model = graph.to_model(
        {"images": (np.float32, ("N", 3, 42, 58))}, {"output": (np.float32, ("N", "C", "H", "W"))}, "layers", {}
    )
    images = np.random.rand(2, 42, 58, 3).astype(np.float32)
    ours = run(model, images.transpose(0, 3, 1, 2))["output"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours, network(images), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "part"),
    [
        (layers.DepthwiseConv2D(3, name="mine"), r"mine \(DepthwiseConv2D\) is of a kind that is not known"),
        (layers.Conv2D(3, 3, dilation_rate=2, name="mine"), r"mine \(Conv2D\) is dilated"),
        (layers.Activation("gelu", name="mine"), r"mine \(Activation\) has the activation gelu"),
        (layers.Conv2D(3, 3, activation="gelu", name="mine"), r"mine \(Conv2D\) has the activation gelu"),
        (layers.ReLU(6.0, name="mine"), r"mine \(ReLU\) is not a plain ReLU"),
        (layers.UpSampling2D(2, interpolation="bilinear", name="mine"), r"mine .* interpolates by bilinear"),
        (layers.AveragePooling2D(3, 2, "same", name="mine"), r"mine .* averages beyond the border"),
        (layers.GlobalAveragePooling2D(name="mine"), r"mine .* drops height and width"),
    ],
)
def test_other_layers_are_refused_by_name(layer, part):
    from yolov3.runtimes.onnx_parts.graph import Graph
    from yolov3.runtimes.onnx_parts.network import write_layers

    pictures = keras.Input((32, 32, 3))
    with pytest.raises(UserError, match=part):
        write_layers(Graph(), keras.Model(pictures, layer(pictures)), "images")


# --- The runtime ---------------------------------------------------------------------------------------------------


def test_the_detector_finds_the_same_boxes(made, capsys):
    detector = Load_Yolo_model(SHIPPED, input_size=SIZE)
    for mode, pixels, scores in (("FP32", 0.05, 1e-4), ("FP16", 2, 0.01)):
        loaded = load(made / f"yolov4-tiny-digits-onnx-{mode}-{SIZE}")
        assert (loaded.spec.framework, loaded.spec.precision) == ("onnx", mode)
        said = f"yolov4-tiny-digits-onnx-{mode}-{SIZE} runs by ONNX Runtime's CPUExecutionProvider"
        assert said in capsys.readouterr().out
        for count in (1, 4):
            assert_same(loaded(frames(6)[:count] * 3), detector(frames(6)[:count] * 3), pixels, scores)


@pytest.mark.slow
def test_raw_heads_are_decoded_by_the_detector_with_features_too(convert, tmp_path):
    convert("pb", YOLO_FEATURES=True)
    convert("onnx", YOLO_ONNX_OUTPUTS="raw_heads")
    ours, theirs = (load(tmp_path / f"yolov4-tiny-digits{kind}-{SIZE}") for kind in ("-onnx-FP32", ""))
    found, expected = ours(frames()), theirs(frames())
    assert_same(found, expected)
    np.testing.assert_allclose(found[0].embeddings, expected[0].embeddings, atol=1e-4)


def test_a_number_of_threads(made, monkeypatch):
    asked = []
    runtime = import_onnxruntime()
    session = runtime.InferenceSession

    def note(file, options, **more):
        asked.append(options.intra_op_num_threads)
        return session(file, options, **more)

    monkeypatch.setattr(runtime, "InferenceSession", note)
    monkeypatch.setattr(configs, "YOLO_ONNX_THREADS", 1)
    load(made / f"yolov4-tiny-digits-onnx-FP32-{SIZE}")
    assert asked == [1]


def test_weights_come_from_the_saved_model_alone(made):
    """Its own constants, by name, whatever has become of the file that it was made from."""
    folder = made / f"yolov4-tiny-digits-{SIZE}"
    spec = read_model(folder)
    ours, theirs = keras_network(spec, folder), keras_network(spec, PROJECT / SHIPPED)
    for a, b in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_saved_model_of_an_older_version_is_to_be_written_anew(made, monkeypatch, tmp_path):
    folder = made / f"yolov4-tiny-digits-{SIZE}"
    monkeypatch.setattr(savedmodel, "read_constants", lambda folder: {})
    with pytest.raises(UserError, match="holds no weights by name: python tools/Convert_to_pb.py"):
        keras_network(read_model(folder), folder)
    monkeypatch.undo()
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="holds no SavedModel that can be read"):
        savedmodel.read_constants(tmp_path)


# --- For TensorRT --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_a_gpu_the_file_for_tensorrt_runs_on_the_cpu_to_measure_accuracy(made, capsys):
    folder = made / f"yolov4-tiny-digits-trt-INT8-{SIZE}"
    loaded, detector = load(folder), Load_Yolo_model(SHIPPED, input_size=SIZE)
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"{folder.name} runs by ONNX Runtime's CPUExecutionProvider, to measure its accuracy: "
        "TensorRT needs an NVIDIA GPU and requirements/onnx-gpu.txt"
    )
    assert_same(loaded(frames(), score_threshold=0.5), detector(frames(), score_threshold=0.5), 8, 0.15)
    about = read_about(folder)
    assert (about["batch_sizes"], about["workspace"], about["outputs"]) == ([1, 4], 2048, "predictions")
    assert about["calibration_count"] == 12


def test_with_a_gpu_tensorrt_gets_full_batches_of_its_sizes(made, monkeypatch):
    """The CPU provider answers under TensorRT's name, and notes how many pictures it is given."""
    folder, given, opened = made / f"yolov4-tiny-digits-trt-INT8-{SIZE}", [], []

    class Session:
        def __init__(self, session):
            self.session, self.get_inputs, self.get_outputs = session, session.get_inputs, session.get_outputs

        def run(self, names, feed):
            given.append(len(feed["images"]))
            return self.session.run(names, feed)

    def open_as_tensorrt(file, providers, threads, profile):
        opened.append((providers, profile))
        return Session(open_session(file, [CPU])[0]), "TensorrtExecutionProvider", []

    monkeypatch.setattr(trt, "open_session", open_as_tensorrt)
    network = load(folder).network
    images = np.random.rand(6, SIZE, SIZE, 3).astype(np.float32)
    answers = network(images)["predictions"]
    assert given[-2:] == [4, 4]
    np.testing.assert_allclose(answers[5:], network(images[5:])["predictions"], atol=1e-5)
    assert given[-1] == 1
    assert opened == [(list(providers.NVIDIA), Profile("INT8", (SIZE, SIZE, 3), (1, 4), 2048))]


def test_a_folder_of_one_file_is_not_served_as_a_saved_model(made):
    for name in (f"yolov4-tiny-digits-trt-INT8-{SIZE}", f"yolov4-tiny-digits-onnx-FP32-{SIZE}"):
        with pytest.raises(UserError, match="holds no SavedModel: python tools/Convert_to_pb.py writes one"):
            read_served(made / name)


# --- What is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constant", "value", "part"),
    [
        ("YOLO_ONNX_PROVIDERS", "CPUExecutionProvider", "names in brackets"),
        ("YOLO_ONNX_PROVIDERS", ("CPU",), "'CPUExecutionProvider'"),
        ("YOLO_ONNX_THREADS", -1, "0 or more"),
        ("YOLO_ONNX_OUTPUTS", "heads", "'raw_heads'"),
        ("YOLO_ONNX_QUANTIZE_MODE", "INT8", "'FP16', 'FP32'"),
    ],
)
def test_a_wrong_constant_is_named(convert, monkeypatch, constant, value, part):
    monkeypatch.setattr(configs, constant, value)
    with pytest.raises(UserError, match=constant) as error:
        convert("onnx") if constant.endswith(("OUTPUTS", "MODE")) else Load_Yolo_model(SHIPPED)
    assert part in str(error.value)


def test_missing_packages_are_one_line(monkeypatch):
    for package, requirement in (("onnx", import_onnx), ("onnxruntime", import_onnxruntime)):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=r"pip install -r requirements/onnx\.txt"):
                requirement()
            with pytest.raises(UserError, match="not installed"):
                onnx.check("FP32")
    assert RUNTIMES["onnx"].requirements == "requirements/onnx.txt"


def test_an_onnx_that_does_not_fit_the_other_packages(monkeypatch, tmp_path):
    """As 1.19 beside the ml_dtypes of TensorFlow 2.17."""
    (tmp_path / "onnx").mkdir()
    reason = "module 'ml_dtypes' has no attribute 'x'"
    (tmp_path / "onnx/__init__.py").write_text(f'raise AttributeError("{reason}\\nmore")')
    for name in [name for name in sys.modules if name == "onnx" or name.startswith("onnx.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=rf"does not work with this TensorFlow \({reason}\)"):
        import_onnx()


@pytest.mark.parametrize("damage", ["short", "empty", "text", "missing"])
def test_a_damaged_file_is_one_line(folder, damage):
    file = folder / onnx.FILE
    data = {"short": file.read_bytes()[:10000], "empty": b"", "text": b"not a model", "missing": None}[damage]
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.onnx cannot be loaded by ONNX Runtime .*: convert again$") as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("version", "value"), [("ir_version", 99), ("opset", 99)])
def test_a_file_that_is_newer_than_the_runtime(folder, version, value):
    model = import_onnx().load(folder / onnx.FILE)
    if version == "opset":
        model.opset_import[0].version = value
    else:
        model.ir_version = value
    (folder / onnx.FILE).write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"cannot be loaded by ONNX Runtime \d.*99"):
        load(folder)


@pytest.mark.slow
def test_a_file_of_another_tool_is_used_if_its_outputs_are_ours(folder, tmp_path):
    """tf2onnx calls the input otherwise; the name of it does not matter."""
    model = import_onnx().load(folder / onnx.FILE)
    for node in model.graph.node:
        node.input[:] = ["images:0" if name == "images" else name for name in node.input]
    model.graph.input[0].name = "images:0"
    (folder / onnx.FILE).write_bytes(model.SerializeToString())
    assert_same(load(folder)(frames()), Load_Yolo_model(SHIPPED, input_size=SIZE)(frames()))

    network, spec = random_network("yolov3-tiny", tmp_path)
    (folder / onnx.FILE).write_bytes(build_model(network, spec).SerializeToString())  # of another size, with features
    sizes = "64, 96", f"{SIZE}, {SIZE}"
    there, wanted = (rf"images tensor\(float\) \['N', {size}, 3\] and predictions" for size in sizes)
    expected = rf"{there}, features, not {wanted}: "
    with pytest.raises(UserError, match=expected):
        load(folder)


def test_a_folder_of_another_size_is_refused(made):
    with pytest.raises(UserError, match=rf"takes {SIZE} x {SIZE} pixels, but YOLO_INPUT_SIZE"):
        Load_Yolo_model(made / f"yolov4-tiny-digits-onnx-FP32-{SIZE}", input_size=416)


@pytest.mark.slow
def test_a_file_that_answers_otherwise_is_not_written(convert, shipped_saved_model, monkeypatch, tmp_path):
    shutil.copytree(shipped_saved_model, tmp_path / shipped_saved_model.name)
    monkeypatch.setattr(onnx, "build_model", lambda network, spec, *more: build_model(doubled(network), spec, *more))
    with pytest.raises(UserError, match="it is not written"):
        convert("onnx")
    with pytest.raises(UserError, match="does not find the boxes expected"):
        convert("onnx", YOLO_ONNX_OUTPUTS="boxes")
    assert not list(tmp_path.glob("*onnx*"))


def doubled(network):
    bias = next(layer for layer in network.layers if layer.name == "conv_020").bias
    bias.assign(bias + 1)
    return network


def test_names_of_folders():
    row = NETWORKS["yolov3-tiny"]
    spec = ModelSpec(row.type, row.tiny, CLASSES, (416, 416), "letterbox", row.heads, "onnx", "FP16")
    assert folder_name(spec) == "yolov3-tiny-onnx-FP16-416"
    assert folder_name(replace(spec, framework="tflite", precision="INT8")) == "yolov3-tiny-tflite-INT8-416"
