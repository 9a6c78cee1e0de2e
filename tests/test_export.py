"""tools/Export_checkpoint.py: a trained checkpoint as Darknet's weights and in half precision."""

import sys

from yolov3 import configs
from yolov3.boxes import decode
from yolov3.cfg.network import read_network
from yolov3.checkpoint import ModelSpec, read_model, write_checkpoint
from yolov3.checks import PROJECT
from yolov3.darknet import get_arrays, load_yolo_weights
from yolov3.loading import Load_Yolo_model
from yolov3.networks import NETWORKS
from yolov3.yolov4 import Create_Yolo

import cv2
import numpy as np
import pytest
from oracle import centre_form, importer_answers, random_picture, random_weights, stored_arrays

HEADS = NETWORKS["yolov4-tiny"].heads._replace(
    anchors=(((14, 20), (20, 27), (27, 37)), ((38, 51), (54, 73), (89, 119)))
)
MODEL = ModelSpec("yolov4", True, ("a", "b"), 64, "letterbox", HEADS)


@pytest.fixture
def export(tmp_path, monkeypatch):
    """A checkpoint with random weights and anchors of its own; call it with the command line."""
    import Export_checkpoint

    network = Create_Yolo(64, "yolov4", True, 2)
    write_checkpoint(tmp_path / "trained", MODEL, get_arrays(network), "a test")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["Export_checkpoint.py", str(tmp_path / "trained"), *map(str, arguments)])
        Export_checkpoint.main()

    return run


def own_anchors(name):
    """Heads with anchors of their own, no two alike."""
    heads = NETWORKS[name].heads
    anchors = tuple(
        tuple((width * 1.37 + i, height * 0.9) for i, (width, height) in enumerate(x)) for x in heads.anchors
    )
    return heads._replace(anchors=anchors, scale_x_y=(1.1, 1.2, 1.3)[: len(anchors)])


@pytest.mark.parametrize("name", NETWORKS)
def test_opencv_finds_the_same_boxes_by_the_files_as_they_are_written(export, tmp_path, name):
    yolo_type, _, tiny = name.partition("-")
    network, heads = Create_Yolo(64, yolo_type, bool(tiny), 3), own_anchors(name)
    load_yolo_weights(network, random_weights(network, tmp_path / "random.weights"))
    model = ModelSpec(yolo_type, bool(tiny), ("a", "b", "c"), 64, "letterbox", heads)
    write_checkpoint(tmp_path / "trained", model, get_arrays(network), "a test")
    export(tmp_path / "mine.weights")

    net = cv2.dnn.readNetFromDarknet(str(tmp_path / "mine.cfg"), str(tmp_path / "mine.weights"))
    picture = random_picture(64)
    raw, theirs = importer_answers(net, picture)
    for mine, other in zip(network(picture), raw, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)
    mine = decode(network(picture), heads)[0].numpy()
    np.testing.assert_allclose(centre_form(mine[:, :4]), theirs[:, :4], atol=1e-4)
    shown = theirs[:, 5:] > 0  # OpenCV hides scores under 0.2 unless a cfg says otherwise
    assert shown.sum() > 20
    np.testing.assert_allclose(mine[:, 4:][shown], theirs[:, 5:][shown], atol=1e-4)

    cfg = read_network(tmp_path / "mine.cfg").cfg
    assert (cfg.classes, cfg.size) == (3, (64, 64))
    np.testing.assert_allclose(np.array(cfg.heads.anchors), np.array(heads.anchors), rtol=1e-8)
    assert cfg.heads._replace(anchors=None) == heads._replace(anchors=None)


def test_weights_and_cfg_detect_as_the_checkpoint_does(export, tmp_path, monkeypatch, capsys):
    """The anchors of the cfg make the difference; every constant but those of the network says something else."""
    for constant, value in {"YOLO_TYPE": "yolov4", "TRAIN_YOLO_TINY": True, "YOLO_INPUT_SIZE": 96}.items():
        monkeypatch.setattr(configs, constant, value)
    export(tmp_path / "mine.weights")
    picture = (random_picture(80)[0] * 255).astype(np.uint8)
    capsys.readouterr()
    by_cfg = Load_Yolo_model(tmp_path / "mine.weights", ["a", "b"], score_threshold=0.1, framework="tf")
    said = capsys.readouterr().out
    given = "the network, its anchors, 2 classes, an input of 64 x 64 pixels, in place of YOLO_INPUT_SIZE"
    assert f"{tmp_path}/mine.cfg gives {given}" in said
    by_folder = Load_Yolo_model(tmp_path / "trained", input_size=64, score_threshold=0.1, framework="tf")
    for one, other in zip(by_cfg([picture]), by_folder([picture]), strict=True):
        assert len(one) > 0
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)

    (tmp_path / "mine.cfg").unlink()
    published = Load_Yolo_model(tmp_path / "mine.weights", ["a", "b"], 64, framework="tf")
    assert published.spec.heads == NETWORKS["yolov4-tiny"].heads
    said = capsys.readouterr().out
    assert "is not the official file; its boxes are decoded with the published anchors of yolov4-tiny" in said
    assert "mine.cfg, or set YOLO_CFG or YOLO_ANCHORS" in said


def test_a_folder_of_half_the_size_is_the_same_model(export, tmp_path):
    export(tmp_path / "half")
    size, half = ((tmp_path / name / "weights.npz").stat().st_size for name in ("trained", "half"))
    assert half < 0.51 * size
    assert read_model(tmp_path / "half") == MODEL
    for whole, rounded in zip(stored_arrays(tmp_path / "trained"), stored_arrays(tmp_path / "half"), strict=True):
        np.testing.assert_allclose(rounded, whole, rtol=1e-3, atol=1e-6)


def test_what_is_there_is_replaced_only_when_asked(export, tmp_path):
    weights = tmp_path / "mine.weights"
    weights.write_text("mine")
    with pytest.raises(SystemExit, match="error: .*mine.weights is there already: give --overwrite"):
        export(weights)
    assert weights.read_text() == "mine"
    (tmp_path / "other.cfg").write_text("mine")
    with pytest.raises(SystemExit, match="error: .*other.cfg is there already: give --overwrite"):
        export(tmp_path / "other.weights")
    export(weights, "--overwrite")
    load_yolo_weights(Create_Yolo(64, "yolov4", True, 2), weights)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(SystemExit, match="error: .*thesis is not a checkpoint, so it is not replaced"):
        export(tmp_path / "thesis", "--overwrite")
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_the_model_that_comes_along_is_small():
    folder = PROJECT / "model_data" / "yolov4-tiny-digits"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 13 * 10**6
    assert read_model(folder).classes == tuple("0123456789")
