# SPDX-License-Identifier: Apache-2.0
"""The backend ``csim``: the accelerator's C++ as a library of this machine."""

import time
from pathlib import Path

import numpy as np

from edge_moe_host.backends.csim_library import open_csim
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.result import Raw


class CsimAccelerator(Accelerator):
    """``library``: by default the one of the bundle's accelerator, compiled at its first use.

    Cycles are those of the loops as written, without waiting for memory; seconds are this machine's.
    """

    def _open(self, library: str | Path | None = None) -> None:
        self._csim = open_csim(self.bundle, Path(library) if library is not None else None)

    def _run_raw(self, task: str, image: np.ndarray) -> Raw:
        start = time.perf_counter()
        run = self._csim.run(self.bundle, task, image)
        return Raw(run.raw, run.cycles, time.perf_counter() - start)
