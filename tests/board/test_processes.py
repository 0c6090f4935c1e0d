# SPDX-License-Identifier: Apache-2.0
"""One device, several processes: the lock, the state after kill -9, and Ctrl-C in a stream."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from simulated import Fault, SimulatedDevice, simulated_board

from edge_moe.testing.checkout import BOARD
from edge_moe.testing.samples import Sample
from edge_moe_host.backends.board.lock import DeviceLock
from edge_moe_host.errors import DeviceBusyError, DeviceError
from edge_moe_host.runtime.accelerator import Accelerator

CHILD_SECONDS = 60
PROGRAM = """
import time
from simulated import simulated_board
from edge_moe_host.runtime.accelerator import Accelerator
import numpy as np
golden = np.load({golden!r})
with simulated_board({bundle!r}, tag="shared") as board:
    with Accelerator.open("pynq", {bundle!r}, device=board, locks={locks!r}) as accelerator:
        print("open", flush=True)
        {body}
print("closed", flush=True)
"""
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(filter(None, [str(BOARD), os.environ.get("PYTHONPATH")]))
}
FOREVER = "[accelerator.run(image) for _ in range(10**9) for image in golden['images']]"


@pytest.fixture
def child(small: Sample, locks: Path) -> Iterator["Child"]:
    process = Child(small, locks)
    yield process
    process.end()


class Child:
    """Another process with a board of the same name."""

    def __init__(self, sample: Sample, locks: Path) -> None:
        self.values = {
            "bundle": str(sample.path),
            "locks": str(locks),
            "golden": str(sample.path.parent / "golden.npz"),
        }
        self.process: subprocess.Popen[str] | None = None

    def start(self, body: str, wait_for: str = "open") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(body=body, **self.values)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line == wait_for, self.process.stderr.read()

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=CHILD_SECONDS)


def test_a_second_process_is_refused(child: Child, small: Sample, locks: Path) -> None:
    child.start(FOREVER)
    with simulated_board(small.bundle, tag="shared") as board:
        with pytest.raises(DeviceBusyError, match=f"in use by process {child.process.pid}: close its acc"):
            Accelerator.open("pynq", small.bundle, device=board, locks=locks)
        assert board.downloads == 0  # the device was not touched
        assert board.default_memory.buffers == 0
    assert child.process.poll() is None


def test_kill_9_frees_the_device(child: Child, small: Sample, locks: Path) -> None:
    child.start(FOREVER)
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait(CHILD_SECONDS)
    with (
        simulated_board(small.bundle, tag="shared") as board,
        Accelerator.open("pynq", small.bundle, device=board, locks=locks) as accelerator,
    ):
        small.all_frames(accelerator)


def test_a_process_that_ends_frees_the_device(child: Child, small: Sample, locks: Path) -> None:
    child.start("pass")
    output, errors = child.process.stdout.read(), child.process.stderr.read()  # a quick one wrote all at once
    assert (output, errors, child.process.wait(CHILD_SECONDS)) == ("closed\n", "", 0)
    with simulated_board(small.bundle, tag="shared") as board:
        Accelerator.open("pynq", small.bundle, device=board, locks=locks).close()


def test_a_second_accelerator_of_this_process_is_refused(
    accelerator: Accelerator, board: SimulatedDevice, small: Sample, locks: Path
) -> None:
    with pytest.raises(DeviceBusyError, match="in use by this process"):
        Accelerator.open("pynq", small.bundle, device=board, locks=locks)
    small.all_frames(accelerator)


# Ctrl-C


def test_ctrl_c_in_a_stream_of_another_process(child: Child, small: Sample) -> None:
    """A real SIGINT: the stream ends, the device keeps working, everything is freed."""
    body = """
        source = (golden['images'][n % 4] for n in range(10**9))
        seen = 0
        try:
            for result in accelerator.stream(source, ["semseg", "depth"]):
                seen += 1
                if seen == 5: print("streaming", flush=True)
        except KeyboardInterrupt:
            pass
        assert seen >= 5
        for n in range(4):
            for task in ("semseg", "depth"):
                raw = accelerator.run(golden['images'][n], task).raw
                assert np.array_equal(raw.reshape(-1), golden[task][n].reshape(-1))
        print("works", flush=True)
    assert board.default_memory.buffers == 0 and not board.violations, board.violations"""
    child.start(body)
    assert child.process.stdout.readline() == "streaming\n"
    child.process.send_signal(signal.SIGINT)
    output, errors = child.process.communicate(timeout=CHILD_SECONDS)
    assert (output, errors, child.process.returncode) == ("works\nclosed\n", "", 0)


def _run_for_long(accelerator: Accelerator, sample: Sample) -> None:
    for _ in range(100):
        sample.frame(accelerator, sample.tasks[0])


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.029, 0.047])
def test_ctrl_c_while_a_frame_is_awaited(
    delay: float, accelerator: Accelerator, board: SimulatedDevice, small: Sample
) -> None:
    board.set_latency(0.05)
    timer = threading.Timer(0.05 + delay, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        _run_for_long(accelerator, small)
    timer.join()
    board.set_latency(0.0)
    small.all_frames(accelerator)
    assert board.downloads == 1


def test_ctrl_c_while_a_frame_hangs(accelerator: Accelerator, board: SimulatedDevice, small: Sample) -> None:
    board.inject(Fault.NEVER_DONE)
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        accelerator.run(small.images[0])
    accelerator._timeout = 1.0
    small.all_frames(accelerator)
    assert board.downloads == 2


def test_ctrl_c_between_submission_and_its_record(
    accelerator: Accelerator, small: Sample, board: SimulatedDevice
) -> None:
    """A frame that the backend took, but whose token was lost, blocks no other frame."""
    task = small.tasks[0]
    for _ in range(3):
        accelerator._submit(task, small.images[1])  # its token is lost
        small.frame(accelerator, task, 2)
    for index in (1, 3):
        accelerator._submit(task, small.images[index])
    small.frame(accelerator, task, 0)  # both places were taken
    assert np.all(board.default_memory.buffers == 6)
    small.all_frames(accelerator)


# The lock alone


def test_lock(tmp_path: Path) -> None:
    first, second = DeviceLock("a/b c", tmp_path), DeviceLock("a/b c", tmp_path)
    assert first.path == tmp_path / "edge_moe_a_b_c.lock"
    with first:
        assert first.path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(DeviceBusyError, match="'a/b c' is in use by this process"):
            second.acquire()
        with pytest.raises(DeviceBusyError, match="by this object already"):
            first.acquire()
        with DeviceLock("other", tmp_path):
            pass
    assert first.path.read_text() == ""
    second.acquire()
    second.release()
    second.release()


def test_lock_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"cannot be locked: '.*/none/edge_moe_x\.lock': No such file"):
        DeviceLock("x", tmp_path / "none").acquire()
    (tmp_path / "target").touch()
    (tmp_path / "edge_moe_x.lock").symlink_to(tmp_path / "target")
    with pytest.raises(DeviceError, match="cannot be locked"):
        DeviceLock("x", tmp_path).acquire()


def test_lock_of_every_user_stands_in_one_place() -> None:
    assert DeviceLock("x").path == DeviceLock("x").path
    assert DeviceLock("x").path.parent.is_dir()


def test_children_do_not_keep_the_lock(tmp_path: Path) -> None:
    with DeviceLock("x", tmp_path):
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    try:
        time.sleep(0.1)
        with DeviceLock("x", tmp_path):
            pass
    finally:
        sleeper.kill()
        sleeper.wait(CHILD_SECONDS)
