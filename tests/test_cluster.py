"""A job on a cluster: every picture answered exactly once, whatever is killed on the way; what is refused, and how."""

import contextlib
import errno
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from yolov3 import configs
from yolov3.checkpoint import read_model
from yolov3.checks import PROJECT, UserError
from yolov3.images import read_picture
from yolov3.loading import SHIPPED, Load_Yolo_model

import numpy as np
import psutil
import pytest

pytest.importorskip("ray.data", reason="needs requirements/ray.txt")
from tools.benchmarks import cluster as benchmark
from tools.cluster.ray_cluster import ray_running

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import tensorflow as tf
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.slow  # Ray starts several times; nothing here depends on the version of TensorFlow
SIZE = 160
DIGITS = sorted((PROJECT / "IMAGES" / "digits").glob("*.jpg"))
BROKEN = {  # name: (bytes, the reason its row must give)
    "empty.jpg": (b"", "is empty"),
    "page.jpg": (b"<html></html>", "is not a picture that can be read"),
    "short.jpg": (DIGITS[0].read_bytes()[:3000], "is truncated or damaged"),
    "bomb.png": (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (20000).to_bytes(4, "big") + (10000).to_bytes(4, "big") + b"\x08\x02\0\0\0",
        "is 20000 x 10000, more than YOLO_MAX_PIXELS",
    ),
}
SCRIPT = f"""
import sys
sys.path[:0] = {[str(PROJECT / "tools"), str(PROJECT)]!r}
from yolov3 import configs
configs.YOLO_INPUT_SIZE, configs.YOLO_CUSTOM_WEIGHTS = {SIZE}, {SHIPPED!r}
import Detect_cluster
Detect_cluster.main()
"""


@pytest.fixture(scope="module", autouse=True)
def at_home():
    """A small network, and Ray's own files in a folder that goes when the tests end."""
    place = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets lie there: the path must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", place)
        patch.setattr(configs, "YOLO_INPUT_SIZE", SIZE)
        patch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", SHIPPED)
        yield
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one machine with one CPU, for jobs that need not start Ray themselves."""
    quick = {"health_check_period_ms": 500}  # to notice that a machine is gone, else after 15 seconds
    options = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, connect=False, head_node_args=options)
    yield cluster
    cluster.shutdown()


def detect(*arguments):
    """tools/Detect_cluster.py in this process; raises what a person would read as one line."""
    import Detect_cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["Detect_cluster.py", *map(str, arguments)])
        Detect_cluster.main.__wrapped__()


def start(*arguments):
    """The same in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def read_rows(output):
    """All rows of all parts, as dicts, in the order of the parts."""
    return [row for part in sorted(output.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def many(folder, count):
    """So many pictures, links to the samples."""
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:04d}.jpg").symlink_to(DIGITS[i % len(DIGITS)])
    return folder


def assert_each_once(output, pictures):
    assert [row["path"] for row in read_rows(output)] == [str(path) for path in sorted(pictures.iterdir())]
    assert not [file for file in output.iterdir() if file.name.startswith(".")]


# --- A job on one machine ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Six pictures and four that cannot be read."""
    place = tmp_path_factory.mktemp("pictures")
    for path in DIGITS[:6]:
        shutil.copy(path, place)
    for name, (data, _) in BROKEN.items():
        (place / name).write_bytes(data)
    return place


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A finished job of parts of four pictures -> its folder."""
    output = tmp_path_factory.mktemp("finished") / "boxes"
    detect(pictures, "--output", output, "--part-size", 4, "--batch-size", 2)
    return output


@pytest.fixture(scope="module")
def detector():
    return Load_Yolo_model()


def assert_right(row, path, detector):
    frame = read_picture(path, 10**9)
    (found,) = detector([frame])
    np.testing.assert_allclose(np.reshape(row["boxes"], (-1, 4)), found.boxes, atol=0.05)
    np.testing.assert_allclose(row["scores"], found.scores, atol=1e-4)
    assert row["classes"] == found.labels
    assert (row["height"], row["width"], row["error"]) == (*frame.shape[:2], None)


def test_every_picture_has_its_row(finished, pictures, detector):
    assert [pq.read_metadata(part).num_rows for part in sorted(finished.glob("part-*.parquet"))] == [4, 4, 2]
    assert_each_once(finished, pictures)
    model = json.loads((finished / "run.json").read_text())["model"]
    assert re.fullmatch(r"yolov4-tiny-digits@[0-9a-f]{12}", model)
    assert sum(map(len, (row["boxes"] for row in read_rows(finished)))) > 10
    for row in read_rows(finished):
        path = Path(row["path"])
        assert row["model"] == model
        if path.name in BROKEN:
            assert BROKEN[path.name][1] in row["error"] and row["path"] in row["error"]
            assert (row["width"], row["height"]) == (None, None)
            assert row["boxes"] == row["scores"] == row["classes"] == []
        else:
            assert_right(row, path, detector)


def test_columns_have_their_types_where_nothing_is_found_too(tmp_path):
    from tools.cluster.parts import write_part

    write_part(tmp_path, 7, [{"path": "a.jpg", "boxes": [], "scores": [], "classes": [], "model": "m", "error": "e"}])
    assert pq.read_schema(tmp_path / "part-000007.parquet").to_string(show_field_metadata=False).splitlines() == [
        "path: string",
        "width: int32",
        "height: int32",
        "boxes: list<element: list<element: float>>",
        "  child 0, element: list<element: float>",
        "      child 0, element: float",
        "scores: list<element: float>",
        "  child 0, element: float",
        "classes: list<element: string>",
        "  child 0, element: string",
        "model: string",
        "error: string",
    ]


def test_a_finished_job_is_left_alone(finished, pictures, monkeypatch, capsys):
    monkeypatch.setattr(ray, "init", None)  # it does not even start
    before = {file: file.stat().st_mtime_ns for file in finished.iterdir()}
    detect(pictures, "--output", finished, "--part-size", 4, "--batch-size", 5)
    assert capsys.readouterr().out == f"nothing to do: all 3 parts, 10 pictures, are in {finished}\n"
    assert {file: file.stat().st_mtime_ns for file in finished.iterdir()} == before


@pytest.mark.parametrize(
    ("constants", "part_size", "difference"),
    [
        ({"YOLO_SCORE_THRESHOLD": 0.5}, 4, r"\(score_threshold 0.3, now 0.5\)"),
        ({"YOLO_IOU_THRESHOLD": 0.5}, 4, r"\(iou_threshold 0.45, now 0.5\)"),
        ({"YOLO_CLASS_AGNOSTIC": True}, 4, r"\(class_agnostic False, now True\)"),
        ({"YOLO_INPUT_SIZE": 192, "YOLO_RESIZE": "stretch"}, 4, r"\(input_size 160, now 192; resize letterbox, now st"),
        ({"YOLO_PRECISION": "BF16"}, 4, r"\(precision FP32, now BF16\)"),
        ({}, 5, r"\(part_size 4, now 5\)"),
    ],
)
def test_another_run_is_refused(finished, pictures, monkeypatch, constants, part_size, difference):
    for name, value in constants.items():
        monkeypatch.setattr(configs, name, value)
    with pytest.raises(UserError, match=f"{finished} holds another run {difference}.*give --overwrite"):
        detect(pictures, "--output", finished, "--part-size", part_size)


def test_another_model_or_listing_is_refused(finished, pictures, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"\(pictures 10, now 3; listing [0-9a-f]{12}, now [0-9a-f]{12}\)"):
        detect(pictures / "0000[0-2].jpg", "--output", finished, "--part-size", 4)
    shutil.copytree(PROJECT / configs.YOLO_CUSTOM_WEIGHTS, tmp_path / "yolov4-tiny-digits")
    with (tmp_path / "yolov4-tiny-digits" / "weights.npz").open("ab") as file:
        file.write(b"\0")
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", str(tmp_path / "yolov4-tiny-digits"))
    with pytest.raises(UserError, match=r"\(model yolov4-tiny-digits@\w{12}, now yolov4-tiny-digits@\w{12}\)"):
        detect(pictures, "--output", finished, "--part-size", 4)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="holds another run"):
        detect(pictures, "--output", tmp_path)


def test_parquet_goes_in_and_another_run_is_overwritten(pictures, detector, cluster, tmp_path):
    names = [str(path) for path in sorted(pictures.iterdir())]
    table = pa.table({"path": names, "bytes": [Path(name).read_bytes() for name in names], "more": names})
    (tmp_path / "in").mkdir()
    pq.write_table(table[:7], tmp_path / "in" / "a.parquet", row_group_size=3)
    pq.write_table(table[7:], tmp_path / "in" / "b.parquet")
    output = tmp_path / "out"
    output.mkdir()
    (output / "run.json").write_text('{"model": "other"}')
    (output / "part-000000.parquet").write_bytes(b"other")
    (output / "part-000099.parquet").write_bytes(b"other")
    detect(tmp_path / "in", "--output", output, "--part-size", 4, "--overwrite", "--address", cluster.address)
    rows = read_rows(output)
    assert [row["path"] for row in rows] == names
    for row in rows:
        if Path(row["path"]).name in BROKEN:
            assert BROKEN[Path(row["path"]).name][1] in row["error"]
        else:
            assert_right(row, row["path"], detector)


def test_any_stretch_of_parquet_is_read_as_it_lies_in_the_files(tmp_path):
    from tools.cluster.listing import open_listing

    contents = [b"%d" % i for i in range(50)]
    groups = {"a": (0, 1, 1), "b": (1, 1, 9), "c": (1, 30, 4), "d": (30, 50, 99)}
    for name, (first, last, group) in groups.items():
        data = contents[first:last]
        table = pa.table(
            {"path": pa.array([x.decode() for x in data], pa.string()), "bytes": pa.array(data, pa.binary())}
        )
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=group)
    listing = open_listing(str(tmp_path / "*.parquet"), 10**9)
    assert listing.names == [x.decode() for x in contents]
    for start, stop in np.sort(np.random.default_rng(0).integers(0, 51, (100, 2))):
        stretch = listing.cut(int(start), int(stop))
        assert [get_bytes() for _, get_bytes in stretch.pictures()] == contents[start:stop]


def test_what_workers_and_ray_cost_is_told(cluster, tmp_path, monkeypatch, capsys):
    for kind in ("intra", "inter"):  # this process has its threads already
        monkeypatch.setattr(tf.config.threading, f"set_{kind}_op_parallelism_threads", lambda _: None)
    monkeypatch.setattr(benchmark, "ray_running", lambda _: ray_running(cluster.address))
    options = ["--random", "yolov4-tiny", "--pictures", "6", "--batch-size", "2", "--rounds", "1", "--markdown"]
    pictures = str(PROJECT / "IMAGES" / "digits")
    monkeypatch.setattr(sys, "argv", ["cluster.py", pictures, *options, str(tmp_path / "out.md")])
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # else two workers are measured, too
    benchmark.main.__wrapped__()
    report = (tmp_path / "out.md").read_text()
    assert report in capsys.readouterr().out
    for name in ("bare detector", "1 worker"):
        assert float(re.search(rf"(?m)^\| {name} +\| +([\d.]+) \|", report)[1]) > 0
    assert "at least 0.90" in report


# --- Killed on the way ---------------------------------------------------------------------------------------------


def test_a_machine_that_goes_down_takes_no_picture_along(cluster, tmp_path):
    pictures, output = many(tmp_path / "in", 120), tmp_path / "out"
    other = cluster.add_node(num_cpus=1)
    raylet = psutil.Process(other.all_processes["raylet"][0].process.pid)
    options = ("--address", cluster.address, "--workers", 2, "--cpus", 1, "--part-size", 8)
    job = start(pictures, "--output", output, *options)

    def at_work():  # Ray names its processes by what they do
        return any(".submit" in " ".join(x.cmdline()) for x in raylet.children()) or job.poll() is not None

    try:
        wait_for(at_work)
        cluster.remove_node(other, allow_graceful=False)
        code, out, err = communicate(job)
    finally:
        job.kill()
    assert code == 0, err
    assert not err
    assert out.splitlines()[1] == "120 pictures in 15 parts" and len(out.splitlines()) == 6
    assert_each_once(output, pictures)


def test_a_job_that_is_killed_and_then_ended_goes_on_where_it_was(cluster, tmp_path, capsys):
    """By SIGKILL, which also takes its processes; by SIGTERM, which leaves no dump and the exit code of shells."""
    pictures, output = many(tmp_path / "in", 160), tmp_path / "out"
    options = (pictures, "--output", output, "--part-size", 4)

    def when_there_are(count, *more_options):
        job = start(*options, *more_options)
        wait_for(lambda: len(list(output.glob("part-*.parquet"))) >= count or job.poll() is not None)
        return job

    job = when_there_are(3)
    processes = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    job.communicate()
    psutil.wait_procs(processes)
    killed = {file: file.stat().st_mtime_ns for file in output.glob("part-*.parquet")}
    assert 3 <= len(killed) < 40
    (output / ".part-000039.parquet.0.part").write_bytes(b"half")  # what it may have left

    job = when_there_are(len(killed) + 1, "--address", cluster.address)
    job.send_signal(signal.SIGTERM)
    code, _, err = communicate(job)
    assert code == 128 + signal.SIGTERM
    assert "***" not in err and "Traceback" not in err
    done = {file: file.stat().st_mtime_ns for file in output.glob("part-*.parquet")}
    assert len(killed) < len(done) < 40 and killed.items() <= done.items()

    detect(*options, "--address", cluster.address)
    assert f"{len(done)} were done before" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert_each_once(output, pictures)


def communicate(process):
    """-> exit code, stdout, stderr."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


# --- S3 ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def s3_server(objects):
    """A server of objects, {"bucket/key": bytes}, for those who sign their requests -> its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            url = urllib.parse.urlsplit(self.path)
            query, name = dict(urllib.parse.parse_qsl(url.query)), urllib.parse.unquote(url.path).strip("/")
            if "Authorization" not in self.headers:
                return self.answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
            if "list-type" in query:
                keys = [key for key in objects if key.startswith(f"{name}/{query.get('prefix', '')}")]
                rows = [
                    f"<Contents><Key>{key.partition('/')[2]}</Key><Size>{len(objects[key])}</Size>"
                    "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
                    for key in keys
                ]
                text = f"<ListBucketResult><KeyCount>{len(rows)}</KeyCount>{''.join(rows)}</ListBucketResult>"
                return self.answer(200, text.encode())
            if name not in objects:
                return self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")
            return self.answer(200, objects[name])

        do_HEAD = do_GET

        def answer(self, code, data):
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def s3(monkeypatch, tmp_path):
    """A bucket with three pictures under a prefix, and no credentials yet."""
    from tools.cluster.listing import s3 as file_system

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    objects = {f"bucket/photos/{path.name}": path.read_bytes() for path in DIGITS[:3]}
    file_system.cache_clear()
    with s3_server({**objects, "bucket/photos/notes.txt": b"", "bucket/other/a.jpg": b""}) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield objects
    file_system.cache_clear()


def test_an_s3_prefix_is_read(s3, monkeypatch):
    from tools.cluster.listing import fetch_file, open_listing

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    listing = open_listing("s3://bucket/photos/", 10**9)
    assert listing.names == [f"s3://{name}" for name in sorted(s3)]
    assert {name: get_bytes() for name, get_bytes in listing.cut(1, 3).pictures()} == {
        f"s3://{name}": s3[name] for name in sorted(s3)[1:]
    }
    with pytest.raises(UserError, match="picture s3://bucket/photos/gone.jpg cannot be read"):
        fetch_file("s3://bucket/photos/gone.jpg")
    with pytest.raises(UserError, match="s3://bucket/nothing holds no pictures"):
        open_listing("s3://bucket/nothing", 10**9)


def test_a_pipe_among_pictures_or_weights_is_not_waited_for(tmp_path):
    from tools.cluster.listing import fetch_file, open_listing
    from tools.cluster.parts import model_digest

    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(UserError, match="picture .*pipe.parquet is a pipe"):
        fetch_file(str(tmp_path / "pipe.parquet"))
    with pytest.raises(UserError, match="weights file .*pipe.parquet is a pipe"):
        model_digest(read_model(PROJECT / SHIPPED), tmp_path / "pipe.parquet")
    with pytest.raises(UserError, match="pipe.parquet is not a file"):
        open_listing(str(tmp_path), 10**9)


def test_s3_without_credentials_is_one_line(s3, tmp_path):
    from tools.cluster.listing import fetch_file

    with pytest.raises(UserError, match="^s3://bucket/photos cannot be listed .*: set AWS_REGION.*$"):
        detect("s3://bucket/photos", "--output", tmp_path / "out")
    with pytest.raises(OSError, match="cannot be fetched"):  # no fault of this picture: the job ends, no row says so
        fetch_file("s3://bucket/photos/00000.jpg")


# --- Refused -------------------------------------------------------------------------------------------------------


def test_what_is_no_source_or_output_is_refused(tmp_path):
    (tmp_path / "none").mkdir()
    pq.write_table(pa.table({"path": ["a"], "bytes": ["no bytes"]}), tmp_path / "text.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for source, message in {
        "none": "holds no pictures",
        "gone": "is missing",
        "text.parquet": "lacks the column bytes",
        "broken.parquet": "cannot be read as Parquet",
    }.items():
        with pytest.raises(UserError, match=message):
            detect(tmp_path / source, "--output", tmp_path / "out")
    for address in ("localhost:9", "nowhere"):
        with pytest.raises(UserError, match=f"no Ray cluster answers at --address {address}: "):
            detect(DIGITS[0], "--output", tmp_path / "out", "--address", address)
    for source, output, message in (
        (DIGITS[0], tmp_path, "holds files but not run.json"),
        (DIGITS[0], "s3://bucket/out", "is not a folder"),
        ("https://example.com/", tmp_path / "out", "cannot be listed"),
        ("s3://", tmp_path / "out", "does not name a bucket"),
    ):
        with pytest.raises(UserError, match=message):
            detect(source, "--output", output)


def test_a_part_that_cannot_be_written_ends_the_job_and_leaves_the_others(cluster, tmp_path, monkeypatch, capfd):
    import Detect_cluster

    pictures, output = many(tmp_path / "in", 6), tmp_path / "out"
    missing_parts, part = Detect_cluster.missing_parts, output / "part-000002.parquet"

    def missing(*arguments):
        numbers = missing_parts(*arguments)
        part.mkdir()  # after the job has looked; a file cannot be renamed to that
        return numbers

    monkeypatch.setattr(Detect_cluster, "missing_parts", missing)
    with pytest.raises(UserError, match=f"^output {part} cannot be written: Is a directory; parts already written"):
        detect(pictures, "--output", output, "--part-size", 2, "--address", cluster.address)
    assert not capfd.readouterr().err
    written = {"part-000000.parquet", "part-000001.parquet", "run.json"}
    assert {file.name for file in output.iterdir() if file.is_file()} == written


def test_a_worker_that_does_not_start_ends_the_job(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("class Worker:\n    pass\n")  # other processes do not find it
    monkeypatch.syspath_prepend(tmp_path)
    from tools.cluster.ray_cluster import ray_running
    from tools.cluster.workers import WorkerSettings, detect_parts

    from only_here import Worker

    job = WorkerSettings(output=tmp_path, model="", constants={}, batch_size=1, workers=2, cpus=1, gpus=0)
    with (
        ray_running(cluster.address),
        pytest.raises(UserError, match=r"^a worker is lost \(.*No module named 'only_here'\): .*$"),
    ):
        list(detect_parts(job, [(0, None)], Worker))


def test_a_cluster_that_does_not_let_us_in_is_one_line(cluster, monkeypatch):
    from tools.cluster.ray_cluster import ray_running

    def refuse(**_):
        raise ray.exceptions.AuthenticationError("Token authentication is on but no token was found. Ensure that more")

    monkeypatch.setattr(ray, "init", refuse)
    expected = rf"--address {cluster.address} cannot be used \(Token .* found\): if .*, set RAY_AUTH_MODE=token and"
    with pytest.raises(UserError, match=expected), ray_running(cluster.address):
        pass


def test_a_server_ends_what_is_its_own_and_ray_serve_if_nobody_else_uses_it(cluster):
    pytest.importorskip("uvicorn", reason="needs requirements/serving-ray.txt")
    from tools.cluster.ray_cluster import ray_running
    from tools.serving.ray_serve import application_running

    from ray import serve

    class Echo:
        def __call__(self, word):
            return word

    class Broken:
        def __init__(self):
            raise UserError("weights.npz is damaged")

    options = {"ray_actor_options": {"num_cpus": 0}, "max_constructor_retry_count": 1}
    echo, broken = (serve.deployment(kind, **options).bind() for kind in (Echo, Broken))
    with ray_running(cluster.address):
        with application_running(echo, "of another server") as handle:
            with pytest.raises(UserError, match=r"^the replicas do not start: weights\.npz is damaged$"):
                application_running(broken, "ours").__enter__()
            assert set(serve.status().applications) == {"of another server"}
            assert handle.remote("word").result() == "word"
        actors = ray.util.list_named_actors(all_namespaces=True)  # some of earlier jobs may still be there
        assert not [actor for actor in actors if actor["namespace"] == "serve"]
        assert sum(node["Alive"] for node in ray.nodes()) == 1  # another test's node may still be listed as dead


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    from tools.cluster.parts import write_part

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="part-000003.parquet cannot be written: No space left on device; parts"):
        write_part(tmp_path, 3, [])
    assert not list(tmp_path.iterdir())


def test_without_ray_one_line_says_what_to_install(tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError")
    command, shell = [sys.executable, PROJECT / "tools" / "Detect_cluster.py", "in"], {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, env={**os.environ, **shell}, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: Ray is not installed: pip install -r requirements/ray.txt\n"
