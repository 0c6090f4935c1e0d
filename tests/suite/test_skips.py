# SPDX-License-Identifier: Apache-2.0
"""A run of the tests fails on any skip whose reason is not listed, on one core and on several."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_moe.testing.checkout import TESTS

TEXT = """
import pytest

@pytest.mark.skipif(True, reason={reason!r})
def test_of_a_device(): pass

def test_that_passes(): pass
"""
MODULE = "import pytest\n\npytest.importorskip('no_such_module')\n"
LISTED = "needs a CUDA device"


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in the folder as this project's."""
    for name in ("conftest.py", "expected_skips.txt"):
        shutil.copy(TESTS / name, folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["one process", "two processes"])
def test_skips_are_listed_or_failures(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(TEXT.format(reason=LISTED))
    good = run(tmp_path, *options)
    assert (good.returncode, good.stdout.count("1 passed, 1 skipped")) == (0, 1), good.stdout
    (tmp_path / "test_it.py").write_text(TEXT.format(reason=f"{LISTED} that nobody has"))
    bad = run(tmp_path, *options)
    assert bad.returncode == 1
    assert (
        "expected_skips.txt does not list: test_it.py::test_of_a_device: needs a CUDA device that"
        in bad.stdout
    )
    assert bad.stdout.count("does not list") == 1


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["one process", "two processes"])
def test_a_whole_file_that_is_skipped(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(TEXT.format(reason=LISTED))
    (tmp_path / "test_module.py").write_text(MODULE)
    bad = run(tmp_path, *options)
    assert bad.returncode == 1
    assert "does not list: test_module.py: could not import 'no_such_module'" in bad.stdout


def test_a_run_without_tests_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("")
    assert run(tmp_path).returncode == 5
