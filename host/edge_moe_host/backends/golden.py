# SPDX-License-Identifier: Apache-2.0
"""Backend ``golden``: a bundle's program and weights, executed with golden's arithmetic."""

import time

import numpy as np

from edge_moe_host.golden.interpreter import run_program
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.result import Raw


class GoldenAccelerator(Accelerator):
    """The reference. No options."""

    def _open(self) -> None:
        pass

    def _run_raw(self, task: str, image: np.ndarray) -> Raw:
        start = time.perf_counter()
        values = run_program(self.bundle, task, image)
        return Raw(values, None, time.perf_counter() - start)
