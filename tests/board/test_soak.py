# SPDX-License-Identifier: Apache-2.0
"""Three hundred frames in a row, with faults between them; board/zcu104/soak.py runs ten thousand."""

import subprocess
import sys

import numpy as np
import pytest
from soak import BLOCK, Soak, SoakError, soak

from edge_moe.testing.checkout import ROOT
from edge_moe.testing.samples import Sample
from edge_moe_host.runtime.result import Raw


def test_three_hundred_frames(mini: Sample) -> None:
    counts = soak(mini.bundle, 300, seed=1, fault_every=1)
    assert counts["frames"] == 300
    assert counts["values"] > 300 * 2000
    assert counts["faults"] == 5  # six kinds; the lost interrupt does not count


def test_a_run_goes_on_where_it_stopped(small: Sample) -> None:
    whole = soak(small.bundle, 4 * BLOCK, seed=2, fault_every=0)
    parts = [soak(small.bundle, 2 * BLOCK, seed=2, fault_every=0),
             soak(small.bundle, 4 * BLOCK, seed=2, start=2 * BLOCK, fault_every=0)]  # fmt: skip
    assert [part["frames"] for part in parts] == [2 * BLOCK] * 2
    assert sum(part["values"] for part in parts) == whole["values"]


def test_a_wrong_result_is_seen(small: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_moe_host.backends.pynq import PynqAccelerator

    collect, frames = PynqAccelerator._collect, []

    def wrong(self: PynqAccelerator, token: object) -> Raw:
        raw = collect(self, token)
        frames.append(token)
        if len(frames) == 70:
            raw.values.reshape(-1)[np.argmax(raw.values)] -= 1
        return raw

    monkeypatch.setattr(PynqAccelerator, "_collect", wrong)
    with pytest.raises(SoakError, match=r"frame 69: task .* came out wrong"):
        soak(small.bundle, 2 * BLOCK, fault_every=0)


def test_an_unnoticed_fault_is_seen(small: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Soak, "_check", lambda *_: None)
    monkeypatch.setattr("simulated.SimulatedDevice.inject", lambda *_, **__: None)
    with pytest.raises(SoakError, match=r"fault 0: 'the run stops with .*' went unnoticed"):
        soak(small.bundle, BLOCK, fault_every=1)


def test_the_command(small: Sample) -> None:
    script = [sys.executable, str(ROOT / "board" / "zcu104" / "soak.py"), "--bundle"]
    done = subprocess.run(
        [*script, str(small.path), "--frames", "60", "--seed", "4"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("60 frames and ")
    assert done.stdout.endswith("no buffer left (seed 4)\n")
    missing = subprocess.run([*script, "none"], capture_output=True, text=True, timeout=100)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "soak: bundle 'none' is not a folder. (seed 0)\n"
