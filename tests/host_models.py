# SPDX-License-Identifier: Apache-2.0
"""A small model in every form that a backend of the host runtime takes, and accelerators that misbehave."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundles import small_accelerator
from edge_moe.compiler.bundle import compile_bundle
from edge_moe.config import Preset, load_preset
from edge_moe.export.path import build_path_model
from edge_moe.nn import build_model
from edge_moe.quant.network import IntegerNetwork
from edge_moe.quant.options import QuantOptions
from edge_moe.quant.quantise import quantise_model
from edge_moe.train.checkpoint import save_checkpoint
from edge_moe_host.config import to_dict
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.result import Raw

PRESET: Preset = load_preset(
    "mini",
    ["model.image_size=[32,64]", "model.embed_dim=32", "model.depth=2", "model.head_channels=16",
     "model.num_experts=4", "train.train_images=8", "train.val_images=3",
     'model.tasks={semseg=7, depth=1, normals=3, edge=1}'],
)  # fmt: skip
CLASSES = [(f"class {index}", (10 * index, 255 - index, 7)) for index in range(7)]


@dataclass(frozen=True)
class Forms:
    """The same model as integer network, bundle, graphs and checkpoint."""

    network: IntegerNetwork
    bundle: Path
    graphs: Path
    checkpoint: Path


def make_forms(folder: Path, seed: int = 0) -> Forms:
    """Quantised from drawn weights, of 4 tasks of all kinds."""
    torch.manual_seed(seed)
    model = build_model(PRESET.model)
    with torch.no_grad():
        for head in model.heads.values():
            head.out.weight.mul_(30)  # else every pixel has the same class
            head.out.bias.zero_()
    model.eval()
    checkpoint = folder / "model.pt"
    save_checkpoint(checkpoint, {"preset": to_dict(PRESET), "data": "scenes", "model": model.state_dict()})
    network, _ = quantise_model(
        model, PRESET, "scenes", QuantOptions(images=4, rounding="nearest"), progress=False
    )
    paths = []
    for task in network.tasks:
        paths.append(folder / "graphs" / task / "path.onnx")
        paths[-1].parent.mkdir(parents=True)
        classes = CLASSES if task == "semseg" else ()
        paths[-1].write_bytes(build_path_model(network.path(task), task, classes).SerializeToString())
    compile_bundle(paths, small_accelerator(), folder / "bundle")
    return Forms(network, folder / "bundle", folder / "graphs", checkpoint)


class Scripted(Accelerator):
    """A device of several slots whose frames fail as told. A frame's raw values are its first pixel."""

    slots = 2

    def _open(self) -> None:
        self.log: list[str] = []
        self.fail: dict[int, BaseException] = {}  # number of the frame -> what collecting it raises
        self.refuse: dict[int, BaseException] = {}  # ... what submitting it raises
        self.frames = 0
        self.waiting: list[tuple[int, str, int]] = []

    def _run_raw(self, task: str, image: np.ndarray) -> Raw:
        raise AssertionError("it has submission and collection")

    def _submit(self, task: str, image: np.ndarray) -> Any:
        number = self.frames
        self.frames += 1
        self.log.append(f"submit {number}")
        if number in self.refuse:
            raise self.refuse[number]
        self.waiting.append((number, task, int(image[0, 0, 0])))
        assert len(self.waiting) <= self.slots
        return number

    def _collect(self, token: Any) -> Raw:
        number, task, pixel = self.waiting[0]
        assert number == token, "frames are collected in the order of submission"
        self.log.append(f"collect {number}")
        if number in self.fail:
            raise self.fail[number]
        self.waiting.pop(0)
        out = self.bundle.tasks[task].entry.output
        return Raw(np.full((out.height * out.width, out.channels), pixel, np.int16), 10, 0.001)

    def _reset(self) -> None:
        self.log.append("reset")
        self.waiting.clear()

    def _close(self) -> None:
        self.log.append("close")
