# SPDX-License-Identifier: Apache-2.0
"""Pages in chromium, without a window."""

import shutil
import subprocess
from pathlib import Path

import pytest

SECONDS = 100
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH")


def browse(folder: Path, url: str, *options: str) -> str:
    """The output of chromium."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--hide-scrollbars", f"--user-data-dir={folder}", "--virtual-time-budget=5000", *options, url,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
