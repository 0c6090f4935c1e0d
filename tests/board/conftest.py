# SPDX-License-Identifier: Apache-2.0
"""Tests of driver and simulated board; they run where pynq is installed, and elsewhere there are none."""

from importlib.util import find_spec

if find_spec("pynq") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from board_fixtures import *  # noqa: F403
