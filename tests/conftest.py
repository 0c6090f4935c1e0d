# SPDX-License-Identifier: Apache-2.0
"""Shared test set-up: one thread for reproducible sums, a scenes cache of their own, and a floor
under the number of tests.
"""

import signal
from collections.abc import Iterator

import pytest
import torch

# What a shell starts in the background ignores SIGINT, with all that it starts; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--min-passed", type=int, default=0, help="fail when fewer tests than this pass")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    passed = len(reporter.stats.get("passed", [])) if reporter else 0
    floor = session.config.getoption("--min-passed")
    if passed < floor and exitstatus == 0:
        reporter.write_line(f"only {passed} tests passed, at least {floor} must", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True, scope="session")
def _own_scenes_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_MOE_CACHE", str(tmp_path_factory.mktemp("scenes")))
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
