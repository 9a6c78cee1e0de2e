"""Several workers, and several devices of one, train as one process with the same global batch does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

STEPS = 20


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("pictures")
    random, lines = np.random.default_rng(0), []
    for i in range(10):
        picture, boxes = random.integers(0, 256, (60, 80, 3), np.uint8), []
        for j in range(i % 4):  # batches have rows for more and for fewer boxes
            x, y = int(random.integers(0, 50)), int(random.integers(0, 40))
            cv2.rectangle(picture, (x, y), (x + 20, y + 15), ((255, 0, 0), (0, 255, 0))[j % 2], -1)
            boxes.append(f"{x},{y},{x + 20},{y + 15},{j % 2}")
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture)
        lines.append(" ".join([str(tmp_path / f"{i}.png"), *boxes]))
    (tmp_path / "annotations.txt").write_text("\n".join(lines))
    return tmp_path


def start(folder, cluster=None, index=0, devices=1):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if cluster:
        environment["TF_CONFIG"] = json.dumps(
            {"cluster": {"worker": cluster}, "task": {"type": "worker", "index": index}}
        )
    script = Path(__file__).with_name("worker.py")
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(STEPS), str(devices)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def alone(pictures):
    return answer(start(pictures))


@pytest.mark.slow
def test_two_workers_on_loopback_lose_what_one_process_loses(pictures, alone):
    cluster = [f"127.0.0.1:{port}" for port in free_ports(2)]
    both = [start(pictures, cluster, index) for index in range(2)]
    both = [answer(process) for process in both]
    assert [(worker["workers"], worker["index"]) for worker in both] == [(2, 0), (2, 1)]
    assert np.mean(alone["losses"][-5:]) < 0.9 * np.mean(alone["losses"][:5])
    for worker in both:
        assert len(worker["losses"]) == STEPS
        assert worker["losses"] == pytest.approx(alone["losses"], rel=1e-3)
        assert worker["shared"] == [0.25, 0.5]


@pytest.mark.slow
def test_two_devices_of_one_process_lose_what_one_loses(pictures, alone):
    both = answer(start(pictures, devices=2))
    assert (both["workers"], both["index"], both["shared"]) == (1, 0, [0.25, 0.5])
    assert both["losses"] == pytest.approx(alone["losses"], rel=1e-3)
