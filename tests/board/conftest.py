# SPDX-License-Identifier: Apache-2.0
"""Tests of driver and simulated board; they run where pynq is installed, and elsewhere there are none."""

import signal
from importlib.util import find_spec

# as in tests/conftest.py: what runs in the background ignores it otherwise
signal.signal(signal.SIGINT, signal.default_int_handler)

if find_spec("pynq") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from board_fixtures import *  # noqa: F403
