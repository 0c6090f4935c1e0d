# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the host runtime leaves out the library's processor time, and nothing else."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_moe.bench.host import host_table, time_tasks
from edge_moe.testing.bundles import small_bundle, small_config
from edge_moe.testing.csim import build
from edge_moe.testing.networks import random_images
from edge_moe_host.runtime.accelerator import Accelerator

DELAY = 0.1  # s of processor time; a frame of this size needs about 1 % of it
FRAMES = 3


def slow(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function after DELAY of work; a clock of processor time does not count waiting."""

    def called(*arguments: Any, **options: Any) -> Any:
        end = time.thread_time() + DELAY
        while time.thread_time() < end:
            pass
        return function(*arguments, **options)

    return called


@pytest.mark.parametrize("part", ["library", "host"])
def test_the_time_of_the_library_is_left_out(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    pictures = random_images(small_config(), FRAMES)
    with Accelerator.open("csim", small_bundle(tmp_path)) as accelerator:
        csim = accelerator._csim  # type: ignore[attr-defined]
        owner, name = (csim, "_run") if part == "library" else (accelerator, "_run_raw")
        monkeypatch.setattr(owner, name, slow(getattr(owner, name)))
        rows = time_tasks(accelerator, pictures)
        assert [(row.task, row.size) for row in rows] == [("depth", (16, 32)), ("semseg", (16, 32))]
        for row in rows:
            assert 0 < row.median <= row.largest
            assert (row.median >= 1e3 * DELAY) == (part == "host")
        assert accelerator.counters()["depth"].frames == 1 + FRAMES
    assert f"| depth | 16x32 | {rows[0].median:.2f} | {rows[0].largest:.2f} |" in host_table(rows)
