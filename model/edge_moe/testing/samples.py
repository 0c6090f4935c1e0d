# SPDX-License-Identifier: Apache-2.0
"""Bundles that tests/board/make_bundles.py made, with pictures and golden's results."""

import itertools

import numpy as np

from edge_moe.testing.checkout import ROOT
from edge_moe_host.contract.bundle import Bundle, load_bundle
from edge_moe_host.runtime.accelerator import Accelerator

BUNDLES = ROOT / "build" / "board_bundles"
TIMEOUT = 20.0  # seconds for a correct frame
SHORT = 0.3  # for one that never ends


class Sample:
    """A bundle, pictures, and golden's results for them."""

    def __init__(self, name: str) -> None:
        self.path = BUNDLES / name / "bundle"
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"{self.path} is missing: run .venv/bin/python tests/board/make_bundles.py"
            )
        self.bundle: Bundle = load_bundle(self.path)
        with np.load(BUNDLES / name / "golden.npz") as golden:
            self.images = golden["images"]
            self.right = {task: golden[task].reshape(len(self.images), -1) for task in self.bundle.tasks}
        self.tasks = list(self.bundle.tasks)

    def frame(self, accelerator: Accelerator, task: str, index: int = 0) -> int:
        """Run a frame and compare it with golden; return the number of values."""
        return self.compare(accelerator.run(self.images[index], task).raw, task, index)

    def compare(self, raw: np.ndarray, task: str, index: int) -> int:
        """Assert that a result equals golden's; return the number of values."""
        assert raw.dtype == np.int16
        np.testing.assert_array_equal(raw.reshape(-1), self.right[task][index])
        return raw.size

    def all_frames(self, accelerator: Accelerator) -> int:
        """Check every task of every picture; return the number of equal values."""
        frames = itertools.product(range(len(self.images)), self.tasks)
        return sum(self.frame(accelerator, task, index) for index, task in frames)

    @property
    def values(self) -> int:
        """The number of values in all results."""
        return sum(right.size for right in self.right.values())
