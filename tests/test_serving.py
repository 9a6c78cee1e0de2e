"""The client against a server of TensorFlow Serving's own stubs, and the command line of TensorFlow's own."""

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from yolov3 import configs
from yolov3.checks import PROJECT, UserError
from yolov3.images import read_picture
from yolov3.loading import SHIPPED, Load_Yolo_model
from yolov3.runtimes import savedmodel

import numpy as np
import pytest

SIZE = 160
SERVER = PROJECT / "tests" / "prediction_server.py"
ENVIRONMENT = {  # TensorFlow 2.17's stubs are older than its protobuf
    **{name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")},
    "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint folder with its SavedModel in a version's subfolder."""
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        import Convert_to_pb

        constants = {"TRAIN_CHECKPOINTS_FOLDER": str(checkpoints), "YOLO_CUSTOM_WEIGHTS": SHIPPED}
        for name, value in {**constants, "YOLO_INPUT_SIZE": SIZE}.items():
            patch.setattr(configs, name, value)
        patch.setattr(sys, "argv", ["script", "--version", "3"])
        Convert_to_pb.main.__wrapped__()
    return checkpoints / f"yolov4-tiny-digits-{SIZE}"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five pictures and a broken one, the third by its name."""
    place = tmp_path_factory.mktemp("pictures")
    for i in range(5):
        shutil.copy(PROJECT / "IMAGES" / "digits" / f"{i:05d}.jpg", place)
    (place / "00001b.jpg").write_bytes((place / "00001.jpg").read_bytes()[:3000])
    return place


@pytest.fixture(scope="module")
def server(folder):
    """The addresses of a server for gRPC and REST."""
    command = [sys.executable, SERVER, folder / "3"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield [f"localhost:{port}" for port in process.stdout.readline().split()]
        finally:
            process.kill()


@pytest.fixture
def ask(monkeypatch, capsys):
    """ask(source, option ...) -> exit code of the client, one dict a line, stderr; run in this process."""

    def run(source, *options):
        monkeypatch.setattr(sys, "argv", ["client.py", *map(str, (source, *options))])
        code = importlib.import_module("tools.serving.client").main.__wrapped__()
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return run


@pytest.mark.slow
def test_grpc_and_rest_answer_as_the_detector(server, ask, pictures, tmp_path):
    grpc, rest = server
    code, lines, err = ask(pictures, "--address", grpc, "--batch", 4, "--in-flight", 2)
    assert code == 1 and "5 of 6 pictures answered" in err and "error: 1 pictures: cannot be decoded" in err
    assert all(word in err for word in ("p50", "p90", "p99"))
    assert [line["source"] for line in lines] == [str(x) for x in sorted(pictures.iterdir())]
    assert "error" in lines.pop(2)
    detector = Load_Yolo_model(SHIPPED, input_size=SIZE)
    frames = [read_picture(line["source"], 10**9) for line in lines]
    for line, found in zip(lines, detector(frames), strict=True):
        np.testing.assert_allclose(np.reshape(line["boxes"], (-1, 4)), found.boxes, atol=0.05)
        np.testing.assert_allclose(line["scores"], found.scores, atol=1e-4)
        assert line["classes"] == found.classes.tolist()

    options = ("--rest", "--names", "model_data/digits/digits.names", "--output", tmp_path / "out.jsonl")
    assert ask(pictures, "--address", rest, *options)[:2] == (1, [])
    by_rest = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [x["classes"] for i, x in enumerate(by_rest) if i != 2] == [list(map(str, x["classes"])) for x in lines]


@pytest.mark.slow
@pytest.mark.parametrize(("way", "first", "second"), [("grpc", "00000", "00002"), ("rest", "00001", "00003")])
def test_a_busy_server_is_asked_again(server, ask, pictures, way, first, second):
    options = ("--address", server[way == "rest"], "--model", "busy", *(["--rest"] if way == "rest" else []))
    code, lines, _ = ask(pictures / f"{first}.jpg", *options)
    assert code == 0 and lines[0]["boxes"]
    code, lines, err = ask(pictures / f"{second}.jpg", *options, "--retries", 1)
    assert code == 1 and ("busy" in lines[0]["error"] or "503" in lines[0]["error"]), err


@pytest.mark.slow
@pytest.mark.parametrize("model", ["garbage", "slow"])
def test_garbage_and_silence_are_lines_with_an_error(server, ask, pictures, model):
    for address, way in zip(server, ([], ["--rest"]), strict=True):
        options = ("--address", address, *way, "--model", model, "--timeout", 1, "--retries", 0)
        code, lines, _ = ask(pictures / "00000.jpg", *options)
        assert code == 1
        assert any(word in lines[0]["error"] for word in ("answer", "deadline", "Timeout"))


@pytest.mark.slow
def test_a_server_that_is_not_there_is_said(ask, pictures):
    options = ("--address", "localhost:9", "--retries", 0)
    for way, reason in ((["--rest"], "ConnectionRefusedError"), ([], "unavailable")):
        code, lines, _ = ask(pictures / "00000.jpg", *options, *way)
        assert code == 1 and lines[0]["error"].startswith(reason)
    with pytest.raises(UserError):
        ask(pictures / "none", "--rest")


def test_a_file_name_that_is_not_unicode_loses_no_answer(pictures, tmp_path, monkeypatch):
    names = [os.fsencode(tmp_path / "photos" / name) for name in ("a.jpg", "c.jpg")]
    names.insert(1, os.fsencode(tmp_path / "photos") + b"/b\xff.jpg")
    (tmp_path / "photos").mkdir()
    for name in names:
        shutil.copy(pictures / "00000.jpg", os.fsdecode(name))
    output = tmp_path / "out.jsonl"
    options = ["--rest", "--address", "localhost:9", "--retries", "0", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["client.py", str(tmp_path / "photos"), *options])
    assert importlib.import_module("tools.serving.client").main.__wrapped__() == 1  # nobody answers at that address
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [os.fsencode(line["source"]) for line in lines] == names


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_any_encoding_is_given_json(pictures, tmp_path, monkeypatch, encoding):
    names = ["caf\u00e9.jpg", "\u4e2d\u6587.jpg", "\U0001f600.jpg", "x\udcff.jpg"]
    for name in names:
        shutil.copy(pictures / "00000.jpg", tmp_path / name)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding)
    command = ["client.py", str(tmp_path), "--rest", "--address", "localhost:9", "--retries", "0"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(sys, "stdout", terminal)
    importlib.import_module("tools.serving.client").main()
    terminal.flush()
    lines = [json.loads(line) for line in terminal.buffer.getvalue().decode().splitlines()]
    assert {Path(line["source"]).name for line in lines} == set(names)


@pytest.mark.slow
def test_a_folder_with_versions_is_a_checkpoint_like_any_other(folder):
    assert savedmodel.place(folder) == folder / "3"
    assert Load_Yolo_model(folder, input_size=SIZE).spec.framework == "tf"


@pytest.mark.slow
def test_tensorflows_own_command_line_runs_both_signatures(folder, tmp_path):
    tool = [shutil.which("saved_model_cli", path=Path(sys.executable).parent), "run", "--dir", folder / "3"]
    data = (PROJECT / "IMAGES" / "digits" / "00000.jpg").read_bytes()
    np.save(tmp_path / "file.npy", np.array([data], object), allow_pickle=True)
    np.save(tmp_path / "images.npy", np.zeros((1, SIZE, SIZE, 3), np.float32))
    for signature, inputs in (("detect_bytes", "image_bytes=file.npy"), ("serving_default", "images=images.npy")):
        options = ["--tag_set", "serve", "--signature_def", signature, "--inputs", inputs, "--outdir", "out"]
        run = subprocess.run([*tool, *options], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    assert np.load(tmp_path / "out" / "valid_detections.npy") == 3
    assert np.load(tmp_path / "out" / "predictions.npy").shape == (1, (10 * 10 + 5 * 5) * 3, 14)


# --- Benchmarks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch, folder):
    """tool(name, options ...): a script of tools/benchmarks/, run on the folder."""
    monkeypatch.setattr(configs, "YOLO_INPUT_SIZE", SIZE)

    def run(name, *options):
        monkeypatch.setattr(sys, "argv", [name, str(folder), *map(str, options)])
        importlib.import_module(f"tools.benchmarks.{name}").main.__wrapped__()

    return run


@pytest.mark.slow
def test_every_picture_is_asked_for_and_counted(tool, capsys):
    annotations = PROJECT / "IMAGES" / "digits" / "digits.txt"
    said = []
    for options in (["--threads", 1], ["--threads", 3, "--batch", 7]):
        tool("serving", annotations, *options)
        said.append(capsys.readouterr().out)
    assert "24 pictures, 0 of them damaged, in 24 requests" in said[0]
    assert "24 pictures, 0 of them damaged, in 4 requests" in said[1]
    (ap,) = {line for text in said for line in text.splitlines() if line.startswith("AP50")}  # the same answers
    assert float(ap.split()[1].rstrip(",")) > 50
    assert all(f"p{p} " in said[1] for p in (50, 90, 95, 99))
    assert "AP counts scores over 0.3 only" in said[1]


@pytest.mark.slow
def test_the_cost_of_bytes_is_told_for_each_batch(tool, tmp_path, capsys):
    tool(
        "picture_bytes",
        PROJECT / "IMAGES" / "digits",
        "--batches",
        1,
        3,
        "--rounds",
        1,
        "--markdown",
        tmp_path / "b.md",
    )
    rows = [line.split("|")[1:-1] for line in (tmp_path / "b.md").read_text().splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows[2:]] == ["1", "3"]
    assert all(float(cell.strip().rstrip("%")) > 0 for row in rows[2:] for cell in (row[1], row[2], row[4], row[6]))
    assert [float(row[7]) for row in rows[2:]] == [round(SIZE * SIZE * 12 / 1e3)] * 2


@pytest.mark.slow
def test_a_folder_without_bytes_is_refused(tool, monkeypatch):
    for name in ("serving", "picture_bytes"):
        monkeypatch.setattr(
            sys, "argv", [name, str(PROJECT / SHIPPED), str(PROJECT / "IMAGES" / "digits" / "digits.txt")]
        )
        with pytest.raises(UserError, match="holds no SavedModel: python tools/Convert_to_pb.py writes one"):
            importlib.import_module(f"tools.benchmarks.{name}").main.__wrapped__()
