# SPDX-License-Identifier: Apache-2.0
"""hls/Makefile for tests that run side by side: one build at a time, so that none sees half of another's."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from edge_moe.testing.checkout import HLS, ROOT


@contextmanager
def building() -> Iterator[None]:
    """No other process is between these lines at the same time."""
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
