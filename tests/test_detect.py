"""From source to results: what is written, in which order, and what is said when something is wrong."""

import contextlib
import http.server
import json
import os
import resource
import signal
import threading
import time

from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError
from yolov3.darknet import convolutions
from yolov3.detect import Job, detect_image, detect_video
from yolov3.detector import Detector
from yolov3.media import outputs, sources
from yolov3.media import video as videos
from yolov3.networks import NETWORKS
from yolov3.runtimes import RunOptions
from yolov3.runtimes.tf import load
from yolov3.utils import save_yolo_weights
from yolov3.yolov4 import Create_Yolo

import cv2
import numpy as np
import pytest

NAMES = ("cat", "dog", "cup")
LEVELS = [(37 * i) % 250 for i in range(60)]  # of grey: neighbours differ by more than a codec forgives


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A real detector, small and untrained; its heads' biases make sure that it finds a few boxes."""
    network = Create_Yolo(64, "yolov4", True, NAMES)
    for conv, norm in convolutions(network):
        if norm is None:
            conv.bias.assign(np.tile([0, 0, 0, 0, 1, 2, -9, -9], 3))
    weights = tmp_path_factory.mktemp("weights") / "random.weights"
    save_yolo_weights(network, weights)
    model = ModelSpec("yolov4", True, NAMES, (64, 64), "letterbox", NETWORKS["yolov4-tiny"].heads)
    return Detector(load(model, weights, RunOptions()), model, 0.3, 0.45)


def picture_file(path, size=(48, 80), level=90):
    cv2.imwrite(str(path), np.full((*size, 3), level, np.uint8))
    return path


def video_file(path, frames=20, size=(80, 48), fps=12.0, codec="mp4v"):
    """A video whose frames tell their number by their brightness."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), LEVELS[i], np.uint8))
    writer.release()
    return path


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return capture.get(cv2.CAP_PROP_FPS), frames


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- Pictures --------------------------------------------------------------------------------------------------


def test_detect_image_writes_and_returns_the_annotated_picture(detector, tmp_path):
    source = picture_file(tmp_path / "in.png")
    annotated = detect_image(detector, str(source), str(tmp_path / "out.png"), rectangle_colors=(255, 0, 0))
    assert annotated.shape == (48, 80, 3)
    assert (annotated == (255, 0, 0)).all(-1).any()
    assert (cv2.imread(str(tmp_path / "out.png"))[..., ::-1] == annotated).all()


def test_detect_image_writes_nothing_without_an_output_path(detector, tmp_path):
    detect_image(detector, picture_file(tmp_path / "in.png"))
    assert [x.name for x in tmp_path.iterdir()] == ["in.png"]


def test_json_gives_source_frame_boxes_scores_and_class_names(detector, tmp_path):
    source = picture_file(tmp_path / "in.png")
    Job(source, json=tmp_path / "out.jsonl").run(detector)
    (line,) = json_lines(tmp_path / "out.jsonl")
    assert line["source"] == str(source)
    assert line["frame"] == 0
    assert len(line["boxes"]) == len(line["scores"]) == len(line["classes"]) > 0
    assert set(line["classes"]) == {"cat"}
    assert all(0 <= x1 <= x2 <= 80 and 0 <= y1 <= y2 <= 48 for x1, y1, x2, y2 in line["boxes"])


def test_only_some_classes_on_request(detector, tmp_path):
    source = picture_file(tmp_path / "in.png")
    assert Job(source, only=["dog"]).run(detector).boxes == 0
    assert Job(source, only=["cat"]).run(detector).boxes > 0
    with pytest.raises(UserError, match="class fish is not known: is it cat"):
        Job(source, only=["fish"]).run(detector)


def test_an_input_size_or_names_that_are_not_the_detectors_are_refused(detector, tmp_path):
    source = picture_file(tmp_path / "in.png")
    with pytest.raises(UserError, match="input_size is 416, but the detector was loaded for 64"):
        detect_image(detector, source, input_size=416)
    with pytest.raises(UserError, match="CLASSES has 2 names, but the detector knows 3"):
        detect_image(detector, source, CLASSES=["a", "b"])


def test_a_folder_leaves_out_unreadable_pictures_and_counts_them(detector, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.jpg", "d.bmp"):
        picture_file(folder / name)
    whole = picture_file(folder / "c.jpg").read_bytes()
    (folder / "c.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "e.png").touch()
    (folder / "notes.txt").write_text("not a picture")
    job = Job(folder, tmp_path / "out", json=tmp_path / "out.jsonl")
    summary = job.run(detector)
    assert summary.frames == 3
    assert summary.problems == ["2 of 5 pictures could not be read"]
    assert sorted(x.name for x in (tmp_path / "out").iterdir()) == ["a.png", "b.jpg", "d.bmp"]
    assert len(json_lines(tmp_path / "out.jsonl")) == 3
    said = capsys.readouterr().err
    assert "c.jpg is truncated or damaged: left out" in said
    assert "e.png is empty: left out" in said


def test_a_glob_keeps_pictures_of_one_name_from_several_folders_apart(detector, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        picture_file(tmp_path / folder / "same.png")
    summary = Job(f"{tmp_path}/*/*.png", tmp_path / "out").run(detector)
    assert summary.frames == 2
    assert sorted(x.parent.name for x in (tmp_path / "out").rglob("*.png")) == ["one", "two"]


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (2500, 2)])
def test_pictures_of_extreme_shapes(detector, tmp_path, size):
    source = picture_file(tmp_path / "in.png", size)
    assert detect_image(detector, source, tmp_path / "out.png").shape == (*size, 3)


# --- Videos ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "mp4v"), (".avi", "XVID"), (".mkv", "mp4v")])
def test_a_video_keeps_size_rate_order_and_every_frame(detector, tmp_path, suffix, codec):
    source = video_file(tmp_path / f"in{suffix}", codec=codec)
    summary = Job(source, tmp_path / f"out{suffix}", json=tmp_path / "out.jsonl", only=[]).run(detector)
    fps, frames = read_video(tmp_path / f"out{suffix}")
    assert summary.frames == len(frames) == 20
    assert summary.problems == []
    assert fps == pytest.approx(12.0)
    assert [frame.mean() for frame in frames] == pytest.approx(LEVELS[:20], abs=8)
    assert [line["frame"] for line in json_lines(tmp_path / "out.jsonl")] == list(range(20))
    assert 0 < summary.detection_seconds < summary.total_seconds


def test_detect_video_draws_into_the_video(detector, tmp_path):
    detect_video(detector, video_file(tmp_path / "in.mp4"), tmp_path / "out.mp4", rectangle_colors=(255, 255, 255))
    _, frames = read_video(tmp_path / "out.mp4")
    assert frames[0].max() > 200


def test_a_video_that_breaks_off_is_written_as_far_as_it_goes(detector, tmp_path):
    whole = video_file(tmp_path / "whole.avi", frames=60, codec="MJPG").read_bytes()
    (tmp_path / "in.avi").write_bytes(whole[: len(whole) // 2])
    summary = Job(tmp_path / "in.avi", tmp_path / "out.mp4").run(detector)
    assert 10 < summary.frames < 50
    assert len(read_video(tmp_path / "out.mp4")[1]) == summary.frames
    assert summary.problems == [f"video {tmp_path / 'in.avi'} breaks off: {summary.frames} of 60 frames could be read"]


def test_ctrl_c_leaves_a_playable_video_of_what_was_read(detector, tmp_path):
    class Interrupted:
        spec, names, calls = detector.spec, detector.names, 0

        def __call__(self, *args):
            self.calls += 1
            if self.calls == 6:
                raise KeyboardInterrupt
            return detector(*args)

    summary = Job(video_file(tmp_path / "in.mp4"), tmp_path / "out.mp4", json=tmp_path / "out.jsonl").run(Interrupted())
    assert summary.frames == len(read_video(tmp_path / "out.mp4")[1]) == len(json_lines(tmp_path / "out.jsonl")) == 5
    assert summary.problems == []


def test_a_video_whose_size_changes_is_written_at_its_first_size(tmp_path):
    video = videos.VideoFile(tmp_path / "out.mp4", 10)
    for size in ((48, 80), (96, 160), (48, 80)):
        video.write(np.zeros((*size, 3), np.uint8))
    video.close()
    assert [frame.shape for frame in read_video(tmp_path / "out.mp4")[1]] == [(48, 80, 3)] * 3


def test_more_ctrl_c_while_the_last_frames_are_written_does_no_harm(detector, tmp_path, monkeypatch):
    write, close, sent = videos.VideoFile.write, videos.VideoFile.close, threading.Event()

    def slow_disk(self, picture, seconds=None):
        time.sleep(0.05)
        write(self, picture, seconds)

    def impatient():
        while signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # what was detected is not finished yet
            time.sleep(0.001)
        for _ in range(10):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)
        sent.set()

    def finish(self, seconds=None):
        assert sent.wait(60)
        close(self, seconds)

    class Interrupted:
        spec, names, calls = detector.spec, detector.names, 0

        def __call__(self, *args):
            self.calls += 1
            if self.calls == 8:
                threading.Thread(target=impatient).start()
                raise KeyboardInterrupt
            return detector(*args)

    monkeypatch.setattr(videos.VideoFile, "write", slow_disk)
    monkeypatch.setattr(videos.VideoFile, "close", finish)
    summary = Job(video_file(tmp_path / "in.mp4"), tmp_path / "out.mp4").run(Interrupted())
    assert summary.frames == len(read_video(tmp_path / "out.mp4")[1]) == 7
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_video_that_cannot_be_finished_does_not_keep_the_json_lines_back(detector, tmp_path, monkeypatch):
    def gone(self, seconds=None):
        raise UserError("no more")

    monkeypatch.setattr(videos.VideoFile, "close", gone)
    with pytest.raises(UserError, match="no more"):
        Job(video_file(tmp_path / "in.mp4"), tmp_path / "out.mp4", json=tmp_path / "out.jsonl").run(detector)
    assert len(json_lines(tmp_path / "out.jsonl")) == 20


# --- Live sources ----------------------------------------------------------------------------------------------


class Camera(http.server.BaseHTTPRequestHandler):
    """A camera on loopback: a stream of JPEGs that breaks off after some frames, twice, and then refuses."""

    connections = 0

    def do_GET(self):
        type(self).connections += 1
        if self.connections > 2:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        for _ in range(40):
            jpeg = cv2.imencode(".jpg", np.full((48, 80, 3), 100, np.uint8))[1].tobytes()
            self.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg)
            self.wfile.write(b"\r\n")
            time.sleep(0.03)

    def log_message(self, *args):
        pass


@pytest.fixture
def camera():
    Camera.connections = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/camera.mjpg"
    server.shutdown()


def test_a_stream_is_reached_again_and_said_to_be_lost_when_it_stays_away(
    detector, tmp_path, camera, monkeypatch, capsys
):
    monkeypatch.setattr(sources, "BACK_OFF_SECONDS", (0.05, 0.1))
    job = Job(camera, tmp_path / "out.mp4")
    assert job.source.live
    summary = job.run(detector)
    assert Camera.connections > 2  # it came back once, and was asked again
    assert summary.frames > 2
    assert summary.problems == [f"stream {camera} is lost"]
    assert "is lost: trying again in 0.05 s" in capsys.readouterr().err
    assert len(read_video(tmp_path / "out.mp4")[1]) > 2


def test_a_live_video_keeps_the_pace_of_the_clock(tmp_path):
    video = videos.VideoFile(tmp_path / "out.mp4", 20, live=True)
    written = []
    for _ in range(5):
        written.append(time.monotonic())
        video.write(np.zeros((48, 80, 3), np.uint8))
        time.sleep(0.2)
    video.close()
    expected = 20 * (written[-1] - written[0])  # from the first to the last
    assert abs(len(read_video(tmp_path / "out.mp4")[1]) - expected) <= 6


@pytest.mark.parametrize("word", ["77", "rtsp://127.0.0.1:9/x", "http://127.0.0.1:9/x"])
def test_a_camera_or_stream_that_is_not_there_is_one_line(word):
    with pytest.raises(UserError, match="cannot be opened: is it connected?"):
        Job(word)


# --- Bad input -------------------------------------------------------------------------------------------------


def test_sources_that_cannot_be_read(detector, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "empty").mkdir()
    for word, message in {
        "nowhere.jpg": "nowhere.jpg is missing",
        tmp_path / "text.mp4": "cannot be opened: is it a video?",
        tmp_path / "empty.mp4": "cannot be opened: is it a video?",
        tmp_path / "empty": "empty holds no pictures",
        f"{tmp_path}/*.jpg": "is missing",
        f"{tmp_path}/*.mp4": "holds no pictures",
    }.items():
        with pytest.raises(UserError, match=message.replace("?", r"\?")):
            Job(word)
    (tmp_path / "empty.png").touch()
    with pytest.raises(UserError, match="empty.png is empty"):
        Job(tmp_path / "empty.png").run(detector)


def test_a_video_of_no_frames(detector, tmp_path):
    source = video_file(tmp_path / "none.avi", frames=0, codec="MJPG")
    with pytest.raises(UserError, match=r"none.avi (holds no frames|cannot be opened)"):
        Job(source).run(detector)


def test_outputs_that_cannot_be_written_are_found_before_the_work_starts(tmp_path):
    picture, video = picture_file(tmp_path / "in.png"), video_file(tmp_path / "in.mp4")
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for source, output, message in (
        (picture, tmp_path / "file" / "out.png", "cannot be written"),
        (picture, tmp_path / "out.xyz", "must end in one of .jpg"),
        (picture, picture, "is the input itself"),
        (video, video, "is the input itself"),
        (video, tmp_path / "out.jpg", "must end in one of .mp4"),
        (video, "/proc/out.mp4", "cannot be written"),
        (tmp_path, tmp_path, "is the folder of the pictures themselves"),
    ):
        picture_file(tmp_path / "second.png")
        with pytest.raises(UserError, match=message):
            Job(source, output)
    with pytest.raises(UserError, match="must end in one of .json"):
        Job(picture, json=tmp_path / "out.txt")


def test_a_run_that_fails_at_once_leaves_earlier_results_alone(detector, tmp_path):
    for name in ("out.png", "out.jsonl"):
        (tmp_path / name).write_text("before")
    source = picture_file(tmp_path / "in.jpg")
    source.write_bytes(source.read_bytes()[:-30])
    with pytest.raises(UserError, match="in.jpg is truncated or damaged"):
        Job(source, tmp_path / "out.png", json=tmp_path / "out.jsonl").run(detector)
    assert [(tmp_path / name).read_text() for name in ("out.png", "out.jsonl")] == ["before"] * 2
    assert len(list(tmp_path.iterdir())) == 3


def test_pictures_that_cannot_be_decoded_are_refused_not_taken_for_videos(detector, tmp_path):
    (tmp_path / "in.jxl").write_bytes(b"\xff\x0a" + bytes(99))
    with pytest.raises(UserError, match="in.jxl is a JPEG XL, which cannot be read: save it as JPEG or PNG"):
        Job(tmp_path / "in.jxl", tmp_path / "out").run(detector)


def test_a_picture_under_another_name_is_written_as_png(detector, tmp_path):
    picture_file(tmp_path / "in.png").rename(tmp_path / "camera.dat")
    Job(tmp_path / "camera.dat", tmp_path / "out").run(detector)
    assert [x.name for x in (tmp_path / "out").iterdir()] == ["camera.dat.png"]


def test_what_is_no_source_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for word in (tmp_path / "pipe", "", None, 1.5, "x" * 300, "\u00b2", "~nobody-of-that-name/x.jpg"):
        with pytest.raises(UserError):
            Job(word)


def test_a_colour_that_is_none_is_told(tmp_path):
    for colour in ("red", (255, 0), 7):
        with pytest.raises(UserError, match="must be .red, green, blue., each 0 to 255"):
            Job(picture_file(tmp_path / "in.png"), colour=colour)


@contextlib.contextmanager
def tiny_disk():
    """No file of this process may grow beyond 2,000 bytes: the system's own 'no' in the middle of writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:  # at once, since pytest's own output may be a file too
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_picture_that_was_there(tmp_path):
    (tmp_path / "out.png").write_bytes(b"before")
    noise = np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)
    with pytest.raises(UserError, match="out.png cannot be written: File too large"), tiny_disk():
        outputs.write_picture(tmp_path / "out.png", noise)
    assert [(x.name, x.read_bytes()) for x in tmp_path.iterdir()] == [("out.png", b"before")]


def test_a_full_disk_keeps_the_video_so_far(detector, tmp_path, monkeypatch):
    job = Job(video_file(tmp_path / "in.mp4"), tmp_path / "out.mp4")
    checks = []

    def usage(path):
        checks.append(path)
        return type("Usage", (), {"free": 0 if len(checks) > 8 else 2**40})

    monkeypatch.setattr(videos.shutil, "disk_usage", usage)
    with pytest.raises(UserError, match="the disk is full: output .*out.mp4 ends after 8 frames"):
        job.run(detector)
    assert len(read_video(tmp_path / "out.mp4")[1]) == 8


def test_without_a_display_show_says_so_and_goes_on(detector, tmp_path, capsys, monkeypatch):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    job = Job(picture_file(tmp_path / "in.png"), tmp_path / "out.png", show=True)
    assert capsys.readouterr().err == "--show: this computer does not have a display; going on without a window\n"
    job.run(detector)
    assert (tmp_path / "out.png").exists()
