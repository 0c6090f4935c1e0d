# SPDX-License-Identifier: Apache-2.0
"""hls/Makefile for parallel tests: one build at a time, so that no test sees an unfinished build. Tests under
sanitizers."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from edge_moe.places import make_text
from edge_moe.testing.checkout import HLS, ROOT, TESTS


@contextmanager
def building() -> Iterator[None]:
    """Only one process at a time is between these lines."""
    lock = ROOT / "build" / "hls.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file frees it
        yield


def make(*arguments: str, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """Run hls/Makefile with this Python."""
    command = [
        "make",
        "-C",
        str(HLS),
        "--no-print-directory",
        f"PYTHON={make_text(sys.executable)}",
        *arguments,
    ]
    with building():
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def passed_tests(*arguments: str, timeout: float = 500, **environment: str) -> int:
    """Run tests in a process with these variables: how many passed; AssertionError if one fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(
        command, cwd=TESTS, env=os.environ | environment, capture_output=True, text=True, timeout=timeout
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    return int(run.stdout.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1])


def sanitizers() -> dict[str, str]:
    """Variables of a process that loads a library with the address and undefined-behaviour sanitizers."""
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
