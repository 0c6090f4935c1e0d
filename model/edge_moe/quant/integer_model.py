# SPDX-License-Identifier: Apache-2.0
"""An integer network with the interface of the float model, for evaluation and pictures."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edge_moe.nn import ModelOutput, Routing
from edge_moe.quant.network import IntegerNetwork, head_grid, run_network
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.operators import SCORE_FRACTION, upsample_sums
from edge_moe_host.golden.trace import Trace


class _RoutingTrace(Trace):
    """Keeps only the gates' decisions."""

    def __call__(self, name: str, value: np.ndarray) -> np.ndarray:
        return super().__call__(name, value) if ".gate." in name else value


class IntegerModel(nn.Module):
    """Golden's integers, called as :class:`edge_moe.nn.M3ViT` is."""

    def __init__(self, network: IntegerNetwork) -> None:
        super().__init__()
        self.network = network
        self.cfg = network.config
        # tells callers where inputs belong: golden runs on the CPU
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, images: Tensor, tasks: Sequence[str] | None = None) -> ModelOutput:
        """Predict ``tasks`` (default: all of the network) for uint8 RGB images [B, 3, H, W].

        Predictions are float32 [B, C, H, W] in the float model's units; expert indices are the model's,
        even if experts were dropped. Raises EdgeMoEError for wrong images or tasks.
        """
        if images.dtype != torch.uint8:
            raise EdgeMoEError(f"images are {images.dtype}: an integer network takes uint8.")
        pixels = np.ascontiguousarray(images.cpu().permute(0, 2, 3, 1).numpy())
        predictions: dict[str, Tensor] = {}
        routing: dict[str, dict[int, Routing]] = {}
        for task in self.network.tasks if tasks is None else tasks:
            trace = _RoutingTrace()
            raw = run_network(self.network, pixels, task, trace).raw
            predictions[task] = torch.from_numpy(self._prediction(raw, task))
            routing[task] = self._routing(trace)
        return ModelOutput(predictions, torch.zeros(()), routing)

    def _prediction(self, raw: np.ndarray, task: str) -> np.ndarray:
        head = self.network.heads[task]
        height, width, factor = head_grid(self.cfg, len(head.convs))
        sums = upsample_sums(raw, height, width, factor).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(sums * (head.scale / (2 * factor) ** 2), dtype=np.float32)

    def _routing(self, trace: Trace) -> dict[int, Routing]:
        result = {}
        for index, block in enumerate(self.network.blocks):
            if block.experts:
                place = trace.tensors[f"block{index}.gate.expert"]
                score = trace.tensors[f"block{index}.gate.score"] / 2.0**SCORE_FRACTION
                expert = np.array(block.expert_ids, dtype=np.int64)[place]
                result[index] = Routing(torch.from_numpy(expert), torch.from_numpy(score).float())
        return result
