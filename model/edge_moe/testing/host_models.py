# SPDX-License-Identifier: Apache-2.0
"""A small model in every form that the host runtime's backends take."""

from dataclasses import dataclass
from pathlib import Path

import torch

from edge_moe.checkpoint import save_checkpoint
from edge_moe.compiler.bundle import compile_bundle
from edge_moe.config import Preset, load_preset
from edge_moe.export.path import build_path_model
from edge_moe.nn import build_model
from edge_moe.quant.network import IntegerNetwork
from edge_moe.quant.options import QuantOptions
from edge_moe.quant.quantise import quantise_model
from edge_moe.testing.bundles import small_accelerator
from edge_moe_host.config import to_dict

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
    """Quantised from random weights, with 4 tasks of all kinds."""
    torch.manual_seed(seed)
    model = build_model(PRESET.model)
    with torch.no_grad():
        for head in model.heads.values():
            head.out.weight.mul_(30)  # type: ignore[operator, union-attr] # else every pixel has the same class
            head.out.bias.zero_()  # type: ignore[operator, union-attr]
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
