# SPDX-License-Identifier: Apache-2.0
"""Backends that need more than a board has: ``golden`` in NumPy integers, ``torch`` in floats.

The host runtime finds them as entry points of the group ``edge_moe_host.backends``.
"""

import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from edge_moe.errors import EdgeMoEError
from edge_moe_host.accelerator import Accelerator
from edge_moe_host.errors import BackendError, DeviceError
from edge_moe_host.result import Raw

if TYPE_CHECKING:
    pass

PRETRAINED = "pretrained"


def pretrained_checkpoint() -> Path:
    """The packaged weights of the tiny model."""
    return Path(str(resources.files("edge_moe") / "pretrained" / "m3vit_tiny_cityscapes.pt"))


class GoldenAccelerator(Accelerator):
    """The bundle's program and weights, executed with golden's arithmetic: the reference. No options."""

    def _open(self) -> None:
        from edge_moe.compiler.interpreter import run_program

        self._execute = run_program

    def _run_raw(self, task: str, image: np.ndarray) -> Raw:
        start = time.perf_counter()
        values = self._execute(self.bundle, task, image)
        return Raw(values, None, time.perf_counter() - start)


class TorchAccelerator(Accelerator):
    """The float model that the bundle was made of. ``checkpoint``: its file, or ``pretrained``; ``device``:
    auto, cpu or cuda."""

    def _open(self, checkpoint: str | Path | None = None, device: str = "auto") -> None:
        if checkpoint is None:
            raise BackendError("backend 'torch' needs checkpoint=: a file, or 'pretrained'.")
        path = pretrained_checkpoint() if checkpoint == PRETRAINED else Path(checkpoint)
        try:
            from edge_moe.train.checkpoint import load_model
            from edge_moe.train.distributed import start

            model, preset, _ = load_model(path)
            self._device = start(device)
        except EdgeMoEError as error:
            raise BackendError(str(error)) from None
        if preset.model.hash() != self.bundle.manifest.model.hash:
            raise BackendError(f"'{path}' is of another model than bundle '{self.bundle.path}'.")
        self._model = model.to(self._device)

    def _run_raw(self, task: str, image: np.ndarray) -> Raw:
        import torch

        from edge_moe.nn.heads import TaskHead

        start = time.perf_counter()
        grids: list[torch.Tensor] = []
        head = cast(TaskHead, self._model.heads[task])
        keep = head.out.register_forward_hook(lambda _module, _inputs, grid: grids.append(grid))
        try:
            pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
            with torch.inference_mode():
                self._model(pixels.to(self._device), [task])
                values = (head.scale * grids[0][0].float()).flatten(1).T.contiguous().cpu().numpy()
        except RuntimeError as error:
            raise DeviceError(f"torch cannot run task '{task}': {error}.") from None
        finally:
            keep.remove()
        return Raw(values, None, time.perf_counter() - start)
