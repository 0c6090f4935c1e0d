# SPDX-License-Identifier: Apache-2.0
"""The backend ``csim``: the accelerator's C++ as a library of this machine (``make -C hls csim``)."""

import time
from pathlib import Path

import numpy as np

from edge_moe_host.backends.csim_library import open_csim, program_bytes
from edge_moe_host.contract.registers import Error, Status, describe
from edge_moe_host.errors import DeviceStoppedError
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.result import Raw


class CsimAccelerator(Accelerator):
    """``library``: by default the one that ``make -C hls csim`` builds for the bundle's accelerator.

    Cycles are those of the loops as written, without waiting for memory; seconds are this machine's.
    """

    def _open(self, library: str | Path | None = None) -> None:
        self._csim = open_csim(self.bundle, Path(library) if library is not None else None)
        self._programs = {name: program_bytes(task) for name, task in self.bundle.tasks.items()}
        self._outputs = {
            name: np.zeros((out.height * out.width, out.row_bytes), np.uint8)
            for name, out in ((task.name, task.entry.output) for task in self.bundle.tasks.values())
        }

    def _run_raw(self, task: str, image: np.ndarray) -> Raw:
        buffer = self._outputs[task]
        start = time.perf_counter()
        registers = self._csim.execute(self._programs[task], self.bundle.weights, image, buffer)
        seconds = time.perf_counter() - start
        if registers.status != Status.DONE or registers.error != Error.NONE:
            raise DeviceStoppedError(
                f"task '{task}' of '{self.bundle.path}' {describe(registers.error, registers.position)}.",
                registers.status, registers.error, registers.position,
            )  # fmt: skip
        channels = self.bundle.tasks[task].entry.output.channels
        return Raw(buffer.view("<i2")[:, :channels].astype(np.int16), registers.cycles, seconds)
