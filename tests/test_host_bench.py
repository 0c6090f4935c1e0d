# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the host runtime: what it counts, not how long it takes."""

from pathlib import Path

import pytest

from bundles import small_bundle, small_config
from csim_library import build
from edge_moe.bench import host
from edge_moe_host.runtime.accelerator import Accelerator
from networks import random_images


def test_rows_leave_the_simulation_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build()
    pictures = random_images(small_config(), 3)
    clock = iter(range(10**6))  # a second for each look at it
    with Accelerator.open("csim", small_bundle(tmp_path)) as accelerator:
        monkeypatch.setattr(host.time, "thread_time", lambda: next(clock))
        rows = host.time_tasks(accelerator, pictures)
        assert [(row.task, row.size) for row in rows] == [("depth", (16, 32)), ("semseg", (16, 32))]
        # looks at the frame's start, the library's start and end, the frame's end: 3 s less the library's 1
        assert {(row.median, row.largest) for row in rows} == {(2000.0, 2000.0)}
        assert accelerator.counters()["depth"].frames == 4
    table = host.host_table(rows)
    assert "| depth | 16x32 | 2000.00 | 2000.00 |" in table
