# SPDX-License-Identifier: Apache-2.0
"""A layer's inputs as known from calibration, and the bias correction that follows from them.

Rounded weights and clipped inputs shift the mean of a layer's sums. The shift is computed on the
calibration rows and added to the int32 bias (Nagel et al., Data-Free Quantization Through Weight
Equalization and Bias Correction, ICCV 2019, section 4.2, with measured means).
"""

from dataclasses import dataclass

import numpy as np
import torch

from edge_moe.nn import M3ViT
from edge_moe.quant.calibrate import Calibration, ffn_hidden, thinned
from edge_moe.quant.scales import Scales
from edge_moe_host.golden.operators import FFN, linear_gelu

MEAN_ROWS = 2048  # enough for the mean in layers that all tokens pass


@dataclass(frozen=True)
class LayerInputs:
    """Calibration rows of one layer, in units of its input integers, with their zero point subtracted.

    ``ideal`` float [n, in] comes from the float activations, ``actual`` int [n, in] from the integer
    network; ``weight`` [n] is the share of each row in the network's result.
    """

    ideal: np.ndarray
    actual: np.ndarray
    weight: np.ndarray

    def mean_shift(self, weight: np.ndarray, rounded: np.ndarray) -> np.ndarray:
        """[out]: mean of ideal @ weight.T - actual @ rounded.T, both weights [out, in] in real units."""
        share = self.weight / self.weight.sum()
        return np.asarray(weight @ (share @ self.ideal) - rounded @ (share @ self.actual))

    def moments(self, centred: bool) -> np.ndarray:
        """[in, in] second moments of ``actual``, about the mean if ``centred``.

        A row counts with the square of its weight, like its error in the result.
        """
        share = self.weight**2 / np.sum(self.weight**2)
        rows = self.actual.astype(np.float64)
        if centred:
            rows = rows - share @ rows
        return np.asarray((rows * share[:, None]).T @ rows)


class InputSource:
    """Builds :class:`LayerInputs` for every layer of a network from the rows that calibration kept."""

    def __init__(self, model: M3ViT, scales: Scales, calibration: Calibration) -> None:
        self.model, self.scales, self.calibration = model, scales, calibration

    def patches(self) -> LayerInputs:
        """Pixels of patches in the order row, column, colour."""
        p = self.model.cfg.patch_size
        pixels = self.calibration.images
        B, H, W, _ = pixels.shape
        patches = pixels.reshape(B, H // p, p, W // p, p, 3).transpose(0, 1, 3, 2, 4, 5)
        rows = patches.reshape(-1, p * p * 3)
        # the layer's zero point is -128: with it subtracted, the inputs are the pixels themselves
        return _inputs(thinned(rows, MEAN_ROWS).astype(np.float64), 0, 255)

    def norm(self, name: str) -> LayerInputs:
        """Results of LayerNorm ``name``."""
        return self._normed(name, thinned(self.calibration.values[name].rows, MEAN_ROWS))

    def _normed(self, name: str, rows: np.ndarray, weight: np.ndarray | None = None) -> LayerInputs:
        offset = self.scales.get(f"{name}.offset", 0.0)
        ideal = (rows.astype(np.float64) - offset) / self.scales[name]
        return _inputs(ideal, -128, weight=weight)

    def routed(self, block: int, expert: int) -> LayerInputs | None:
        """The normalised tokens of one expert, weighted by their scores; None if all of these are 0."""
        rows, scores = self.calibration.routed(block, expert)
        if not scores.any():
            return None
        return self._normed(f"block{block}.norm2", rows, scores.astype(np.float64))

    def attention(self, name: str) -> LayerInputs:
        """Results of the attention of block ``name``."""
        rows = thinned(self.calibration.values[f"{name}.attention"].rows, MEAN_ROWS)
        ideal = rows / self.scales[f"{name}.attention"]
        return _inputs(ideal, -127)

    def hidden(self, name: str, inputs: LayerInputs, ffn: FFN) -> LayerInputs:
        """Values after GELU: ``inputs`` are those of fc1, ``ffn`` has its final fc1."""
        block = name.partition(".")[0]
        rows = inputs.ideal * self.scales[f"{block}.norm2"] + self.scales[f"{block}.norm2.offset"]
        weights = self.model.block(int(block.removeprefix("block"))).ffns()[name]
        with torch.inference_mode():
            hidden = ffn_hidden(weights, torch.from_numpy(rows).float())
        ideal = hidden.double().numpy() / float(self.scales[f"{name}.hidden"])
        actual = linear_gelu(inputs.actual, ffn).astype(np.int64) - ffn.zero_point
        return LayerInputs(ideal, actual, inputs.weight)

    def window(self, task: str, stage: int) -> LayerInputs:
        """3x3 windows that convolution ``stage`` of a head reads, zero padding included."""
        name = f"head.{task}"
        rows = self.calibration.values[f"{name}.window{stage}"].rows.astype(np.float64)
        if stage:
            ideal = rows / self.scales[f"{name}.conv{stage - 1}"]
            return _inputs(ideal, 0, 255)
        return _inputs(rows / np.tile(self.scales[f"{name}.norm"], 9), -128)

    def last(self, task: str, stage: int) -> LayerInputs:
        """Results of the last convolution of a head."""
        name = f"head.{task}.conv{stage}"
        rows = thinned(self.calibration.values[name].rows, MEAN_ROWS).astype(np.float64)
        return _inputs(rows / self.scales[name], 0, 255)


def _inputs(ideal: np.ndarray, low: int, high: int = 127, weight: np.ndarray | None = None) -> LayerInputs:
    """The integers are the nearest in [low, high]; without ``weight`` all rows count alike."""
    actual = np.clip(np.floor(ideal + 0.5), low, high).astype(np.int64)
    return LayerInputs(ideal, actual, np.ones(len(ideal)) if weight is None else weight)
