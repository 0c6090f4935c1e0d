# SPDX-License-Identifier: Apache-2.0
"""hls/Makefile for parallel tests: one build at a time, so that no test sees an unfinished build."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from edge_moe.testing.checkout import HLS, ROOT


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
    command = ["make", "-C", str(HLS), "--no-print-directory", f"PYTHON={sys.executable}", *arguments]
    with building():
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
