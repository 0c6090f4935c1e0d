# SPDX-License-Identifier: Apache-2.0
"""Backend ``torch``: the float model from which a bundle was made.

The host runtime finds it as an entry point of the group ``edge_moe_host.backends``.
"""

import time
from pathlib import Path
from typing import cast

import numpy as np

from edge_moe.packaged import find_checkpoint
from edge_moe_host.errors import BackendError, DeviceError
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.result import Raw


class TorchAccelerator(Accelerator):
    """The float model from which the bundle was made. ``checkpoint``: its file, a run's folder, or
    ``pretrained``; ``device``: auto, cpu or cuda."""

    def _open(self, checkpoint: str | Path | None = None, device: str = "auto") -> None:
        if checkpoint is None:
            raise BackendError("backend 'torch' needs checkpoint=: a file, a run's folder, or 'pretrained'.")
        path = find_checkpoint(checkpoint)
        from edge_moe.checkpoint import load_model
        from edge_moe.distributed import choose_device

        model, preset, _ = load_model(path)
        self._device = choose_device(device)
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
