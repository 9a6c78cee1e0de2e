"""Result files: whole or not there, never on an input, as long as their source, and nothing left behind."""

import contextlib
import errno
import itertools
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

from yolov3 import cli, detect, files
from yolov3.checks import UserError, printable
from yolov3.detect import Job, Terminated
from yolov3.detector import Detections, Timings
from yolov3.files import THIS_COMPUTER, check_writable, falls_on, whole_file
from yolov3.media import outputs, sources
from yolov3.media import video as videos
from yolov3.media.outputs import JsonLines, Lines, ResultFile, name_pictures, write_picture
from yolov3.media.sources import Frame
from yolov3.media.video import VideoFile
from yolov3.settings import ScriptParser

import cv2
import numpy as np
import pytest

NAMES = ("cat", "dog")


class FindsOne:
    """Stands for a detector: a cat in each frame. `at` is called with the number of each call."""

    name = "finds one"
    timings = Timings(1, 0.001, 0.02, 0.0004)
    spec = type("Spec", (), {"input_size": (64, 64), "name": "finds one", "classes": NAMES})
    names = NAMES

    def __init__(self, at=lambda call: None):
        self.calls, self.at = 0, at

    def __call__(self, frames, *thresholds):
        self.calls += 1
        self.at(self.calls)
        box = np.array([[5, 5, 20, 20]], np.float32)
        return [Detections(box, np.ones(1, np.float32), np.zeros(1, np.int32), NAMES)]


def picture_file(path, level=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png" if path.suffix == ".gif" else path.suffix, np.full((48, 80, 3), level))[1])
    return path


def video_file(path, frames=20, size=(80, 48), fps=10.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 * i % 250, np.uint8))
    writer.release()
    return path


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    return [read[1] for read in iter(capture.read, (False, None))] if capture.isOpened() else []


@contextlib.contextmanager
def largest_file(size):
    """No file of this process may grow beyond so many bytes: the system's own 'no' in the middle of writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:  # at once, since pytest's own output may be a file too
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- Whole or not there ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", videos.CODECS)
def test_a_video_that_the_system_cuts_short_is_told_and_does_not_replace_the_one_before(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (4, 240, 320, 3), np.uint8)
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"before")
    video = VideoFile(path, 25)
    with largest_file(300_000), pytest.raises(UserError, match="could not be written whole.*lay there is kept"):
        for frame in itertools.islice(itertools.cycle(noise), 60):
            video.write(frame)
        video.close()
    assert [x.read_bytes() for x in tmp_path.iterdir()] == [b"before"]


def test_what_can_be_played_of_a_video_cut_short_is_kept_where_nothing_was(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    video = VideoFile(tmp_path / "out.avi", 25)
    with largest_file(300_000), pytest.raises(UserError, match=r"could not be written whole.* [1-9]\d? of 60 frames"):
        for _ in range(60):
            video.write(noise)
        video.close()
    assert 0 < len(read_video(tmp_path / "out.avi")) < 60


def test_a_disk_that_fills_up_keeps_a_playable_video_of_large_frames(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    video, left = VideoFile(tmp_path / "out.mp4", 25), 9 * 2**20

    def usage(folder):
        used = sum(x.stat().st_size for x in tmp_path.iterdir())
        return type("Usage", (), {"free": max(0, left - used)})

    monkeypatch.setattr(videos.shutil, "disk_usage", usage)
    with pytest.raises(UserError, match=r"the disk is full: output .* ends after [1-9]\d* frames"):
        for _ in range(60):
            video.write(noise)
    with contextlib.suppress(UserError):
        video.close()
    assert len(read_video(tmp_path / "out.mp4")) == video.frames > 0
    assert (tmp_path / "out.mp4").stat().st_size < left


def test_lines_that_the_system_cuts_short_end_with_a_whole_one(tmp_path):
    lines = JsonLines(tmp_path / "out.jsonl")
    (found,) = FindsOne()([None])
    with largest_file(1000), pytest.raises(UserError, match="out.jsonl cannot be written"):
        for i in range(100):
            lines.write(Frame("a" * 90, i, None), found)
    lines.close()
    text = (tmp_path / "out.jsonl").read_text()
    assert text.endswith("}\n") and 0 < len(text.splitlines()) < 10


@pytest.mark.parametrize("make", [lambda path: VideoFile(path, 10), JsonLines])
def test_two_writers_of_one_file_write_a_whole_one_each_and_the_later_one_stays(tmp_path, make):
    path = tmp_path / ("out.mp4" if make is not JsonLines else "out.jsonl")
    first, second = make(path), make(path)
    for i in range(6):
        for writer, frames in ((first, 3), (second, 6)):
            if i < frames and isinstance(writer, VideoFile):
                writer.write(np.full((48, 80, 3), 40 * i, np.uint8))
            elif i < frames:
                writer.text = lambda frame, found, frames=frames: f"{frames}\n"
                writer.write(None, None)
    for writer, frames in ((second, 6), (first, 3)):
        writer.close()
        whole = len(read_video(path)) if path.suffix == ".mp4" else path.read_text()
        assert whole == (frames if path.suffix == ".mp4" else f"{frames}\n" * frames)
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_is_made_anew_with_the_usual_mode_and_never_through_a_link(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_count", itertools.count(1))
    (tmp_path / "victim").write_text("precious")
    (tmp_path / f".out.{THIS_COMPUTER}-{os.getpid()}-1.part.txt").symlink_to(tmp_path / "victim")
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "out.txt") as part:
            part.write_text("new")
    finally:
        os.umask(before)
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "out.txt").read_text() == "new" and not (tmp_path / "out.txt").is_symlink()
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == 0o640


def test_what_a_killed_process_left_is_removed_and_never_read(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = picture_file(tmp_path / f".out.{THIS_COMPUTER}-{ended.pid}-0.part.png")
    at_work = picture_file(tmp_path / f".out.{THIS_COMPUTER}-{os.getppid()}-0.part.png")
    own = picture_file(tmp_path / ".hidden.part.png")  # not one of ours
    picture_file(tmp_path / "in.png")
    for word in (tmp_path, f"{tmp_path}/*.png", f"{tmp_path}/**"):
        assert [x.name for x in sources.open_source(word, 10**6).paths] == ["in.png"]
    check_writable(tmp_path)
    assert not left.exists() and at_work.exists() and own.exists()


# --- Never on an input, nor on one another -----------------------------------------------------------------------


def test_an_output_folder_among_the_sources_is_refused_before_any_work(tmp_path):
    for name in ("g/1.jpg", "g/a/1.jpg"):
        picture_file(tmp_path / name)
    before = (tmp_path / "g/a/1.jpg").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "g" / "a")
    for output in (tmp_path / "g/a", tmp_path / "g/../g/a", tmp_path / "link"):
        with pytest.raises(UserError, match="1.jpg is one of the pictures to read: name another folder"):
            Job(f"{tmp_path}/g/**/*.jpg", output)
    assert (tmp_path / "g/a/1.jpg").read_bytes() == before
    assert sorted(x.name for x in tmp_path.rglob("*.jpg")) == ["1.jpg", "1.jpg"]


def test_no_result_file_falls_on_the_source(tmp_path):
    video = video_file(tmp_path / "in.mp4")
    (tmp_path / "notes.json").symlink_to(video)
    (tmp_path / "hard.json").hardlink_to(video)
    (tmp_path / "sub").mkdir()
    for path in (tmp_path / "notes.json", tmp_path / "hard.json", tmp_path / "sub" / ".." / "notes.json"):
        with pytest.raises(UserError, match="json is the input itself"):
            Job(video, json=path)
    for path in (tmp_path / "sub" / ".." / "in.mp4", f"{tmp_path}/./in.mp4"):
        with pytest.raises(UserError, match="in.mp4 is the input itself"):
            Job(video, path)
    assert falls_on([tmp_path / "none"], [tmp_path / "none"]) is None


def test_two_kinds_of_results_never_share_a_file(tmp_path, monkeypatch):
    monkeypatch.setitem(outputs.RESULT_FILES, "again", ResultFile(JsonLines, (".json",), "the same format again"))
    picture = picture_file(tmp_path / "pictures" / "in.png")
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    with pytest.raises(UserError, match="boxes.json is named for two kinds of results"):
        Job(picture, json=tmp_path / "pictures" / "boxes.json", again=tmp_path / "link" / "boxes.json")
    Job(picture, json=tmp_path / "boxes.json", again=tmp_path / "pictures" / "boxes.json")


def test_two_pictures_never_share_an_output_name():
    def as_png(path):
        return path if path.suffix != ".gif" else path.with_name(path.name + ".png")

    paths = [Path(x) for x in ("x.gif", "x.gif.png", "x.gif-2.png", "a/x.jpg", "b/x.jpg", "y.gif", "y.gif.png/z.jpg")]
    names = name_pictures(paths, as_png)
    assert len({*names.values()}) == len(paths) and list(names) != []
    assert [str(names[x]) for x in ("x.gif.png", "x.gif-2.png", "a/x.jpg", "b/x.jpg")] == [
        "x.gif.png",
        "x.gif-2.png",
        "a/x.jpg",
        "b/x.jpg",
    ]
    assert str(names["x.gif"]) == "x.gif-3.png"
    assert str(names["y.gif"]) == "y.gif-2.png"  # y.gif.png is the folder of another


def test_the_longest_names_do_not_end_a_folder_of_pictures(tmp_path):
    longest = ["x" * 251 + ".png", "\u00e4" * 125 + ".png", "y" * 251 + ".gif", "y" * 250 + "z.gif", "short.png"]
    for name in longest:
        picture_file(tmp_path / "in" / name)
    job = Job(tmp_path / "in", tmp_path / "out")
    summary = job.run(FindsOne())
    assert (summary.frames, summary.problems) == (5, [])
    assert len(list((tmp_path / "out").glob("*.png"))) == 5
    single = Job(tmp_path / "in" / longest[2], tmp_path / "out")
    assert single.run(FindsOne()).problems == []


def test_a_picture_whose_name_the_disk_refuses_is_left_out_and_counted(tmp_path, monkeypatch, capsys):
    for name in ("a.png", "b.png"):
        picture_file(tmp_path / "in" / name)
    replace = Path.replace

    def picky(self, target):
        if target.name == "a.png":
            raise OSError(errno.ENAMETOOLONG, "File name too long")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", picky)
    summary = Job(tmp_path / "in", tmp_path / "out").run(FindsOne())
    assert summary.problems == ["1 of 2 pictures could not be written"]
    assert [x.name for x in (tmp_path / "out").iterdir()] == ["b.png"]
    assert "a.png cannot be written: File name too long: left out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x" * 300 + ".json", "nul\0.json"])
def test_a_name_that_cannot_be_is_told(tmp_path, name):
    picture = picture_file(tmp_path / "in.png")
    with pytest.raises(UserError, match="is not a path: a name has at most 255 bytes and no NUL"):
        Job(picture, json=tmp_path / name)
    with pytest.raises(UserError, match="is not a path"):
        Job(picture, tmp_path / name.replace(".json", ".png"))


# --- As long and as large as the source ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 81), (49, 80), (49, 81), (1, 1)])
def test_odd_sizes_are_padded_by_repeating_the_edge_and_told_once(tmp_path, capsys, size):
    height, width = size
    frame = np.full((height, width, 3), 40, np.uint8)
    frame[-8:] = frame[:, -8:] = 200
    video = VideoFile(tmp_path / "out.mp4", 10)
    for _ in range(3):
        video.write(frame)
    video.close()
    frames = read_video(tmp_path / "out.mp4")
    assert frames[0].shape == (height + height % 2, width + width % 2, 3)
    assert frames[0][:, -1].mean() == pytest.approx(200, abs=12) and frames[0][-1].mean() == pytest.approx(200, abs=12)
    assert capsys.readouterr().err.count("edge of the") == 1


def test_a_varying_frame_rate_lasts_as_long_as_its_source(tmp_path):
    times = [0, 0.1, 0.2, 1.2, 1.21, 1.22, 1.23, 1.3, 3.0]
    video = VideoFile(tmp_path / "out.mp4", 10)
    for i, seconds in enumerate(times):
        video.write(np.full((48, 80, 3), 25 * i, np.uint8), 7 + seconds)
    video.close(4.0)
    frames = read_video(tmp_path / "out.mp4")
    assert len(frames) == pytest.approx(40, abs=1)
    levels = [frame.mean() / 25 for frame in frames]
    assert levels[:3] == pytest.approx([0, 1, 2], abs=0.4)
    assert levels[5] == pytest.approx(2, abs=0.4)  # repeated while nothing comes
    assert levels[20] == pytest.approx(7, abs=0.4)
    assert levels[31:] == pytest.approx([8] * (len(frames) - 31), abs=0.4)


def test_gaps_are_filled_up_to_a_bound_and_then_left_out_and_told_once(tmp_path, monkeypatch, capsys):
    """Filling the gaps of damaged times would write for ever; frames behind them keep their pace."""
    monkeypatch.setattr(videos, "MOST_REPEATS", 100)
    monkeypatch.setattr(videos, "REPEATS_A_FRAME", 1)
    video = VideoFile(tmp_path / "out.mp4", 10)
    frame = np.zeros((48, 80, 3), np.uint8)
    for seconds in (0, 0.1, 8, 8.1, 8.2, 3600, 3600.1, 3601.1, 7200, 7200.1):
        video.write(frame, seconds)
    assert video.frames == 96
    video.close(7200.2)
    assert len(read_video(tmp_path / "out.mp4")) == 97  # 8.3 s, a gap, 1.2 s, a gap, 0.2 s
    told = capsys.readouterr().err
    assert told.count("\n") == 2 and "out.mp4: a gap of 3592 seconds in the times of its source is left out" in told


def test_at_the_end_a_header_that_says_hours_is_not_believed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(videos, "MOST_REPEATS", 100)
    video = VideoFile(tmp_path / "out.mp4", 10)
    for seconds in (0, 0.1, 0.5, 0.6):
        video.write(np.zeros((48, 80, 3), np.uint8), seconds)
    video.close(10**6)
    assert len(read_video(tmp_path / "out.mp4")) == 7
    assert "a gap of" in capsys.readouterr().err


def test_a_live_video_fills_any_gap(tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "MOST_REPEATS", 10)
    monkeypatch.setattr(videos, "REPEATS_A_FRAME", 0)
    video = VideoFile(tmp_path / "out.mp4", 10, live=True)
    for seconds in (0, 5, 10):
        video.write(np.zeros((48, 80, 3), np.uint8), seconds)
    video.close()
    assert len(read_video(tmp_path / "out.mp4")) == 101


def test_a_video_of_varying_rate_has_each_source_frame_once_in_json(tmp_path, monkeypatch):
    times = iter(i**2 / 40 for i in range(20))
    monkeypatch.setattr(sources.Video, "_clock", lambda self: next(times))
    source = video_file(tmp_path / "in.mp4")
    summary = Job(source, tmp_path / "out.mp4", json=tmp_path / "out.jsonl").run(FindsOne())
    assert summary.frames == len((tmp_path / "out.jsonl").read_text().splitlines()) == 20
    assert len(read_video(tmp_path / "out.mp4")) == pytest.approx(19**2 / 40 * 10, abs=2)


def test_times_that_jitter_neither_repeat_nor_leave_out_frames(tmp_path):
    random = np.random.default_rng(0)
    video = VideoFile(tmp_path / "out.mp4", 29.97)
    for i in range(100):
        video.write(np.zeros((48, 80, 3), np.uint8), (i + random.uniform(-0.4, 0.4)) / 29.97)
    video.close()
    assert video.steady and len(read_video(tmp_path / "out.mp4")) == 100


@pytest.mark.parametrize("fps", [0.05, 0.5, 23.976, 29.97, 65.5432, 89.8234567, 999.123])
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_any_rate_is_kept(tmp_path, fps, suffix):
    video = VideoFile(tmp_path / f"out{suffix}", fps)
    for _ in range(3):
        video.write(np.zeros((48, 80, 3), np.uint8))
    video.close()
    assert cv2.VideoCapture(str(tmp_path / f"out{suffix}")).get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=1e-3)


# --- Ended early -------------------------------------------------------------------------------------------------


@pytest.fixture
def usual_signals():
    """Those of a program that has just started, whatever other tests (Ray) have set."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_to_end_leaves_playable_results_and_the_exit_code_of_shells(tmp_path, usual_signals, number, code):
    def send(call):
        if call == 6:
            os.kill(os.getpid(), number)

    job = Job(video_file(tmp_path / "in.mp4"), tmp_path / "out.mp4", json=tmp_path / "out.jsonl")
    with pytest.raises(Terminated) as ended:
        job.run(FindsOne(send))
    assert ended.value.code == code
    written = len(read_video(tmp_path / "out.mp4"))
    assert written == ended.value.summary.frames == len((tmp_path / "out.jsonl").read_text().splitlines())
    assert 5 <= written < 20
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_frame_handed_over_before_the_signal_is_counted(tmp_path, monkeypatch):
    class EndedBehindThreeFrames(detect.WriteBehind):
        handed_over = 0

        def put(self, item):
            super().put(item)
            self.handed_over += 1
            if self.handed_over == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(detect, "WriteBehind", EndedBehindThreeFrames)
    summary = Job(video_file(tmp_path / "in.mp4"), tmp_path / "out.mp4").run(FindsOne())
    assert summary.frames == summary.boxes == len(read_video(tmp_path / "out.mp4")) == 3


def test_signals_that_a_program_ignores_or_handles_itself_stay_its_own(tmp_path, usual_signals):
    def send(call):
        for number in (signal.SIGTERM, signal.SIGHUP):
            if call == 3:
                os.kill(os.getpid(), number)

    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append("term"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    summary = Job(video_file(tmp_path / "in.mp4"), tmp_path / "out.mp4").run(FindsOne(send))
    assert seen == ["term"] and summary.frames == 20


# --- What a person sees ----------------------------------------------------------------------------------------


def test_a_terminal_is_shown_neither_control_characters_nor_passwords():
    assert printable("a\x1b[31m\nb\r\u202ec\udcff\x9b") == "a\\x1b[31m\\nb\\r\\u202ec\\udcff\\x9b"
    assert (
        printable("caf\u00e9 \u4e2d\u6587 \U0001f469\u200d\U0001f680")
        == "caf\u00e9 \u4e2d\u6587 \U0001f469\u200d\U0001f680"
    )
    assert printable("rtsp://me:se:c@ret@cam:554/1 is lost") == "rtsp://me:***@cam:554/1 is lost"
    assert printable("http://host:80/a@b") == "http://host:80/a@b"


def test_the_name_of_a_padded_video_does_not_move_the_cursor(tmp_path, capsys):
    video = VideoFile(tmp_path / "in\x1b[2J.mp4", 10)
    video.write(np.zeros((49, 81, 3), np.uint8))
    video.close()
    told = capsys.readouterr().err
    assert "in\\x1b[2J.mp4 is 82 x 50 pixels" in told and "\x1b" not in told


def test_a_new_format_is_one_class_and_one_row(tmp_path, monkeypatch, capsys):
    class Counts(Lines):
        def text(self, frame, found):
            return f"{frame.index},{len(found)}\n"

    monkeypatch.setitem(outputs.RESULT_FILES, "counts", ResultFile(Counts, (".csv",), "file of counts"))
    source, path = picture_file(tmp_path / "in\x1b[2J.png"), tmp_path / "out.csv"
    monkeypatch.setattr(sys, "argv", ["x", str(source), "--output", "", "--counts", str(path)])
    monkeypatch.setattr(cli, "Load_Yolo_model", lambda *_, **__: FindsOne())
    assert cli.detect_from_command_line(ScriptParser(""), None) == 0
    assert path.read_text() == "0,1\n"
    said = capsys.readouterr()
    assert "a picture: 1.0 ms preparing, 20.0 ms network, 0.4 ms suppression\n" in said.out
    assert f"written: {path}" in said.out and "\x1b" not in said.out + said.err
    with pytest.raises(UserError, match="must end in one of .csv"):
        Job(source, counts=tmp_path / "out.txt")
    with pytest.raises(UserError, match="'count' is not known: choose one of 'json', .*, 'counts'"):
        Job(source, count=path)
    with pytest.raises(UserError, match="for tracks: object_tracker.py writes it"):
        Job(source, mot=tmp_path / "out.txt")


def test_a_picture_too_large_for_its_format_is_told(tmp_path):
    with pytest.raises(UserError, match="65536 x 1 is too large for its format"):
        write_picture(tmp_path / "out.jpg", np.zeros((1, 65536, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_no_result_file_falls_on_what_the_model_is_read_from(tmp_path, monkeypatch):
    monkeypatch.setattr("yolov3.configs.TRAIN_CLASSES", str(tmp_path / "classes.txt"))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    picture = picture_file(tmp_path / "in.png")
    with pytest.raises(UserError, match="classes.txt is the input itself"):
        Job(picture, mot=tmp_path / "classes.txt", follow=lambda frame, found: found)
    with pytest.raises(UserError, match="description of a checkpoint"):
        Job(picture, json=tmp_path / "model.json")
