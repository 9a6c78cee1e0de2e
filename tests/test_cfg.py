"""Darknet's cfg files: what they say of networks, and one line with file, section and line when they are wrong."""

import re

from yolov3 import configs, conversion, heads
from yolov3.cfg.network import read_network
from yolov3.cfg.write import cfg_text, rewrite
from yolov3.checks import UserError
from yolov3.downloads import OFFICIAL
from yolov3.heads import cfg_size
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
    return cfg_text(network, NETWORKS["yolov4-tiny"].heads, 2, (96, 96))


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


def rows_of(cfg):
    return [(row.inputs, row.channels, row.stride, row.options) for row in cfg.rows]


@pytest.mark.parametrize("name", NETWORKS)
def test_darknets_own_cfgs_say_what_the_project_has_published_and_writes(shared, tmp_path, name):
    file = shared / "darknet" / f"{name if name != 'yolov3-tiny' else 'yolov3-tiny-mask123'}.cfg"
    network, published = read_network(file), NETWORKS[name]
    assert network.heads == published.heads
    assert (network.cfg.classes, cfg_size(network)) == (80, (608, 608) if name == "yolov4" else (416, 416))
    ours = Create_Yolo(32, published.type, published.tiny, 80, features=True)
    (tmp_path / "ours.cfg").write_text(cfg_text(ours, published.heads, 80, (32, 32)))
    assert rows_of(read_network(tmp_path / "ours.cfg").cfg) == rows_of(network.cfg)


def test_masks_mean_what_they_say(shared):
    heads = read_network(shared / "darknet" / "yolov3-tiny.cfg").heads
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
    "options of training": lambda text: text.replace("[yolo]", "[yolo]\njitter=.3\niou_loss=ciou\nrandom=1").replace(
        "[net]", "[net]\npolicy=steps\nsteps=1,2\nscales=.1,.1\nmosaic=1"
    ),
    "an option twice": lambda text: text.replace("classes=2", "classes=2\nclasses=80"),
    "layers from the first": lambda text: text.replace("layers=-1,-18", "layers=-1,21", 1),
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE)
def test_a_cfg_may_be_written_in_many_ways(cfg, text, way):
    said = read_network(cfg(WAYS_TO_WRITE[way](text)))
    assert (said.heads, said.cfg.classes, cfg_size(said)) == (NETWORKS["yolov4-tiny"].heads, 2, (96, 96))
    assert rows_of(said.cfg) == rows_of(read_network(cfg(text)).cfg)


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
    heads = read_network(cfg(f"{first}{kind}\n{last}")).heads
    assert (heads.nms, heads.beta_nms) == (nms, beta)
    assert read_network(cfg(cfg_text(network, heads, 2, (96, 96)))).heads == heads


def test_other_numbers_are_written_where_they_stood(cfg, text):
    said = read_network(cfg(text.replace("num=6", "").replace("[net]", "[net]\nhue=.1  # as it was"))).cfg
    anchors = (((1, 2), (3.5, 4)), ((5, 6), (7, 8), (9, 10), (11, 12)))
    with pytest.raises(UserError, match=r"filters=21, but .* has 4 anchors and 2 classes: write filters=28"):
        read_network(cfg(rewrite(said, said.heads._replace(anchors=anchors))))  # heads of other anchors are others
    anchors = tuple(tuple((w + 1, h * 2) for w, h in head) for head in said.heads.anchors)
    written = rewrite(said, said.heads._replace(anchors=anchors), classes=7, size=(64, 128))
    again = read_network(cfg(written))
    assert again.heads == said.heads._replace(anchors=anchors)
    assert (again.cfg.classes, again.cfg.size) == (7, (64, 128))
    assert [row.channels for row in again.cfg.rows if row.name == "yolo"] == [36, 36]
    assert "hue=.1  # as it was" in written
    assert rewrite(said) == rewrite(said, said.heads, 2, (96, 96)) == said.text


WRONG = {  # what is replaced, by what -> what is said behind the file's name
    "a word for a number": (
        "filters=64",
        "filters=many",
        r"section 1 \[convolutional\], line \d+: filters=many must be",
    ),
    "half a number": ("filters=64", "filters=6.5", r"section 1 .* filters=6.5 must be a whole number"),
    "nothing": ("filters=64", "filters=0", r"section 1 .* filters=0 must be a whole number, 1 or more"),
    "two numbers": ("filters=64", "filters=6,4", r"section 1 .* filters=6,4 must be one number"),
    "no number": ("anchors=", "anchors=x", r"section 30 \[yolo\], line \d+: anchors=x.* must be a number or several"),
    "not finite": ("scale_x_y=1.05", "scale_x_y=nan", r"section 30 .* scale_x_y=nan must be"),
    "no scale": ("scale_x_y=1.05", "scale_x_y=0", r"section 30 .* scale_x_y=0 must be above 0"),
    "a misspelt option": (
        "anchors=",
        "ankers=",
        r"section 30 \[yolo\].* ankers=.* is not known: is it anchors?",
    ),
    "an option of another section": ("[maxpool]", "[maxpool]\nfilters=3", r"\[maxpool\], .* filters=3 is not known"),
    "an anchor of nothing": ("anchors=23", "anchors=0", "anchors must be pairs of width and height in pixels, above 0"),
    "half an anchor": ("anchors=23,", "anchors=", "anchors must be pairs"),
    "mask too long": ("mask=0,1,2", "mask=0,1,2,3", r"section 36 .* filters=21, but .* 4 anchors .* write filters=28"),
    "mask too far": (
        "mask=0,1,2",
        "mask=4,5,6",
        r"section 37 .* mask names anchor 6, but there are 6 anchors",
    ),
    "num too small": ("num=6", "num=4", r"section 30 .* mask names anchor 4, but num=4, counted from 0"),
    "filters forgotten": (
        "filters=21",
        "filters=255",
        r"section 29 \[convolutional\], line \d+: filters=255, but the \[yolo\] behind it has 3 anchors and 2 classes: "
        r"write filters=21, which is 3 x \(5 \+ 2\)",
    ),
    "classes forgotten": ("classes=2", "classes=3", r"section 29 .* filters=21, but .* 3 classes: write filters=24"),
    "no classes": ("classes=2", "classes=0", r"section 30 .* classes=0 must be a whole number, 1 or more"),
    "another activation": (
        "activation=leaky",
        "activation=hard_mish",
        r"section 0 .* activation=hard_mish is not known: choose one of",
    ),
    "dilated": ("stride=2", "stride=2\ndilation=2", r"section 0 .* dilation=2 is not implemented"),
    "binary weights": ("stride=2", "stride=2\nxnor=1", r"section 0 .* xnor=1 is not implemented"),
    "binary outputs": ("stride=2", "stride=2\nbin_output=1", r"section 0 .* bin_output=1 is not implemented"),
    "shared weights": (
        "filters=64\nsize=3\nstride=1",
        "share_index=0\nfilters=64\nsize=3",
        "share_index=0 is not",
    ),
    "other strides": ("stride=2", "stride=2\nstride_x=1", r"stride_y=2 and stride_x=1 must be the same"),
    "groups that do not divide": ("filters=64", "filters=64\ngroups=3", r"groups=3 does not divide the 32 channels"),
    "weighted shortcut": (
        "[maxpool]",
        "[shortcut]\nfrom=-2\nweights_type=per_channel\n[maxpool]",
        "weights_type=per_channel is not known: choose one of none",
    ),
    "half new coordinates": (
        "num=6",
        "num=6\nnew_coords=1",
        r"section 29 .* activation=linear must be logistic",
    ),
    "batch normalisation before [yolo]": (
        "batch_normalize=0",
        "batch_normalize=1",
        r"section 30 \[yolo\].* before a \[yolo\] must be a \[convolutional\] without batch_normalize",
    ),
    "nothing before [yolo]": (
        "[yolo]",
        "[dropout]\n[yolo]",
        r"section 31 .* before a \[yolo\] must be a \[conv",
    ),
    "a layer behind [yolo]": (
        "layers=-4",
        "layers=-1",
        r"section 31 \[route\].* layers=-1 names layer 30, a \[yolo",
    ),
    "a route to nowhere": (
        "layers=-6,-1",
        "layers=-99,-1",
        r"section 8 \[route\].* layers=-99,-1 is not a layer before",
    ),
    "a route to itself": ("layers=-6,-1", "layers=-6,8", r"section 8 \[route\].* layers=-6,8 is not a layer before"),
    "a route of nothing": ("layers=-6,-1", "groups=1", r"section 8 \[route\].* layers= is not a layer before"),
    "maps of two sizes": (
        "layers=-6,-1",
        "layers=0,-1",
        r"section 8 \[route\].* layer 0 is 48 x 48, but layer 7 is 24",
    ),
    "a group too far": ("group_id=1", "group_id=2", r"section 3 \[route\].* group_id=2 is not one of 2 groups"),
    "an unused convolution": ("layers=-6,-1", "layers=-6", r"section 7 .* no \[yolo\] depends on this layer"),
    "classes apart": (
        "classes=2\nnum=6\nscale_x_y=1.05\nnms_kind=greedynms\nbeta_nms=0.6\n\n[route]",
        "classes=3\nnum=6\n\n[route]",
        r"section 29 .* filters=21, but .* 3 classes: write filters=24",
    ),
    "unknown suppression": ("greedynms", "softnms", r"nms_kind=softnms is not known: choose one of default"),
    "a negative power": ("greedynms\nbeta_nms=0.6", "diounms\nbeta_nms=-1", r"beta_nms=-1 must be from 0 to 100"),
    "another section": ("[maxpool]", "[maxpol]", r"section 9 \[maxpol\].* is not implemented: is it \[maxpool\]?"),
    "a section of Darknet's": ("[maxpool]", "[crnn]", r"section 9 \[crnn\], line \d+: \[crnn\] is not implemented"),
    "YOLOv2": ("[yolo]", "[region]", r"section 30 \[region\], line \d+: this is a network of YOLOv1 or YOLOv2"),
    "a classifier": ("[yolo]", "[softmax]", r"has no \[yolo\]: it is the cfg of a classifier"),
    "a large window": (
        "size=3\nstride=2\npad=1",
        "size=99\nstride=2",
        r"section 0 .* its map of 96 x 96 is smaller than its window",
    ),
    "a window without a pixel": ("[maxpool]", "[maxpool]\npadding=3", "padding=3 leaves windows without a pixel: 2 is"),
    "too many weights": ("filters=32", "filters=2000000000", r"section 0 .* has 62,000,000,000 weights"),
    "a large map": (
        "[upsample]",
        "[upsample]\nstride=1000000\n[maxpool]\nstride=1000000\n[upsample]",
        r"its map of .* is too large",
    ),
    "too wide": ("width=96", "width=8192", r"height and width in .*\) is \(96, 8192\): make each side 4096 at most"),
    "no width": ("width=96", "hue=1", r"section \[net\], line \d+: width= must be a whole number, 1 or more"),
    "grey": ("channels=3", "channels=1", r"section \[net\], line \d+: channels=1 is not implemented: 3 is"),
    "an odd size": ("96", "100", r"its 4 x 4 cells do not divide an input of 100 x 100 pixels: .*multiple of 32"),
    "nonsense": ("width=96", "width 96", r"line \d+: 'width 96' is neither \[section\] nor option=value"),
    "no network": ("[net]", "[yolo]", r"first section must be \[net\]"),
    "binary": ("[net]", "\0[net]", "it is not a text file"),
    "ten thousand sections": ("[net]", "[net]\n" + "[dropout]\n" * 10_000, "has 10,039 sections; a cfg may have 2,000"),
}
EVERYWHERE = ("an odd size", "YOLOv2", "a classifier")  # replaced at each place
LAST = ("unknown suppression", "a negative power", "mask too far")


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_cfg_is_one_line_with_file_section_and_line(cfg, text, wrong):
    old, new, said = WRONG[wrong]
    first, found, rest = text.rpartition(old) if wrong in LAST else text.partition(old)
    changed = f"{first}{new}{rest}" if wrong not in EVERYWHERE else text.replace(old, new)
    assert found
    file = cfg(changed)
    with pytest.raises(UserError, match=said) as error:
        cfg_size(read_network(file))
    message = str(error.value)
    assert str(file) in message and "\n" not in message


@pytest.mark.parametrize("wrong", ["a word for a number", "filters forgotten", "dilated", "another activation"])
def test_the_line_is_that_of_the_option(cfg, text, wrong):
    old, new, _ = WRONG[wrong]
    changed = text.replace(old, new, 1)
    with pytest.raises(UserError) as error:
        read_network(cfg(changed))
    told = changed.split("\n")[int(re.search(r"line (\d+)", str(error.value))[1]) - 1]
    assert told == new.split("\n")[-1]


def test_a_cfg_that_ends_early_or_holds_nothing_is_told(cfg, text):
    for content, said in (
        ("", "is not a Darknet cfg"),
        ("[net]\nwidth=96", r"has no \[yolo\]: it is the cfg of a classifier, or cut off"),
        (text[: text.rindex("[yolo]")], r"section 36 .* no \[yolo\] depends on this layer"),
    ):
        with pytest.raises(UserError, match=said):
            read_network(cfg(content))


# --- Beside a .weights file ------------------------------------------------------------------------------------------


def test_a_cfg_beside_the_weights_speaks_for_them(mine, text, cfg, monkeypatch, capsys):
    monkeypatch.setattr(configs, "YOLO_ANCHORS", ANCHORS[::-1])
    file = cfg(text.replace("scale_x_y=1.05", "scale_x_y=1.2").replace("anchors=23", "anchors=24"))
    for _ in range(2):
        model, _ = configured_model(mine, NAMES)
        assert model.input_size == (96, 96)
        assert model.heads.anchors[0] == ((24, 27), (37, 58), (81, 82))
        assert model.heads.scale_x_y == (1.2, 1.2)
    assert capsys.readouterr().out == (
        f"{file} gives the network, its anchors, 2 classes, an input of 96 x 96 pixels, in place of YOLO_ANCHORS and "
        "YOLO_INPUT_SIZE = 64\n"
    )
    model, _ = configured_model(mine, NAMES, input_size=128)  # what is said at the call goes before
    assert model.input_size == (128, 128)


def test_the_cfg_may_be_named_by_a_constant(mine, text, tmp_path, monkeypatch):
    (tmp_path / "elsewhere.txt").write_text(text)
    monkeypatch.setattr(configs, "YOLO_CFG", str(tmp_path / "elsewhere.txt"))
    assert configured_model(mine, NAMES)[0].input_size == (96, 96)
    monkeypatch.setattr(configs, "YOLO_CFG", "nowhere.cfg")
    with pytest.raises(UserError, match="cfg .*nowhere.cfg is missing: name a Darknet .cfg"):
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
    assert (model.heads.anchors, model.input_size, model.heads.nms) == (ANCHORS, (416, 416), "iou")


def test_a_converter_looks_for_the_folder_of_the_cfgs_size(mine, text, cfg, monkeypatch):
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", str(mine))
    monkeypatch.setattr(configs, "TRAIN_CLASSES", NAMES)
    assert conversion.configured_source()[0].input_size == (64, 64)
    cfg(text)
    assert conversion.configured_source()[0].input_size == configured_model(mine, NAMES)[0].input_size == (96, 96)
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", "checkpoints/yolov4-tiny-trt-INT8-64")
    assert conversion.configured_source()[0] is None  # it is not there yet


def test_the_official_file_needs_no_words(monkeypatch, capsys):
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", None)
    monkeypatch.setattr(configs, "YOLO_FRAMEWORK", "tf")
    configured_model(yolo_type="yolov3", tiny=True)
    assert capsys.readouterr().out == ""
