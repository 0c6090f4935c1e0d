# SPDX-License-Identifier: Apache-2.0
"""Published accelerators of M3ViT, and this project's estimate of its packaged model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe.accelerator import load_accelerator
from edge_moe.config import ModelConfig
from edge_moe.demo.flow import ACCELERATOR, DATA
from edge_moe.estimate.cycles import Estimate, estimate_images
from edge_moe.estimate.inventory import inventory
from edge_moe.export.source import validation_images
from edge_moe.packaged import packaged_model
from edge_moe_host.config import from_dict
from edge_moe_host.contract.bundle import Bundle

HEAD = "head."  # names of a head's tensors begin so

Values = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A row of the comparison; None: the source does not say. ``kind``: published or estimated."""

    system: str
    source: str
    device: str
    precision: str | None
    tokens: int | None
    clock_mhz: int | None
    milliseconds: float
    watts: float | None = None
    dsp: int | None = None
    scope: str = "encoder"
    kind: str = "published"

    @property
    def joules(self) -> float | None:
        """Energy of a frame."""
        return None if self.watts is None else self.watts * self.milliseconds / 1000


_IN_EDGE_MOE = "in the Edge-MoE paper"
PUBLISHED = (  # rows of docs/comparison.toml, for those that run experts
    Published("Edge-MoE accelerator", "ICCAD 2023", "ZCU102", "W16A32", 197, 300, 34.64, 14.54),
    Published("UbiMoE", "ISCAS 2025", "ZCU102", "W16A32", 197, 300, 25.76, 11.50, 1850),
    Published("CoQMoE", "its paper, 2025", "ZCU102", "W8A8, attention 4", 197, 300, 6.47, 9.83, 1754),
    Published("Load-aware MoE accelerator", "its abstract, 2026", "edge FPGA", None, None, None, 16.33),
    Published("Xeon 6226R", _IN_EDGE_MOE, "CPU", "float32", 197, None, 169.72, 14.53),
    Published("RTX A6000", _IN_EDGE_MOE, "GPU", "float32", 197, None, 13.73, 82.24),
)


def compare_published(pictures: int, checkpoint: Path | None = None) -> Values:
    """This project's estimate of its packaged model: the slowest task and the slowest of ``pictures`` scenes.

    ``checkpoint``: use this model instead of the packaged one.
    """
    config = load_accelerator(ACCELERATOR)
    with packaged_model(checkpoint) as packaged:
        bundle = packaged.bundle
        model: ModelConfig = from_dict(ModelConfig, bundle.manifest.model.config)
        images = validation_images(model, DATA, pictures)[1]
        found = [_slowest(bundle, task, images) for task in bundle.tasks]
    estimate, encoder = max(found, key=lambda pair: pair[0].cycles)
    per_ms = 1000 * config.clock_mhz
    dsp = inventory(config).totals()["DSP"]
    return {
        "task": estimate.task,
        "tokens": model.num_tokens,
        "encoder_ms": encoder / per_ms,
        "frame_ms": estimate.cycles / per_ms,
        "dsp": dsp,
        "clock_mhz": config.clock_mhz,
        "pictures": len(images),
    }


def _slowest(bundle: Bundle, task: str, images: np.ndarray) -> tuple[Estimate, float]:
    """A task's slowest picture, and the cycles until its head begins."""
    program = bundle.task(task)
    head = min(t.instruction for t in program.entry.tensors if t.name.startswith(HEAD))
    estimate = max(estimate_images(bundle, task, images), key=lambda found: found.cycles)
    return estimate, estimate.timings[head].start


def own_rows(values: Values) -> tuple[Published, ...]:
    """This project in the comparison, from what :func:`compare_published` found."""
    parts = (("encoder", values["encoder_ms"]), ("encoder and head", values["frame_ms"]))
    return tuple(
        Published(
            "this project",
            "cycle model of this report",
            "ZCU104",
            "W8A8",
            values["tokens"],
            values["clock_mhz"],
            ms,
            dsp=values["dsp"],
            scope=scope,
            kind="estimated",
        )
        for scope, ms in parts
    )
