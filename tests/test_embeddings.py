"""Embeddings: pooled from the detector's own map in every framework, and other networks."""

import shutil
import sys
from dataclasses import replace

from yolov3 import configs
from yolov3.checkpoint import read_about, read_model
from yolov3.checks import PROJECT, UserError
from yolov3.embedding import pool
from yolov3.fitting import refit, unfit
from yolov3.images import read_picture
from yolov3.loading import SHIPPED, Load_Yolo_model
from yolov3.networks import NETWORKS
from yolov3.runtimes import savedmodel
from yolov3.runtimes.trt import in_batches
from yolov3.tracking.embedders import cut_crops, load_embedder
from yolov3.yolov4 import Create_Yolo

import numpy as np
import pytest
import tensorflow as tf

SIZE = 160
FOLDERS = {
    "tf": f"yolov4-tiny-digits-{SIZE}",
    "openvino": f"yolov4-tiny-digits-openvino-FP32-{SIZE}",
    "neuron": f"yolov4-tiny-digits-neuron-{SIZE}",
}


def frames(count=3):
    return [read_picture(PROJECT / "IMAGES" / "digits" / f"{i:05d}.jpg", 10**8) for i in range(count)]


@pytest.fixture(scope="module")
def detector():
    return Load_Yolo_model(SHIPPED, input_size=SIZE, features=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The shipped model with features, converted."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        import Convert_to_Neuron
        import Convert_to_OpenVINO
        import Convert_to_pb

        constants = {"TRAIN_CHECKPOINTS_FOLDER": str(folder), "YOLO_INPUT_SIZE": SIZE, "YOLO_FEATURES": True}
        constants |= {"YOLO_CUSTOM_WEIGHTS": SHIPPED}
        constants |= {"YOLO_OPENVINO_QUANTIZE_MODE": "FP32", "NEURON_CHIP": "cpu", "NEURON_TRANSFER": "float32"}
        for name, value in constants.items():
            patch.setattr(configs, name, value)
        patch.setattr(sys, "argv", ["script"])
        for tool in (Convert_to_pb, Convert_to_OpenVINO, Convert_to_Neuron):
            tool.main.__wrapped__()
    return folder


# --- The detector's own features -----------------------------------------------------------------------------------


def test_an_embedding_is_of_the_core_of_a_box_band_by_band():
    """A map of one channel that is 1 to 4 in the bands of a box, 9 at its sides, 0 elsewhere."""
    fine = np.zeros((2, 80, 80, 1), np.float32)
    fine[1, 16:64, 24:56] = 9
    for i in range(4):
        fine[1, 16 + 12 * i : 28 + 12 * i, 29:51] = i + 1
    maps = tf.nn.space_to_depth(fine, 2)  # as layers.embedding_map makes them
    embeddings = pool(maps, tf.constant([[0.3, 0.2, 0.7, 0.8]]), tf.constant([1])).numpy()
    np.testing.assert_allclose(embeddings + fine[1].mean(), [[1, 2, 3, 4]], atol=0.3)
    assert pool(maps, tf.zeros((0, 4)), tf.zeros(0, tf.int32)).shape == (0, 4)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_features_beside_its_heads(name):
    size = {"input_size": 64, "yolo_type": name.removesuffix("-tiny"), "tiny": name.endswith("-tiny"), "CLASSES": 2}
    plain, looking = Create_Yolo(**size), Create_Yolo(**size, features=True)
    assert looking.output_shape[:-1] == plain.output_shape
    assert looking.output_shape[-1] == (None, 4, 4, 256 if size["tiny"] else 512)
    assert looking.count_params() == plain.count_params()


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(416, 416), (256, 416)])
def test_refit_is_the_inverse_of_unfit(resize, size):
    sizes = tf.constant([(480, 640), (1080, 607)])
    boxes = tf.constant([[[10.0, 20, 300, 400]], [[0, 0, 607, 1080]]])
    np.testing.assert_allclose(unfit(refit(boxes, sizes, size, resize), sizes, size, resize), boxes, atol=1e-3)


def test_detections_have_the_embeddings_of_their_boxes(detector):
    plain = Load_Yolo_model(SHIPPED, input_size=SIZE)
    pictures = frames()
    for picture, found, without in zip(pictures, detector(pictures), plain(pictures), strict=True):
        np.testing.assert_array_equal(found.boxes, without.boxes)
        assert without.embeddings is None and found.embeddings.shape == (len(found), found.embeddings.shape[1])
        np.testing.assert_allclose(found.embeddings, detector.embed(picture, found.boxes), atol=1e-4)
        some = found.only(found.labels[:1])
        np.testing.assert_array_equal(some.embeddings, found.embeddings[np.isin(found.classes, found.classes[:1])])
    (nothing,) = detector([np.zeros((50, 60, 3), np.uint8)], score_threshold=1.0)
    assert nothing.embeddings.shape == (0, found.embeddings.shape[1])


@pytest.mark.slow
@pytest.mark.parametrize("framework", FOLDERS)
def test_every_framework_answers_the_same_embeddings(made, detector, framework):
    folder = made / FOLDERS[framework]
    assert read_model(folder).features and read_about(folder)["features"] is True
    theirs = Load_Yolo_model(folder, input_size=SIZE)
    for ours, other in zip(detector(frames()), theirs(frames()), strict=True):
        assert ours.labels == other.labels
        np.testing.assert_allclose(ours.embeddings, other.embeddings, atol=0.02)


@pytest.mark.slow
def test_embeddings_are_not_pooled_for_those_who_decline_them(made, detector):
    plain = Load_Yolo_model(made / FOLDERS["tf"], input_size=SIZE, features=False)
    for ours, other in zip(detector(frames()), plain(frames()), strict=True):
        assert other.embeddings is None and ours.labels == other.labels
    with pytest.raises(UserError, match="this detector has no features"):
        plain.embed(frames(1)[0], np.zeros((1, 4)))


@pytest.mark.slow
def test_bfloat16_answers_nearly_the_same_embeddings(made, detector):
    half = Load_Yolo_model(made / FOLDERS["tf"], input_size=SIZE, precision="BF16")
    ours, other = (x(frames(1))[0].embeddings for x in (detector, half))
    cosine = (ours * other).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(other, axis=1)
    assert (cosine > 0.99).all()


@pytest.mark.slow
def test_batches_of_other_sizes_keep_their_features(made):
    folder = made / FOLDERS["tf"]
    network = savedmodel.load_network(folder, read_model(folder))
    images = tf.random.stateless_uniform((3, SIZE, SIZE, 3), (1, 2))
    whole, parts = network(images), in_batches(network, [2])(images)
    assert whole["features"].shape[:3] == (3, SIZE // 16, SIZE // 16)
    np.testing.assert_allclose(whole["features"], parts["features"], atol=1e-4)


def test_a_folder_without_features_says_how_to_convert_again(shipped_saved_model, tmp_path, monkeypatch):
    import Convert_to_OpenVINO

    monkeypatch.setattr(configs, "TRAIN_CHECKPOINTS_FOLDER", str(tmp_path))
    monkeypatch.setattr(configs, "YOLO_INPUT_SIZE", SIZE)
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", SHIPPED)
    monkeypatch.setattr(sys, "argv", ["script"])
    folder = shutil.copytree(shipped_saved_model, tmp_path / FOLDERS["tf"])
    assert list(savedmodel.load(folder).structured_outputs) == ["predictions"]
    with pytest.raises(UserError, match="answers no features, which .* set YOLO_FEATURES = True.*Convert_to_pb.py"):
        Load_Yolo_model(folder, input_size=SIZE, features=True)
    monkeypatch.setattr(configs, "YOLO_FEATURES", True)
    with pytest.raises(UserError, match="no features, but YOLO_FEATURES = True.*Convert_to_pb.py writes it anew"):
        Convert_to_OpenVINO.main.__wrapped__()
    with pytest.raises(UserError, match="other outputs than its model.json says"):
        savedmodel.load_network(folder, replace(read_model(folder), features=True))


# --- Other networks ------------------------------------------------------------------------------------------------


def frozen(path, shape=(None, 8, 4, 3), dtype=tf.uint8, output="features", reduce=(1, 2), answer=tf.identity):
    """A frozen graph in the manner of mars-small128.pb, which answers mean colours."""
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(dtype, shape, name="images")
        tf.identity(answer(tf.reduce_mean(tf.cast(images, tf.float32), reduce)), name=output)
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def test_a_frozen_graph_gets_all_crops_at_once_in_bgr(tmp_path):
    embed = load_embedder(frozen(tmp_path / "mean.pb"))
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[:, :30] = 200, 10, 30
    boxes = np.array([[5, 5, 15, 25], [40, 0, 50, 20], [-9, -9, 99, 99]], np.float32)
    answers = embed(frame, boxes)
    np.testing.assert_allclose(answers[:2], [[30, 10, 200], [0, 0, 0]], atol=1)
    assert answers.shape == (3, 3) and embed(frame, boxes[:0]).shape == (0, 3)


def test_crops_stay_inside_the_frame_and_keep_their_aspect_on_request():
    frame = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)
    np.testing.assert_array_equal(cut_crops(frame, np.array([[10, 5, 30, 25]]), 20, 20)[0], frame[5:25, 10:30])
    kept = cut_crops(frame, np.array([[18, 5, 22, 25]]), 20, 20, keep_aspect=True)
    np.testing.assert_array_equal(kept[0], frame[5:25, 10:30])
    assert cut_crops(frame, np.array([[-50, -50, -40, -40], [70, 50, 80, 60]]), 8, 4).shape == (2, 8, 4, 3)


def test_an_onnx_network_answers_a_row_for_each_crop(shared):
    embed = load_embedder(shared / "reid" / "osnet_x0_25_msmt17.onnx")
    picture = frames(1)[0]
    boxes = np.array([[10, 10, 80, 200], [100, 50, 180, 210]], np.float32)
    both = embed(picture, boxes)
    assert both.shape == (2, 512)
    np.testing.assert_allclose(both[1], embed(picture, boxes[1:])[0], atol=1e-3)


def test_a_file_that_is_no_embedder_is_named(tmp_path, shared):
    for wrong in ("colours", None, 5, ["detector"]):
        with pytest.raises(UserError, match='TRACKER_EMBEDDER = .* is not known: "detector", "none", or a re-id'):
            load_embedder(wrong)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UserError, match="folder.onnx is not a file"):
        load_embedder(tmp_path / "folder.onnx")
    with pytest.raises(UserError, match="missing.pb is missing"):
        load_embedder(tmp_path / "missing.pb")
    for name, reason in {"a.pb": "is not a frozen graph", "a.onnx": "is not an ONNX file"}.items():
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(UserError, match=reason):
            load_embedder(tmp_path / name)
    one_at_a_time = frozen(tmp_path / "one.pb", answer=lambda means: tf.reshape(means, (3, 1)))
    with pytest.raises(UserError, match=r"one.pb does not take two crops at once"):
        load_embedder(one_at_a_time)
    with pytest.raises(UserError, match="nan.pb answers numbers that are not finite"):
        load_embedder(frozen(tmp_path / "nan.pb", answer=lambda means: means / 0 - means / 0))
    wrong = {
        "float.pb": {"dtype": tf.float32},
        "grey.pb": {"shape": (None, 8, 4, 1)},
        "unknown.pb": {"shape": (None, None, None, 3)},
        "map.pb": {"reduce": 1},
        "other.pb": {"output": "logits"},
    }
    for name, change in wrong.items():
        with pytest.raises(UserError, match=r"it must take uint8 \(n, height, width, 3\)|is not a frozen graph"):
            load_embedder(frozen(tmp_path / name, **change))
