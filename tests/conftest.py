# SPDX-License-Identifier: Apache-2.0
"""Shared set-up for every environment that tests run in: torch and the model package may be missing.

One thread for reproducible sums, a separate cache of scenes, and a list of permitted skips.
"""

import re
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Processes that a shell starts in the background ignore SIGINT, and so do their children; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Reasons for which a test may be skipped. A run with any other skip fails.
EXPECTED_SKIPS = [
    line.split("  #")[0].rstrip()
    for line in (Path(__file__).parent / "expected_skips.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]

# These compare the host package with torch or with the model package, which its own environments lack.
if find_spec("torch") is None:
    collect_ignore = [
        "golden/test_torch.py",
        "contract/test_blocks.py",
        "contract/test_fuzz.py",
    ]


def unexpected_skips(reporter: pytest.TerminalReporter) -> list[str]:
    """Test and reason of each skip that is not on the list."""
    found = []
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not any(re.fullmatch(pattern, reason) for pattern in EXPECTED_SKIPS):
            found.append(f"{report.nodeid}: {reason}")
    return found


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail on unexpected skips; workers of pytest-xdist have no reporter, and their parent sees the skips."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or exitstatus != 0:
        return
    for line in unexpected_skips(reporter):
        reporter.write_line(
            f"skipped for a reason that tests/expected_skips.txt does not list: {line}", red=True
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True, scope="session")
def _own_scenes_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_MOE_CACHE", str(tmp_path_factory.mktemp("scenes")))
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
