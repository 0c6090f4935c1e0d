# SPDX-License-Identifier: Apache-2.0
"""Named intermediate tensors of a run, by which executors are compared."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Trace:
    """Intermediate tensors by name, in the order in which they were made."""

    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, name: str, value: np.ndarray) -> np.ndarray:
        self.tensors[name] = value
        return value
