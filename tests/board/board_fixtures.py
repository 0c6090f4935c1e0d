# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the board's tests: bundles with golden results, simulated boards, and a floor under the number.

After every test each board that it used must have all its buffers back, and nothing noted against the driver.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from simulated import SimulatedDevice, simulated_board

from edge_moe_host.contract.bundle import Bundle, load_bundle
from edge_moe_host.runtime.accelerator import Accelerator

ROOT = Path(__file__).parents[2]
BUNDLES = ROOT / "build" / "board_bundles"
TIMEOUT = 20.0  # seconds for a frame that is right
SHORT = 0.3  # for one that never ends


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--min-passed", type=int, default=0, help="fail when fewer tests than this pass")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    passed = len(reporter.stats.get("passed", [])) if reporter else 0
    floor = session.config.getoption("--min-passed")
    if passed < floor and exitstatus == 0:
        reporter.write_line(f"only {passed} tests passed, at least {floor} must", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class Sample:
    """A bundle, pictures, and what golden makes of them."""

    def __init__(self, name: str) -> None:
        self.path = BUNDLES / name / "bundle"
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"{self.path} is missing: run .venv/bin/python tests/board/make_bundles.py"
            )
        self.bundle: Bundle = load_bundle(self.path)
        with np.load(BUNDLES / name / "golden.npz") as golden:
            self.images = golden["images"]
            self.right = {task: golden[task].reshape(len(self.images), -1) for task in self.bundle.tasks}
        self.tasks = list(self.bundle.tasks)

    def frame(self, accelerator: Accelerator, task: str, index: int = 0) -> int:
        """Run a frame and compare it with golden; the number of values."""
        return self.compare(accelerator.run(self.images[index], task).raw, task, index)

    def compare(self, raw: np.ndarray, task: str, index: int) -> int:
        """A result equals golden's; the number of values."""
        assert raw.dtype == np.int16
        np.testing.assert_array_equal(raw.reshape(-1), self.right[task][index])
        return raw.size

    def all_frames(self, accelerator: Accelerator) -> int:
        """Every task of every picture; the number of values that were equal."""
        frames = itertools.product(range(len(self.images)), self.tasks)
        return sum(self.frame(accelerator, task, index) for index, task in frames)

    @property
    def values(self) -> int:
        """How many there are in all results."""
        return sum(right.size for right in self.right.values())


@pytest.fixture(scope="session")
def small() -> Sample:
    return Sample("small")


@pytest.fixture(scope="session")
def mini() -> Sample:
    return Sample("mini")


@pytest.fixture(scope="session")
def other() -> Sample:
    """For another accelerator."""
    return Sample("other")


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    folder = tmp_path / "locks"
    folder.mkdir()
    return folder


@pytest.fixture
def board(small: Sample) -> Iterator[SimulatedDevice]:
    """A simulated board with the accelerator of ``small``; looked over when the test is done."""
    with simulated_board(small.bundle) as device:
        yield device
        assert device.default_memory.buffers == 0
        assert device.default_memory.bytes == 0
    assert device.violations == []


@pytest.fixture(params=["poll", "interrupt"])
def accelerator(
    request: pytest.FixtureRequest, board: SimulatedDevice, small: Sample, locks: Path
) -> Iterator[Accelerator]:
    """``small`` on the board, waiting both ways."""
    with Accelerator.open(
        "pynq", small.bundle, device=board, wait=request.param, timeout=TIMEOUT, locks=locks
    ) as opened:
        yield opened
