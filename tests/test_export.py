"""tools/Export_checkpoint.py: a trained checkpoint as Darknet's weights and in half precision."""

import re
import sys

from yolov3.boxes import decode
from yolov3.checkpoint import ModelSpec, read_model, read_weights, write_checkpoint
from yolov3.checks import PROJECT
from yolov3.darknet import get_arrays, load_arrays, load_yolo_weights
from yolov3.networks import NETWORKS
from yolov3.yolov4 import Create_Yolo

import numpy as np
import pytest
from oracle import centre_form, importer, importer_answers

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


def test_opencv_finds_the_same_boxes_with_the_cfg_lines_that_are_printed(export, tmp_path, capsys, shared):
    export(tmp_path / "mine.weights")
    out = capsys.readouterr().out
    said = dict(re.findall(r"(?m)^(filters|classes|anchors)=(\d[\d., ]*)", out))
    masks = dict(re.findall(r"(?m)^mask=([\d,]+) in the \[yolo\] of stride (\d+)", out))
    assert masks == {"0,1,2": "16", "3,4,5": "32"}
    cfg = (shared / "darknet" / "yolov4-tiny.cfg").read_text()
    cfg = cfg.replace("filters=255", f"filters={said['filters']}").replace("classes=80", f"classes={said['classes']}")
    cfg = re.sub(r"(?m)^anchors\s*=.*", f"anchors={said['anchors']}", cfg).replace("mask = 1,2,3", "mask = 0,1,2")
    (tmp_path / "mine.cfg").write_text(cfg)

    network = Create_Yolo(64, "yolov4", True, 2)
    load_arrays(network, read_weights(tmp_path / "trained"), "trained")
    picture = np.random.default_rng(0).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)
    _, theirs = importer_answers(importer(tmp_path / "mine.cfg", tmp_path / "mine.weights", 64), picture)
    mine = decode(network(picture), HEADS)[0].numpy()
    np.testing.assert_allclose(centre_form(mine[:, :4]), theirs[:, :4], atol=1e-4)
    np.testing.assert_allclose(mine[:, 4:], theirs[:, 5:], atol=1e-4)


def test_a_folder_of_half_the_size_is_the_same_model(export, tmp_path):
    export(tmp_path / "half")
    size, half = ((tmp_path / name / "weights.npz").stat().st_size for name in ("trained", "half"))
    assert half < 0.51 * size
    assert read_model(tmp_path / "half") == MODEL
    for whole, rounded in zip(read_weights(tmp_path / "trained"), read_weights(tmp_path / "half"), strict=True):
        np.testing.assert_allclose(rounded, whole, rtol=1e-3, atol=1e-6)


def test_what_is_there_is_replaced_only_when_asked(export, tmp_path):
    weights = tmp_path / "mine.weights"
    weights.write_text("mine")
    with pytest.raises(SystemExit, match="error: .*mine.weights is there already: give --overwrite"):
        export(weights)
    assert weights.read_text() == "mine"
    export(weights, "--overwrite")
    load_yolo_weights(Create_Yolo(64, "yolov4", True, 2), weights)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(SystemExit, match="error: .*thesis is no checkpoint, so it is not replaced"):
        export(tmp_path / "thesis", "--overwrite")
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_the_model_that_comes_along_is_small():
    folder = PROJECT / "model_data" / "yolov4-tiny-digits"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 13 * 10**6
    assert read_model(folder).classes == tuple("0123456789")
