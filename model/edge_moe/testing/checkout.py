# SPDX-License-Identifier: Apache-2.0
"""Where the files of the checkout are that tests use and no package holds."""

from pathlib import Path

ROOT = Path(__file__).parents[3]
HLS = ROOT / "hls"
TESTS = ROOT / "tests"
BOARD = ROOT / "board" / "zcu104"
