# SPDX-License-Identifier: Apache-2.0
"""The project's onnxruntime sessions: CPU, quiet, with errors in one sentence."""

from collections.abc import Sequence

import numpy as np
import onnxruntime

from edge_moe_host.errors import EdgeMoEError

QUIET = 3  # onnxruntime's log level: errors only


class Session:
    """A model in stock onnxruntime on the CPU. ``name``: its name in messages."""

    def __init__(self, model: bytes, name: str, threads: int = 1) -> None:
        self.name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = QUIET
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no class of their own
            raise EdgeMoEError(f"onnxruntime cannot load {name}: {_reason(error)}.") from None
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, image: np.ndarray, outputs: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Tensors by name, all outputs by default, for uint8 ``image`` [batch, H, W, 3]."""
        names = list(outputs) or self.outputs
        try:
            values = self._session.run(names, {"image": image})
        except Exception as error:
            raise EdgeMoEError(f"onnxruntime cannot run {self.name}: {_reason(error)}.") from None
        return dict(zip(names, values, strict=True))


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
