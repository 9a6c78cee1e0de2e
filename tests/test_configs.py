"""configs.py with a mistake in it: every script says so in one line, whatever the constant and the value."""

import contextlib
import importlib
import io
import itertools
import subprocess
import sys

from yolov3 import configs
from yolov3.checks import PROJECT
from yolov3.runtimes import tf as runtime

import pytest

BAD = (None, -1, 2**31, -(10**400), "x" * 300, "a\0b", object())
SCRIPTS = {
    "detection_demo": ["IMAGES/coffee.jpg"],
    "Anchors": ["IMAGES/digits/digits.txt", "--classes", "model_data/digits/digits.names"],
}


class AllChecked(Exception):
    """The script would go to work now."""


def go_to_work(*_, **__):
    raise AllChecked


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_no_value_of_any_constant_ends_in_a_traceback(script, monkeypatch):
    """Of any constant that the script reads: it cannot know what the others are."""
    monkeypatch.setattr(runtime, "keras_network", go_to_work)
    monkeypatch.setattr(sys, "argv", [script, *SCRIPTS[script]])
    main, read = importlib.import_module(script).main, set()

    class Watched(type(configs)):
        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(AllChecked):
        patch.setattr(configs, "__class__", Watched)
        main()
    constants = sorted(name for name in read if name.isupper())
    assert len(constants) > 3
    for name, value in itertools.product(constants, BAD):
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
            patch.setattr(configs, name, value)
            try:
                main()
            except AllChecked:
                continue  # it takes the value
            except SystemExit as end:
                told = str(end.code)
                assert told.startswith("error: ") and "\n" not in told, (name, value)


@pytest.mark.parametrize("value", [None, 5, "a\0b"])
@pytest.mark.parametrize(
    ("script", "constant"),
    [
        ("Check_annotations", "TRAIN_ANNOT_PATH"),
        ("Check_annotations", "TRAIN_CLASSES"),
        ("Anchors", "TRAIN_ANNOT_PATH"),
        ("Anchors", "TRAIN_CLASSES"),
        ("evaluate_mAP", "TEST_ANNOT_PATH"),
        ("train", "TRAIN_CLASSES"),
        ("train", "TRAIN_ANNOT_PATH"),
        ("train", "TRAIN_MODEL_NAME"),
        ("train", "TRAIN_LOGDIR"),
    ],
)
def test_a_constant_that_must_be_a_path_is_named(script, constant, value, monkeypatch):
    monkeypatch.setattr(configs, constant, value)
    monkeypatch.setattr(sys, "argv", [script])
    with pytest.raises(SystemExit, match=f"^error: {constant} = "):
        importlib.import_module(script).main()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("YOLO_INPUT_SIZE = (416", "line 13"),
        ("YOLO_INPUT_SIZE = FP32", "line 13: name 'FP32' is not defined"),
        (
            "YOLO_INPUT_SIZ = 416",
            "does not have YOLO_INPUT_SIZE: put the line back, or is it YOLO_INPUT_SIZ, misspelt?",
        ),
        ('YOLO_INPUT_SIZE = "C:\\Users\\me"', "line 13"),
    ],
)
def test_a_configs_py_that_python_does_not_understand_is_one_line(written, said, tmp_path):
    text = (PROJECT / "yolov3" / "configs.py").read_text()
    lines = text.split("\n")
    (number,) = (i for i, line in enumerate(lines) if line.startswith("YOLO_INPUT_SIZE"))
    lines[number] = written
    code = (
        "import sys, importlib.util\n"
        "import importlib.abc\n"
        f"text = {chr(10).join(lines)!r}\n"
        "class Loader(importlib.abc.Loader):\n"
        "    def exec_module(self, module):\n"
        "        exec(compile(text, 'configs.py', 'exec'), module.__dict__)\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        return importlib.util.spec_from_loader(name, Loader()) if name == 'yolov3.configs' else None\n"
        "sys.meta_path.insert(0, Finder())\n"
        "import detection_demo\n"
        "detection_demo.main()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    said = said.replace("line 13", f"line {number + 1}")
    assert run.returncode == 1 and run.stderr.startswith("error: yolov3/configs.py") and said in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_python_without_tensorflow_says_how_to_start(tmp_path):
    code = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'tensorflow' else find(name, *rest)\n"
        "import detection_demo"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: this Python (") and "lacks TensorFlow: activate" in run.stderr
    assert run.stderr.count("\n") == 1
