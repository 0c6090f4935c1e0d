# SPDX-License-Identifier: Apache-2.0
"""demo.py on the simulated board: every kind of source, turns of the tasks, figures, bad input, Ctrl-C."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import demo
import numpy as np
import pynq
import pynq.pl_server.global_state as global_state
import pytest
from demo_figures import SIMULATED, Stretch, table
from PIL import Image
from simulated import Fault, SimulatedDevice
from simulated_design import write_design

from edge_moe.testing.checkout import ROOT
from edge_moe.testing.samples import Sample
from edge_moe_host.backends.board.power import Energy
from edge_moe_host.backends.pynq import PynqAccelerator
from edge_moe_host.runtime import images
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.result import Raw, make_result

SCRIPT = ROOT / "board" / "zcu104" / "demo.py"
SECONDS = 100


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "overlays"


@pytest.fixture
def kept_board(board: SimulatedDevice, monkeypatch: pytest.MonkeyPatch) -> SimulatedDevice:
    """The board of --simulated: it exists before and after the demo, and is checked at the end."""
    monkeypatch.setattr("simulated.simulated_board", lambda _: contextlib.nullcontext(board))
    return board


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tasks in the order in which the device got them."""
    submit, seen = PynqAccelerator._submit, []

    def noting(self: PynqAccelerator, task: str, image: np.ndarray) -> object:
        seen.append(task)
        return submit(self, task, image)

    monkeypatch.setattr(PynqAccelerator, "_submit", noting)
    return seen


def save(picture: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def run(*arguments: object) -> int:
    return demo.main([str(argument) for argument in arguments])


def overlay(sample: Sample, index: int, task: str) -> np.ndarray:
    """Content of the file with golden's result over picture ``index``."""
    raw = Raw(sample.right[task][index], None, 0.0)
    return make_result(sample.bundle.task(task), raw, sample.images[index]).draw(sample.images[index])


def equal_files(out: Path, right: dict[str, np.ndarray]) -> int:
    """Assert that the folder has exactly these pictures; return the number of equal values."""
    assert {path.name for path in out.iterdir()} == set(right)
    for name, picture in right.items():
        np.testing.assert_array_equal(np.asarray(Image.open(out / name)), picture)
    return sum(picture.size for picture in right.values())


def rows(printed: str) -> dict[str, list[str]]:
    """The last table, by its first column."""
    lines = printed[printed.index("task  ") :].splitlines()
    return {line.split()[0]: re.split(r"\s{2,}", line)[1:] for line in lines[1:]}


# Sources


def test_a_picture(small: Sample, tmp_path: Path, out: Path, turns: list[str], capsys) -> None:
    picture = save(small.images[0], tmp_path / "a.png")
    assert run(small.path, picture, "--simulated", "--out", out) == 0
    assert turns == small.tasks
    right = {f"a_{task}.png": overlay(small, 0, task) for task in small.tasks}
    assert equal_files(out, right) == 2 * 16 * 32 * 3
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert f"\n{SIMULATED}\ntask " in printed
    counted = rows(printed)
    assert [counted[name][0] for name in (*small.tasks, "all")] == ["1", "1", "2"]
    with Accelerator.open("csim", small.path) as csim:
        for task in small.tasks:
            milliseconds = f"{csim.run(small.images[0], task).cycles / 300e3:.3f}"
            assert counted[task][1] == milliseconds
            assert f"{out / f'a_{task}.png'}  {task}  {milliseconds} ms\n" in printed
    assert {row[3] for row in counted.values()} == {"1.00"}


def test_folders_and_pictures(small: Sample, tmp_path: Path, out: Path, turns: list[str]) -> None:
    for index in (1, 2):
        save(small.images[index], tmp_path / "folder" / f"p{index}.png")
    single = save(small.images[3], tmp_path / "p1.png")
    assert run(small.path, tmp_path / "folder", single, "--simulated", "--out", out) == 0
    names = {"1_p1": 1, "1_p2": 2, "2_p1": 3}
    right = {
        f"{name}_{task}.png": overlay(small, n, task) for name, n in names.items() for task in small.tasks
    }
    assert equal_files(out, right) == 6 * 16 * 32 * 3
    assert turns == small.tasks * 3


def test_tasks_in_the_order_asked_for(small: Sample, tmp_path: Path, out: Path, turns: list[str]) -> None:
    picture = save(small.images[0], tmp_path / "a.png")
    order = small.tasks[::-1]
    assert run(small.path, picture, picture, "--task", ",".join(order), "--simulated", "--out", out) == 0
    assert turns == order * 2
    turns.clear()
    assert run(small.path, picture, "--task", order[0], "--simulated", "--out", out) == 0
    assert turns == order[:1]


def test_a_video_takes_turns(small: Sample, tmp_path: Path, out: Path, turns: list[str]) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    rng = np.random.default_rng(5)
    for _ in range(5):
        writer.write(np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3)), 8, 0), 8, 1).astype(np.uint8))
    writer.release()
    assert run(small.path, clip, "--simulated", "--out", out) == 0
    expected = (small.tasks * 3)[:5]
    assert turns == expected
    with Accelerator.open("csim", small.path) as csim:
        right = {
            f"{frame.name}_{task}.png": csim.run(frame.image, task).draw(frame.image)
            for task, frame in zip(expected, images.frames(clip), strict=True)
        }
    assert equal_files(out, right) == 5 * 48 * 64 * 3


class Camera:
    """In place of cv2.VideoCapture: pictures for ever."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures, self.count, self.released = pictures, 0, False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def read(self) -> tuple[bool, np.ndarray]:
        self.count += 1
        return True, self.pictures[self.count % len(self.pictures)][..., ::-1]

    def release(self) -> None:
        self.released = True


def test_a_camera(small: Sample, out: Path, turns: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    camera, asked = Camera(small.images), []
    stand_in = SimpleNamespace(
        VideoCapture=lambda number: (asked.append(number), camera)[1],
        cvtColor=cv2.cvtColor,
        COLOR_BGR2RGB=cv2.COLOR_BGR2RGB,
    )
    monkeypatch.setattr(images, "_cv2", lambda: stand_in)
    assert run(small.path, "--camera", 3, "--simulated", "--frames", 6, "--out", out) == 0
    assert (asked, camera.released) == ([3], True)
    assert turns[:6] == (small.tasks * 3)[:6]
    files = sorted(out.iterdir())
    assert len(files) == 6
    for path in files:
        number, task = re.fullmatch(r"camera_(\d+)_(\w+)\.png", path.name).groups()
        right = overlay(small, (int(number) + 1) % len(small.images), task)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), right)


def test_a_number_of_frames(small: Sample, tmp_path: Path, out: Path, capsys) -> None:
    for index in range(4):
        save(small.images[index], tmp_path / "folder" / f"p{index}.png")
    assert run(small.path, tmp_path / "folder", "--simulated", "--frames", 3, "--out", out) == 0
    assert len(list(out.iterdir())) == 3
    assert rows(capsys.readouterr().out)["all"][0] == "3"


def test_a_board_over_the_network(
    small: Sample, tmp_path: Path, out: Path, serve, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(global_state, "STATE_DIR", str(tmp_path))
    far = SimulatedDevice("far")
    server, port = serve(far)
    bitfile = write_design(tmp_path, small.bundle.manifest.accelerator.hash)
    picture = save(small.images[0], tmp_path / "a.png")
    where = ("--address", f"127.0.0.1:{port}", "--bitfile", bitfile)
    assert run(small.path, picture, *where, "--out", out) == 0
    server.stop(None).wait(10)
    assert equal_files(out, {f"a_{task}.png": overlay(small, 0, task) for task in small.tasks})
    assert {row[3] for row in rows(capsys.readouterr().out).values()} == {"no sensor"}
    assert far.default_memory.buffers == 0
    assert far.violations == []
    far.close()


# Figures


def test_energy_is_shared_among_frames_by_their_time() -> None:
    stretch = Stretch(["a", "b"])
    for task, seconds in (("a", 0.001), ("a", 0.001), ("b", 0.006)):
        stretch.count(SimpleNamespace(task=task, seconds=seconds))
    stretch.end(Energy(seconds=2.0, watts=4.0, samples=9))
    a, b, both = stretch.figures("a"), stretch.figures("b"), stretch.figures()
    assert (a.joules, b.joules) == pytest.approx((1.0, 6.0))
    assert 2 * a.joules + b.joules == pytest.approx(8.0) == pytest.approx(3 * both.joules)
    assert (a.milliseconds, b.milliseconds) == pytest.approx((1.0, 6.0))
    assert (a.per_second, b.per_second, both.per_second) == (1.0, 0.5, 1.5)


def test_stretches_add_up() -> None:
    total = Stretch(["a"])
    assert (total.watts, total.figures("a").joules, total.figures().per_second) == (None, None, None)
    for seconds, watts in ((1.0, 2.0), (3.0, 6.0), (4.0, None)):
        part = Stretch(["a"])
        part.count(SimpleNamespace(task="a", seconds=0.5))
        part.end(Energy(seconds=seconds, watts=watts))
        total.add(part)
    assert total.watts == pytest.approx(5.0)  # over the four seconds with a sensor
    figures = total.figures("a")
    assert (figures.frames, figures.per_second) == (3, 3 / 8)
    assert figures.joules == pytest.approx(5.0 * 8 / 3)


def test_the_table_invents_nothing() -> None:
    stretch = Stretch(["semseg", "depth"])
    stretch.count(SimpleNamespace(task="semseg", seconds=0.00179))
    stretch.end(Energy(seconds=0.5))
    assert table(stretch, False) == (
        "task    frames  latency, ms  frames/s   board, W  J per frame\n"
        "semseg       1        1.790       2.0  no sensor    no sensor\n"
        "depth        0            -         -  no sensor    no sensor\n"
        "all          1        1.790       2.0  no sensor    no sensor"
    )
    assert table(stretch, True).splitlines()[0] == SIMULATED


def test_a_board_without_sensors(
    kept_board: SimulatedDevice, small: Sample, tmp_path: Path, out: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(pynq.pmbus, "_lib", None)
    assert run(small.path, save(small.images[0], tmp_path / "a.png"), "--simulated", "--out", out) == 0
    for row in rows(capsys.readouterr().out).values():
        assert row[3:] == ["no sensor", "no sensor"]


# Bad input


def test_bad_input(small: Sample, tmp_path: Path, out: Path, capsys) -> None:
    picture = save(small.images[0], tmp_path / "a.png")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    (tmp_path / "empty").mkdir()
    cases = [
        (["none", picture], r"bundle 'none' is not a folder\."),
        ([small.path, "none.png"], r"'none\.png' does not exist: give a picture, .*"),
        ([small.path, text], r"'.*text\.png' is not a picture that can be read .*"),
        ([small.path, tmp_path / "empty"], r"folder '.*empty' has no pictures .*"),
        ([small.path], r"there is nothing to show: name pictures, folders or videos, or give --camera\."),
        ([small.path, picture, "--camera", 0], r"give sources or --camera, not both; see --help\."),
        ([small.path, picture, "--task", "normals"], r"task 'normals' is not in .*"),
        ([small.path, picture, "--task", "depth,depth"], r"--task depth,depth names a task twice\."),
        ([small.path, picture, "--task", ""], r"task '' is not in .*"),
        ([small.path, "--camera", -1], r".*'-1' is not the number of a camera: give 0 or more; .*"),
        ([small.path, picture, "--serve", "a..b:80"], r"the page cannot be served at a\.\.b:80: .*\."),
        ([small.path, picture, "--frames", 0], r".*'0' is not a number of frames: give 1 or more; .*"),
        ([small.path, picture, "--serve", "8080x"], r".*'8080x' is not a port: .*"),
        ([small.path, picture, "--serve", "70000"], r".*'70000' is not a port: .*"),
        ([small.path, picture, "--out", "x", "--serve", 1], r".*not allowed with argument.*"),
        ([small.path, picture, "--out", picture], r"cannot make folder '.*a\.png': File exists\."),
        ([small.path, picture, "--bitfile", "no.bit"], r"the overlay is missing: 'no\.bit' does not exist.*"),
        ([small.path, picture, "--address", "127.0.0.1"], r".*not allowed with argument.*"),
        ([], r"the following arguments are required: BUNDLE.*; see --help\."),
    ]
    for arguments, message in cases:
        if "--out" not in arguments and "--serve" not in arguments:
            arguments = [*arguments, "--out", out]
        try:
            status = run(*arguments, "--simulated")
        except SystemExit as end:
            status = end.code
        printed, errors = capsys.readouterr()
        assert status == 2, (arguments, printed, errors)
        assert re.fullmatch(rf"demo: {message}\n", errors), (arguments, errors)
    assert not any(out.iterdir()) if out.exists() else True


def test_a_camera_that_is_not_there(small: Sample, capsys) -> None:
    assert run(small.path, "--camera", 97, "--simulated") == 2
    assert capsys.readouterr().err.endswith("demo: camera 97 gives no picture: is it connected, and free?\n")


def test_a_port_that_is_taken(small: Sample, tmp_path: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        picture = save(small.images[0], tmp_path / "a.png")
        assert run(small.path, picture, "--simulated", "--serve", where) == 2
    expected = f"demo: the page cannot be served at {where}: Address already in use.\n"
    assert capsys.readouterr().err == expected


def test_without_a_board(small: Sample, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("EDGE_MOE_DEVICE", raising=False)
    assert run(small.path, save(small.images[0], tmp_path / "a.png")) == 2
    assert capsys.readouterr().err.startswith("demo: pynq finds no device here: run this on the board, ")


def test_a_board_that_fails(
    kept_board: SimulatedDevice, small: Sample, tmp_path: Path, out: Path, capsys, monkeypatch
) -> None:
    """The message is one sentence with the registers, and the next run of the demo works."""
    count = demo.Stretch.count

    def counting(self: Stretch, result: object) -> None:
        count(self, result)
        if sum(self.frames.values()) == 1:
            kept_board.inject(Fault.STOPPED, error=3, position=5)

    picture = save(small.images[0], tmp_path / "a.png")
    folder = [picture] * 10
    with monkeypatch.context() as patch:
        patch.setattr(demo.Stretch, "count", counting)
        assert run(small.path, *folder, "--simulated", "--out", out) == 2
    assert re.fullmatch(r"demo: task '\w+' of '.*' .* \(status \d+, error 3\)\.\n", capsys.readouterr().err)
    assert len(list(out.iterdir())) < 20
    assert run(small.path, *folder, "--simulated", "--out", out) == 0
    right = {f"{n}_a_{task}.png": overlay(small, 0, task) for n in range(1, 11) for task in small.tasks}
    assert equal_files(out, right) == 20 * 16 * 32 * 3


@pytest.mark.parametrize("name", ["straße 道.png", b"latin\xe9.png"])
def test_names_that_the_terminal_cannot_show(
    small: Sample, tmp_path: Path, out: Path, name: str | bytes
) -> None:
    picture = tmp_path / os.fsdecode(name)
    Image.fromarray(small.images[0]).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(picture)
    command = [sys.executable, str(SCRIPT), str(small.path), str(picture), "--simulated", "--out", str(out)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("?") >= len(small.tasks)
    assert "\nall " in done.stdout
    assert equal_files(out, {f"{picture.stem}_{task}.png": overlay(small, 0, task) for task in small.tasks})
    command[3] = str(tmp_path / "no" / picture.name)
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


# Ctrl-C


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.4])
def test_ctrl_c_leaves_the_device_usable(
    delay: float, kept_board: SimulatedDevice, small: Sample, tmp_path: Path, capsys, monkeypatch
) -> None:
    kept_board.set_latency(0.01)
    count, timers = demo.Stretch.count, []

    def counting(self: Stretch, result: object) -> None:
        count(self, result)
        if not timers:
            timers.append(threading.Timer(delay, signal.raise_signal, [signal.SIGINT]))
            timers[0].start()

    monkeypatch.setattr(demo.Stretch, "count", counting)
    picture = save(small.images[0], tmp_path / "a.png")
    assert run(small.path, picture, "--simulated", "--serve", "127.0.0.1:0") == 0
    timers[0].join()
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert "\nstopped\n" in printed
    assert int(rows(printed)["all"][0]) >= 1
    assert kept_board.default_memory.buffers == 0
    kept_board.set_latency(0.0)
    with Accelerator.open("pynq", small.bundle, device=kept_board) as accelerator:
        assert small.all_frames(accelerator) == small.values


def test_ctrl_c_that_leaves_pictures_undone(
    kept_board: SimulatedDevice, small: Sample, tmp_path: Path, out: Path, capsys
) -> None:
    kept_board.set_latency(0.05)
    picture = save(small.images[0], tmp_path / "a.png")
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    timer.start()
    assert run(small.path, *[picture] * 200, "--simulated", "--out", out) == 130
    timer.join()
    assert int(rows(capsys.readouterr().out)["all"][0]) in (
        len(list(out.iterdir())),
        len(list(out.iterdir())) + 1,
    )
    assert not list(out.glob(".*"))
    kept_board.set_latency(0.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_command(number: int, small: Sample, tmp_path: Path) -> None:
    picture = save(small.images[0], tmp_path / "a.png")
    command = [sys.executable, str(SCRIPT), str(small.path), str(picture), "--simulated", "--serve"]
    process = subprocess.Popen(
        [*command, "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == f"ZCU104 (simulated): {small.path}, {', '.join(small.tasks)}\n"
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/  \(Ctrl-C ends\)\n", process.stdout.readline())
        process.send_signal(number)
        printed, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    assert printed.startswith("stopped\n")
    assert not list(tmp_path.glob("edge_moe_board_*"))  # the simulated board was closed
