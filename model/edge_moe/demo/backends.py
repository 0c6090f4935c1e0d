# SPDX-License-Identifier: Apache-2.0
"""The same pictures on every backend of the host runtime, and the comparison of their raw results."""

import logging
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edge_moe.demo.folder import Folder
from edge_moe.places import BOARD as BOARD_FOLDER
from edge_moe_host.backends.csim_library import FOLDER_VARIABLE, open_csim
from edge_moe_host.contract.bundle import load_bundle
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.runtime import record as recording
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.record import Record, load_images, load_record, record, save_record

REFERENCE = "golden"
BOARD = "pynq"  # runs in an environment of its own
NAMES = {"golden": "golden", "onnx": "ONNX graph", "csim": "C simulation", "pynq": "simulated board"}
TITLES = {
    "golden": "the bundle's program in NumPy integers, the reference",
    "onnx": "path.onnx in stock onnxruntime",
    "csim": "the accelerator's C++, compiled for this computer",
    "pynq": "the real PYNQ driver on a board in software, which runs the C simulation",
}
SIMULATED_BOARD = BOARD_FOLDER / "simulated.py"
_LOG = logging.getLogger(__name__)

Values = dict[str, Any]


def run_backend(folder: Folder, backend: str) -> Values:
    """Run the demo's pictures on a backend of this environment."""
    options = {"graphs": folder.graphs} if backend == "onnx" else {}
    images = load_images(folder.images)
    with (
        Accelerator.open(backend, folder.bundle, **options) as accelerator,
        tqdm(total=len(images) * len(accelerator.tasks), desc=backend, unit="img", disable=None) as bar,
    ):
        save_record(record(accelerator, images, lambda _: bar.update()), folder.record(backend))
    return device_times(load_record(folder.record(backend)))


def has_pynq(python: Path) -> bool:
    """Whether this Python can run the simulated board."""
    command = [str(python), "-c", "import pynq, edge_moe_host"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def run_board(folder: Folder, python: Path) -> Values:
    """Run the demo's pictures through the PYNQ driver on the simulated board, in ``python``'s environment."""
    out = folder.record(BOARD)
    arguments = [BOARD, *map(str, (folder.bundle, folder.images, out))]
    command = [str(python), "-m", recording.__name__, *arguments]
    csim = open_csim(load_bundle(folder.bundle)).library
    environment = os.environ | {"EDGE_MOE_DEVICE": str(SIMULATED_BOARD), FOLDER_VARIABLE: str(csim.parent)}
    total = sum(map(len, load_record(folder.record(REFERENCE)).raw.values()))
    try:
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process,
            tqdm(total=total, desc="simulated board", unit="img", disable=None) as bar,
        ):
            assert process.stdout is not None
            for _ in process.stdout:
                bar.update()
            process.wait()
            errors.seek(0)
            complaint = errors.read().strip().splitlines()
    except OSError as error:
        raise EdgeMoEError(f"cannot run '{python}' for the simulated board: {error.strerror}.") from None
    if process.returncode:
        reason = (
            complaint[-1].removeprefix("error: ").rstrip(".") if complaint else f"status {process.returncode}"
        )
        raise EdgeMoEError(f"the simulated board failed: {reason}.")
    return device_times(load_record(out))


def device_times(done: Record) -> Values:
    """The device's median milliseconds and its cycles for each task; None if it counts no cycles."""
    return {
        task: {
            "milliseconds": round(1e3 * float(np.median(done.seconds[task])), 3),
            "cycles": int(np.median(cycles)) if (cycles := done.cycles[task]).min() >= 0 else None,
        }
        for task in done.raw
    }


def compare(records: Mapping[str, Record], names: list[str]) -> Values:
    """backend -> task -> number of values, all of which equal the reference's.

    ``names``: the pictures' names. Raises EdgeMoEError for the first value that differs.
    """
    reference = records[REFERENCE]
    counts: Values = {}
    for backend, done in records.items():
        if backend != REFERENCE:
            if set(done.raw) != set(reference.raw):
                raise EdgeMoEError(f"backend '{backend}' ran {', '.join(done.raw)}: not the same tasks.")
            counts[backend] = {
                task: _equal(backend, task, done.raw[task], wanted, names)
                for task, wanted in reference.raw.items()
            }
    return counts


def _equal(backend: str, task: str, actual: np.ndarray, wanted: np.ndarray, names: list[str]) -> int:
    if actual.shape != wanted.shape or actual.dtype != wanted.dtype:
        raise EdgeMoEError(
            f"backend '{backend}' gives task '{task}' as {actual.dtype} {list(actual.shape)} where "
            f"{REFERENCE} gives {wanted.dtype} {list(wanted.shape)}."
        )
    wrong = np.argwhere(actual != wanted)
    if len(wrong):
        picture, pixel, channel = (int(axis) for axis in wrong[0])
        raise EdgeMoEError(
            f"backend '{backend}' differs from {REFERENCE} in {len(wrong):,} of {wanted.size:,} values of "
            f"task '{task}', first at value {pixel}, channel {channel} of picture '{names[picture]}': "
            f"{actual[picture, pixel, channel]} where {wanted[picture, pixel, channel]} is right."
        )
    return int(wanted.size)
