# SPDX-License-Identifier: Apache-2.0
"""The board's tests run where pynq is installed: bundles with golden results, and simulated boards.

After every test each board that it used must have all its buffers back and no violations by the driver.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edge_moe.testing.samples import TIMEOUT, Sample
from edge_moe_host.runtime.accelerator import Accelerator

if find_spec("pynq") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from simulated import SimulatedDevice, simulated_board

    if find_spec("pynq.remote") is None:
        collect_ignore = ["test_remote.py"]


@pytest.fixture(scope="session")
def small() -> Sample:
    return Sample("small")


@pytest.fixture(scope="session")
def mini() -> Sample:
    return Sample("mini")


@pytest.fixture(scope="session")
def other() -> Sample:
    """A bundle for another accelerator."""
    return Sample("other")


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    folder = tmp_path / "locks"
    folder.mkdir()
    return folder


@pytest.fixture
def serve() -> Callable[..., tuple[Any, int]]:
    """Serves a device over PYNQ.remote."""
    pytest.importorskip("pynq.remote", reason="pynq has no PYNQ.remote before 3.1")
    import simulated_server

    return simulated_server.serve


@pytest.fixture
def board(small: Sample) -> Iterator["SimulatedDevice"]:
    """A simulated board with the accelerator of ``small``; it is checked after the test."""
    with simulated_board(small.bundle) as device:
        yield device
        assert device.default_memory.buffers == 0
        assert device.default_memory.bytes == 0
    assert device.violations == []


@pytest.fixture(params=["poll", "interrupt"])
def accelerator(
    request: pytest.FixtureRequest, board: "SimulatedDevice", small: Sample, locks: Path
) -> Iterator[Accelerator]:
    """``small`` on the board, with either way of waiting."""
    with Accelerator.open(
        "pynq", small.bundle, device=board, wait=request.param, timeout=TIMEOUT, locks=locks
    ) as opened:
        yield opened
