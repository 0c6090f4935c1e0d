# SPDX-License-Identifier: Apache-2.0
"""Places of the checkout's files that tests use and that are in no package."""

from pathlib import Path

ROOT = Path(__file__).parents[3]
HLS = ROOT / "hls"
TESTS = ROOT / "tests"
BOARD = ROOT / "board" / "zcu104"
