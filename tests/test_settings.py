"""--config and --set: what they replace, what they refuse, and where the settings of a run go."""

import importlib
import os
import re
import runpy
import sys
from pathlib import Path

from tools.benchmarks.measuring import run_in_child
from yolov3 import configs, settings
from yolov3.checks import PROJECT, UserError
from yolov3.settings import ScriptParser, apply, constants, write_settings

import pytest

SCRIPTS = [
    *(path.stem for path in PROJECT.glob("*.py")),
    *(path.stem for path in (PROJECT / "tools").glob("[A-Z]*.py")),
    *(
        f"tools.{path.parent.name}.{path.stem}"
        for path in (PROJECT / "tools").glob("*/*.py")
        if "def main" in path.read_text()
    ),
]


@pytest.fixture(autouse=True)
def restored():
    """The environment, which some scripts change as they are imported, is what it was."""
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)


def made(monkeypatch, *words):
    """The parser of a script with that command line."""
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
    return ScriptParser("A script.")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_takes_settings_and_says_so(script, monkeypatch, capsys):
    main = importlib.import_module(script).main
    monkeypatch.setattr(sys, "argv", [script, "--set", "TRAIN_EPOCS=3"])
    with pytest.raises(SystemExit, match="error: --set: .* does not have TRAIN_EPOCS: is it TRAIN_EPOCHS"):
        main()
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert "--config FILE" in shown and "--set NAME=VALUE" in shown


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("TRAIN_EPOCHS=50", 50),
        ("TRAIN_LR_INIT=3e-4", 3e-4),
        ("TRAIN_FLIP=True", True),
        ("TRAIN_ANCHORS=None", None),
        ("TRAIN_MULTISCALE=(320, 352)", (320, 352)),
        ("YOLO_TYPE=yolov4", "yolov4"),
        ("YOLO_TYPE='yolov4'", "yolov4"),
        ("TRAIN_CLASSES=data/my names.names", "data/my names.names"),
        ("DETECT_SOURCE=rtsp://host/a?b=c", "rtsp://host/a?b=c"),
        ("DETECT_OUTPUT=", ""),
        ("TRAIN_MODEL_NAME=(oh", "(oh"),
        ("YOLO_MAX_PIXELS=" + "9" * 5000, "9" * 5000),
    ],
)
def test_a_value_is_a_literal_or_else_text(word, value, monkeypatch):
    made(monkeypatch, "--set", word).parse_args()
    assert getattr(configs, word.partition("=")[0]) == value


def test_set_wins_over_config_and_the_last_one_over_all_before(monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("import os\nTRAIN_EPOCHS = 7\nTRAIN_SEED = 7\nYOLO_TYPE = 'yolov4'\n")
    (tmp_path / "more.py").write_text(
        "where = 'checkpoints'\nTRAIN_SEED = 8\nYOLO_CUSTOM_WEIGHTS = f'{where}/{YOLO_TYPE}'"
    )
    words = "--set", "TRAIN_EPOCHS=1", "--config", tmp_path / "mine.py", "--config", tmp_path / "more.py"
    parser = made(monkeypatch, *words, "--set", "TRAIN_EPOCHS=2", "photo.jpg", "--size", 9)
    parser.add_argument("source")
    parser.add_argument("--size", type=int, default=configs.YOLO_INPUT_SIZE)
    arguments = parser.parse_args()
    assert (arguments.source, arguments.size) == ("photo.jpg", 9)
    assert (configs.TRAIN_EPOCHS, configs.TRAIN_SEED) == (2, 8)
    assert configs.YOLO_CUSTOM_WEIGHTS == "checkpoints/yolov4"


def test_without_settings_nothing_is_read_or_changed(monkeypatch):
    before = constants()
    monkeypatch.setattr(settings, "read_file", None)
    assert not made(monkeypatch, "photo.jpg").has_settings
    assert constants() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TRAIN_EPOCHS = (50", "settings file mine.py line 1: "),
        ("\nYOLO_TYPE = yolov4", "settings file mine.py line 2: name 'yolov4' is not defined"),
        ("TRAIN_EPOCHS = 1 / 0", "settings file mine.py line 1: division by zero"),
        ("\0", "settings file mine.py"),
        ("TRAIN_EPOCS = 50", "settings file mine.py: yolov3/configs.py does not have TRAIN_EPOCS: is it TRAIN_EPOCHS?"),
        ("train_epochs = 50", "does not have train_epochs: is it TRAIN_EPOCHS?"),
    ],
)
def test_a_settings_file_with_a_mistake_is_one_line(text, said, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    before = constants()
    with pytest.raises(UserError) as error:
        made(monkeypatch, "--config", "mine.py", "--set", "TRAIN_SEED=5")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert constants() == before


def test_a_missing_settings_file_and_a_word_without_a_value_are_one_line(monkeypatch):
    with pytest.raises(UserError, match="settings file nowhere.py is missing"):
        made(monkeypatch, "--config", "nowhere.py")
    with pytest.raises(UserError, match="--set yolov4: write NAME=VALUE"):
        made(monkeypatch, "--set", "yolov4")


@pytest.mark.parametrize("words", [["--conf", "mine.py"], ["--se", "TRAIN_EPOCHS=50"], ["--set"]])
def test_what_would_not_be_applied_is_refused(words, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        made(monkeypatch, *words).parse_args()
    assert re.search("write --config and --set in full|expected one argument", capsys.readouterr().err)


def test_a_word_names_a_subset_where_data_sets_come_in_subsets(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script.py", "--set", "val", "--set", "TRAIN_EPOCHS=2"])
    assert ScriptParser("A converter.", "train, val").parse_args().subset == "val"
    assert configs.TRAIN_EPOCHS == 2


def test_a_constant_made_of_a_replaced_one_is_refused_unless_it_is_given_too(monkeypatch, tmp_path):
    text = Path(configs.__file__).read_text()
    text = text.replace("TEST_INPUT_SIZE = None", "size = YOLO_INPUT_SIZE\nTEST_INPUT_SIZE = size")
    (tmp_path / "configs.py").write_text(text)
    monkeypatch.setattr(configs, "__file__", str(tmp_path / "configs.py"))
    with pytest.raises(UserError, match="TEST_INPUT_SIZE in yolov3/configs.py is made of YOLO_INPUT_SIZE, which --set"):
        apply([], ["YOLO_INPUT_SIZE=608"])
    apply([], ["YOLO_INPUT_SIZE=608", "TEST_INPUT_SIZE=608"])
    (tmp_path / "mine.py").write_text("YOLO_INPUT_SIZE = 320\nTEST_INPUT_SIZE = YOLO_INPUT_SIZE")
    apply([tmp_path / "mine.py"], [])
    assert configs.TEST_INPUT_SIZE == 320
    with pytest.raises(UserError, match="TEST_INPUT_SIZE in .*mine.py is made of YOLO_INPUT_SIZE, which --set"):
        apply([tmp_path / "mine.py"], ["YOLO_INPUT_SIZE=608"])


@pytest.mark.slow
def test_processes_of_benchmarks_and_workers_of_a_cluster_have_the_settings():
    pytest.importorskip("ray.data", reason="needs requirements/ray.txt")
    apply([], ["YOLO_INPUT_SIZE=608"])
    assert run_in_child(configured_size) == 608
    assert importlib.import_module("tools.cluster.ray_cluster").configured_constants(1)["YOLO_INPUT_SIZE"] == 608


def configured_size():
    return configs.YOLO_INPUT_SIZE


@pytest.mark.parametrize("word", ["TRAIN_ANNOT_PATH=None", "TRAIN_CLASSES=5", "TEST_ANNOT_PATH=0", "TRAIN_LOGDIR=()"])
def test_a_constant_that_must_be_a_path_is_named_where_it_is_not(word, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["Check_annotations.py", "--set", word])
    for name in ("TRAIN_ANNOT_PATH", "TRAIN_CLASSES", "TEST_ANNOT_PATH", "TRAIN_LOGDIR"):
        monkeypatch.setattr(configs, name, getattr(configs, name))  # put back, whatever --set says
    with pytest.raises(UserError, match=rf"^{word.partition('=')[0]} = .* is not a path"):
        ScriptParser("")


def test_the_settings_of_a_run_are_a_file_that_config_takes(monkeypatch, tmp_path):
    made(monkeypatch, "--set", "TRAIN_EPOCHS=3", "--set", "DETECT_SOURCE=rtsp://me:secret@cam/1")
    configs.TRAIN_ANNOT_PATH = tmp_path / "train.txt"
    write_settings(tmp_path)
    (tmp_path / "out.mp4").write_text("")
    write_settings(tmp_path / "out.mp4")
    written = tmp_path / "settings.py"
    assert (tmp_path / "out.settings.py").read_text() == written.read_text()
    assert "secret" not in written.read_text() and "TRAIN_EPOCHS=3" in written.read_text().splitlines()[1]
    names = {name: value for name, value in runpy.run_path(str(written)).items() if name.isupper()}
    expected = constants() | {"TRAIN_ANNOT_PATH": str(tmp_path / "train.txt"), "DETECT_SOURCE": "rtsp://me:***@cam/1"}
    assert names == expected
    configs.TRAIN_EPOCHS = 4
    apply([str(written)], [])
    assert configs.TRAIN_EPOCHS == 3


def test_a_file_of_that_name_that_no_run_has_written_stays(tmp_path, capsys):
    (tmp_path / "settings.py").write_text("DEBUG = True\n")
    write_settings(tmp_path)
    assert (tmp_path / "settings.py").read_text() == "DEBUG = True\n"
    assert "is left as it is" in capsys.readouterr().err
