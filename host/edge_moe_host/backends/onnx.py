# SPDX-License-Identifier: Apache-2.0
"""The backend ``onnx``: each task's ``path.onnx`` in stock onnxruntime, on a CPU or a GPU.

The graphs must be those that the bundle was compiled from: its manifest has their hashes.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe_host.contract import manifest
from edge_moe_host.errors import BackendError, DeviceError, listed, reason
from edge_moe_host.files import read_bytes
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.result import Raw

PATH_FILE = "path.onnx"
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_MOST_THREADS = 1024  # each takes memory
_QUIET = 4  # onnxruntime's log level: fatal errors only


class OnnxAccelerator(Accelerator):
    """``graphs``: the folder that ``edge-moe export`` wrote, with TASK/path.onnx. ``provider``: cpu, cuda or
    tensorrt; the CPU runs what a GPU's provider cannot. ``threads``: CPU threads for one operator."""

    def _open(self, graphs: str | Path | None = None, provider: str = "cpu", threads: int = 1) -> None:
        if not 1 <= threads <= _MOST_THREADS:
            raise BackendError(
                f"option 'threads' of backend 'onnx' is {threads}: it must be between 1 and {_MOST_THREADS}."
            )
        self._sessions: dict[str, Session] = {}
        if graphs is None:
            raise BackendError(
                "backend 'onnx' needs the graphs that the bundle was compiled from: give graphs=, the folder "
                "that edge-moe export wrote."
            )
        providers = available_providers()
        if provider not in providers:
            raise BackendError(
                f"onnxruntime has no provider '{provider}' here: it has {listed(providers, provider)}."
            )
        for task in self.bundle.tasks.values():
            path = Path(graphs) / task.name / PATH_FILE
            content = read_bytes(path, BackendError)
            if manifest.file_hash(content) != task.entry.graph:
                raise BackendError(
                    f"'{path}' is not the graph that task '{task.name}' of bundle '{self.bundle.path}' was "
                    "compiled from: compile it again, or give the folder that it was exported to."
                )
            self._sessions[task.name] = Session(content, f"'{path}'", threads, provider)

    def _run_raw(self, task: str, image: np.ndarray) -> Raw:
        start = time.perf_counter()
        raw = self._sessions[task].run(image[None], ["head.out"])["head.out"]
        return Raw(raw[0], None, time.perf_counter() - start)

    def _close(self) -> None:
        self._sessions = {}


def available_providers() -> tuple[str, ...]:
    """Which of cpu, cuda and tensorrt the installed onnxruntime has."""
    present = _onnxruntime().get_available_providers()
    return tuple(name for name, provider in PROVIDERS.items() if provider in present)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise BackendError(
            "backend 'onnx' needs onnxruntime: install onnxruntime or onnxruntime-gpu."
        ) from None
    return onnxruntime


class Session:
    """A model in stock onnxruntime, quiet, with errors in one sentence, in which ``name`` is the model."""

    def __init__(self, model: bytes, name: str, threads: int = 1, provider: str = "cpu") -> None:
        self.name = name
        onnxruntime = _onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _QUIET
        wanted = list(dict.fromkeys([PROVIDERS[provider], PROVIDERS["cpu"]]))
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=wanted)
        except Exception as error:  # onnxruntime's exceptions share no class of their own
            raise BackendError(f"onnxruntime cannot load {name}: {reason(error)}.") from None
        if PROVIDERS[provider] not in self._session.get_providers():  # it falls back without an error
            raise BackendError(
                f"onnxruntime could not start its provider '{provider}': it would run on the CPU."
            )
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, image: np.ndarray, outputs: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Tensors by name, all outputs by default, for uint8 ``image`` [batch, H, W, 3]."""
        names = list(outputs) or self.outputs
        try:
            values = self._session.run(names, {"image": image})
        except Exception as error:
            raise DeviceError(f"onnxruntime cannot run {self.name}: {reason(error)}.") from None
        return dict(zip(names, values, strict=True))
