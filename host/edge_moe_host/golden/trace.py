# SPDX-License-Identifier: Apache-2.0
"""Named intermediate tensors of a run, for comparing executors."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Trace:
    """Intermediate tensors by name, in the order of their computation."""

    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, name: str, value: np.ndarray) -> np.ndarray:
        self.tensors[name] = value
        return value
