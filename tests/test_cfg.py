"""Darknet's cfg files: what they say of our networks, and one line with file, section and line when they are wrong."""

import re

from yolov3 import configs, conversion, heads
from yolov3.cfg import input_size, read_cfg, read_sections
from yolov3.cfg_layers import cfg_text, describe, layers_of, read_layer
from yolov3.checks import UserError
from yolov3.downloads import OFFICIAL
from yolov3.loading import configured_model
from yolov3.networks import NETWORKS, Official
from yolov3.yolov4 import Create_Yolo

import pytest
from oracle import random_weights

NAMES = ["a", "b"]
ANCHORS = (((23, 27), (37, 58), (81, 82)), ((81, 82), (135, 169), (344, 319)))


@pytest.fixture(scope="module")
def network():
    return Create_Yolo(32, "yolov4", True, 2)


@pytest.fixture(scope="module")
def text(network):
    """A good cfg: yolov4-tiny with 2 classes at 96 x 96 pixels and its published heads."""
    return cfg_text(network, NETWORKS["yolov4-tiny"].heads, 2, 96)


@pytest.fixture
def cfg(tmp_path):
    """Writes text or bytes -> the file."""

    def write(content):
        file = tmp_path / "mine.cfg"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


@pytest.fixture
def mine(network, tmp_path, monkeypatch):
    """A .weights file, and constants that mean yolov4-tiny."""
    for name, value in {
        "YOLO_TYPE": "yolov4",
        "TRAIN_YOLO_TINY": True,
        "YOLO_INPUT_SIZE": 64,
        "YOLO_CFG": None,
    }.items():
        monkeypatch.setattr(configs, name, value)
    heads._say_once.cache_clear()
    return random_weights(network, tmp_path / "mine.weights")


# --- Reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_darknets_own_cfgs_say_what_the_project_has_published(shared, name):
    file = shared / "darknet" / f"{name if name != 'yolov3-tiny' else 'yolov3-tiny-mask123'}.cfg"
    cfg = read_cfg(file, name)
    assert cfg.heads == NETWORKS[name].heads
    assert (cfg.classes, input_size(cfg.net)) == (80, 608 if name == "yolov4" else 416)
    yolo_type, _, tiny = name.partition("-")
    layers = [read_layer(section) for section in read_sections(file)[1:]]
    assert describe(Create_Yolo(32, yolo_type, bool(tiny), 80, features=True)) == layers


def test_masks_mean_what_they_say(shared):
    heads = read_cfg(shared / "darknet" / "yolov3-tiny.cfg", "yolov3-tiny").heads
    assert heads.anchors == (((10, 14), (23, 27), (37, 58)), ((81, 82), (135, 169), (344, 319)))
    assert (heads.scale_x_y, heads.nms) == ((1.0, 1.0), "iou")


def other_comments(text):
    return f"; 注释 = [yolo]\n{text}".replace("\n[yolo]", " # 过滤器=75\n\n  [ yolo ]  ").encode("gbk")


WAYS_TO_WRITE = {
    "as it is": lambda text: text,
    "Windows line ends": lambda text: text.replace("\n", "\r\n"),
    "old Macintosh line ends": lambda text: text.replace("\n", "\r"),
    "a BOM": lambda text: f"\ufeff{text}",
    "comments that are not UTF-8": other_comments,
    "white space anywhere": lambda text: text.replace("=", " \t= ").replace(",", " ,  "),
    "short names": lambda text: text.replace("[convolutional]", "[conv]").replace("[maxpool]", "[max]"),
    "options of training": lambda text: text.replace("[yolo]", "[yolo]\njitter=.3\niou_loss=ciou\nrandom=1"),
    "an option twice": lambda text: text.replace("classes=2", "classes=2\nclasses=80"),
    "layers from the first": lambda text: text.replace("layers=-1,-18", "layers=-1,21", 1),
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE)
def test_a_cfg_may_be_written_in_many_ways(cfg, text, way):
    said = read_cfg(cfg(WAYS_TO_WRITE[way](text)), "yolov4-tiny")
    assert (said.heads, said.classes, input_size(said.net)) == (NETWORKS["yolov4-tiny"].heads, 2, 96)


@pytest.mark.parametrize(
    ("kind", "nms", "beta"),
    [
        ("", "iou", 0.6),
        ("nms_kind=default", "iou", 0.6),
        ("nms_kind=cornersnms\nbeta_nms=1", "iou", 0.6),
        ("nms_kind=greedynms\nbeta_nms=0.2", "diou", 0.6),  # which Darknet's greedynms does not heed
        ("nms_kind=diounms", "diou", 0.6),
        ("nms_kind=diounms\nbeta_nms=0.2", "diou", 0.2),
        ("nms_kind=diounms\nbeta_nms=1", "diou", 1.0),
    ],
)
def test_suppression_is_the_last_yolo_sections(cfg, text, network, kind, nms, beta):
    first, last = text.rsplit("nms_kind=greedynms\nbeta_nms=0.6\n", 1)
    heads = read_cfg(cfg(f"{first}{kind}\n{last}"), "yolov4-tiny").heads
    assert (heads.nms, heads.beta_nms) == (nms, beta)
    assert read_cfg(cfg(cfg_text(network, heads, 2, 96)), "yolov4-tiny").heads == heads


WRONG = {  # what is replaced, by what -> what is said behind the file's name
    "a word for a number": (
        "filters=64",
        "filters=many",
        r"section 1 \[convolutional\], line \d+: filters=many must be",
    ),
    "half a number": ("filters=64", "filters=6.5", r"section 1 .* filters=6.5 must be a whole number"),
    "no number": ("anchors=", "anchors=x", r"section 30 \[yolo\], line \d+: anchors=x.* must be a number or several"),
    "not finite": ("scale_x_y=1.05", "scale_x_y=nan", r"section 30 .* scale_x_y=nan must be"),
    "no anchors": ("anchors=", "ankers=", r"section 30 \[yolo\], line \d+: anchors must be pairs"),
    "an anchor of nothing": ("anchors=23", "anchors=0", "anchors must be pairs of width and height in pixels, above 0"),
    "mask too long": ("mask=0,1,2", "mask=0,1,2,3", r"section 37 .* mask must name 3 of the 6 anchors"),
    "mask too far": ("mask=0,1,2", "mask=4,5,6", r"section 37 .* mask must name 3 of the 6 anchors"),
    "filters forgotten": (
        "filters=21",
        "filters=255",
        r"section 29 .* filters=255, but .* has 21 here, since 3 \* \(5",
    ),
    "another layer": ("[maxpool]", "[avgpool]", r"section 9 \[avgpool\], line \d+: yolov4-tiny has \[maxpool\] here"),
    "another activation": ("leaky", "mish", r"section 0 .* activation=mish, but .* has leaky here"),
    "dilated": ("stride=2", "stride=2\ndilation=2", r"section 0 .* dilation=2, but .* has 1 here"),
    "other coordinates": ("num=6", "num=6\nnew_coords=1", r"section 30 .* new_coords=1, but .* has 0 here"),
    "a route to nowhere": (
        "layers=-6,-1",
        "layers=-99,-1",
        r"section 8 \[route\].* layers=-99,-1 is not a layer before",
    ),
    "another route": ("layers=-6,-1", "layers=-5,-1", r"section 8 \[route\].* layers=-5,-1, but .* has -6,-1 here"),
    "one layer more": ("num=6\nscale", "num=6\n[dropout]\nscale", r"section 31 \[dropout\].* has \[route\] here"),
    "classes apart": (
        "classes=2",
        "classes=3",
        r"section 29 .* filters=21, but .* has 24 here, since 3 \* \(5 \+ 3 cl",
    ),
    "unknown suppression": ("greedynms", "softnms", r"nms_kind=softnms is not known: choose one of default"),
    "a negative power": ("greedynms\nbeta_nms=0.6", "diounms\nbeta_nms=-1", r"beta_nms=-1 must be from 0 to 100"),
    "not square": ("height=96", "height=64", r"section \[net\], line \d+: width=96 and height=64 must be the same"),
    "grey": ("channels=3", "channels=1", r"section \[net\], line \d+: channels must be 3"),
    "an odd size": ("96", "100", r"width and height in .*mine.cfg\) is 100: make it a multiple of 32"),
    "nonsense": ("width=96", "width 96", r"line \d+: 'width 96' is neither \[section\] nor option=value"),
    "no network": ("[net]", "[yolo]", r"first section must be \[net\]"),
    "binary": ("[net]", "\0[net]", "it is not a text file"),
}


LAST_OF_TWO = "unknown suppression", "a negative power"


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_cfg_is_one_line_with_file_section_and_line(cfg, text, wrong):
    old, new, said = WRONG[wrong]
    first, found, rest = text.rpartition(old) if wrong in LAST_OF_TWO else text.partition(old)
    changed = f"{first}{new}{rest}" if wrong != "an odd size" else text.replace(old, new)
    assert found
    file = cfg(changed)
    with pytest.raises(UserError, match=said) as error:
        input_size(read_cfg(file, "yolov4-tiny").net)
    message = str(error.value)
    assert str(file) in message and "\n" not in message
    line = re.search(r"line (\d+)", message)
    if line and wrong not in ("no anchors", "classes apart"):  # which another line tells
        told = changed.split("\n")[int(line[1]) - 1]
        assert any(part in told for part in new.split("\n"))


def test_a_cfg_that_ends_early_or_holds_nothing_is_told(cfg, text):
    for content, said in (
        ("", "is not a Darknet cfg"),
        ("[net]\nwidth=96", r"section \[net\], line 1: the cfg ends here, but .* has \d+ layers"),
        (text[: text.rindex("[convolutional]")], r"section 35 .*the cfg ends here, but yolov4-tiny has 38 layers"),
    ):
        with pytest.raises(UserError, match=said):
            read_cfg(cfg(content), "yolov4-tiny")


def test_the_cfg_of_another_of_our_networks_is_told_with_the_constants_to_set(cfg, text):
    with pytest.raises(UserError, match='is a cfg of yolov4-tiny, not of yolov3: set YOLO_TYPE = "yolov4" and TRAIN_Y'):
        read_cfg(cfg(text), "yolov3")


OTHERS = {  # other people's networks: their first layer that none of ours has, as they write it
    "yolov3-spp": r"section 78 \[maxpool\], line 576: yolov3 has \[convolutional\] here",
    "yolov3-tiny-prn": r"section 12 \[convolutional\], line 99: filters=512, but yolov3-tiny has 1024 here",
    "yolov3-tiny_3l": r"section 24 \[route\], line 187: yolov3-tiny ends before this layer",
    "yolov4-csp": r"section 2 \[convolutional\], line 76: filters=32, but yolov4 has 64 here",
    "yolov4-tiny-3l": r"section 38 \[route\], line 284: yolov4-tiny ends before this layer",
}


def test_no_two_networks_of_ours_have_the_same_first_layer():
    """So that a cfg whose first layer fits is not compared with the others."""
    assert len({str(layers_of(name)[0]) for name in NETWORKS}) == len(NETWORKS)


@pytest.mark.parametrize("other", OTHERS)
def test_other_networks_are_refused_by_their_first_layer_that_is_not_of_the_nearest_of_ours(shared, other):
    with pytest.raises(UserError, match=OTHERS[other]):
        read_cfg(shared / "darknet" / "more" / f"{other}.cfg", "yolov4")


# --- Beside a .weights file ------------------------------------------------------------------------------------------


def test_a_cfg_beside_the_weights_speaks_for_them(mine, text, cfg, monkeypatch, capsys):
    monkeypatch.setattr(configs, "YOLO_ANCHORS", ANCHORS[::-1])
    file = cfg(text.replace("scale_x_y=1.05", "scale_x_y=1.2").replace("anchors=23", "anchors=24"))
    for _ in range(2):
        model, _ = configured_model(mine, NAMES)
        assert model.input_size == 96
        assert model.heads.anchors[0] == ((24, 27), (37, 58), (81, 82))
        assert model.heads.scale_x_y == (1.2, 1.2)
    assert capsys.readouterr().out == (
        f"{file} gives the anchors, 2 classes, an input of 96 x 96 pixels, in place of YOLO_ANCHORS and "
        "YOLO_INPUT_SIZE = 64\n"
    )
    model, _ = configured_model(mine, NAMES, input_size=128)  # what is said at the call goes before
    assert model.input_size == 128


def test_the_cfg_may_be_named_by_a_constant(mine, text, tmp_path, monkeypatch):
    (tmp_path / "elsewhere.txt").write_text(text)
    monkeypatch.setattr(configs, "YOLO_CFG", str(tmp_path / "elsewhere.txt"))
    assert configured_model(mine, NAMES)[0].input_size == 96
    monkeypatch.setattr(configs, "YOLO_CFG", "nowhere.cfg")
    with pytest.raises(UserError, match="nowhere.cfg cannot be read: No such file"):
        configured_model(mine, NAMES)


def test_other_names_than_the_cfg_has_classes_are_one_line(mine, text, cfg):
    cfg(text)
    with pytest.raises(UserError, match=r"mine.cfg has 2 classes, but 3 are named: name a file in TRAIN_CLASSES"):
        configured_model(mine, ["a", "b", "c"])


def test_weights_without_a_cfg_are_told_to_be_decoded_with_published_anchors(mine, monkeypatch, capsys):
    assert configured_model(mine, NAMES)[0].heads == NETWORKS["yolov4-tiny"].heads
    assert capsys.readouterr().out == (
        f"{mine} is not the official file; its boxes are decoded with the published anchors of yolov4-tiny: if it was "
        "trained with others, put its cfg beside it as mine.cfg, or set YOLO_CFG or YOLO_ANCHORS\n"
    )
    monkeypatch.setattr(configs, "YOLO_ANCHORS", ANCHORS)
    configured_model(mine, NAMES)
    assert capsys.readouterr().out == ""


def test_a_file_in_an_official_ones_place_is_used_and_told(mine, monkeypatch, capsys):
    official = mine.with_name("yolov4-tiny.weights")
    mine.rename(official)
    monkeypatch.setitem(OFFICIAL, official.name, Official(official.stat().st_size, ("0" * 64,), ()))
    monkeypatch.setattr(configs, "YOLO_ANCHORS", ANCHORS)
    assert configured_model(official, NAMES)[1] == official
    assert capsys.readouterr().out == f"{official} is not the official file of that name: its SHA-256 is another\n"


def test_trained_weights_with_their_cfg_get_the_anchors_they_were_trained_with(shared, mine):
    """Whose fine head has mask = 1,2,3, and whose cfg has neither suppression nor scale_x_y."""
    cfg, weights = shared / "weights" / "yolov3-tiny-zynq7.cfg", mine.with_name("toys.weights")
    mine.rename(weights)
    weights.with_suffix(".cfg").write_bytes(cfg.read_bytes())
    model, _ = configured_model(weights, shared / "weights" / "classes7.names", yolo_type="yolov3", tiny=True)
    assert (model.heads.anchors, model.input_size, model.heads.nms) == (ANCHORS, 416, "iou")


def test_a_converter_looks_for_the_folder_of_the_cfgs_size(mine, text, cfg, monkeypatch):
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", str(mine))
    monkeypatch.setattr(configs, "TRAIN_CLASSES", NAMES)
    assert conversion.configured_source().input_size == 64
    cfg(text)
    assert conversion.configured_source().input_size == configured_model(mine, NAMES)[0].input_size == 96
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", "checkpoints/yolov4-tiny-trt-INT8-64")
    assert conversion.configured_source() is None  # it is not there yet


def test_the_official_file_needs_no_words(monkeypatch, capsys):
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", None)
    monkeypatch.setattr(configs, "YOLO_FRAMEWORK", "tf")
    configured_model(yolo_type="yolov3", tiny=True)
    assert capsys.readouterr().out == ""
