# SPDX-License-Identifier: Apache-2.0
"""A small model, a data set that it learns in seconds, and comparisons of runs."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_moe.checkpoint import load_checkpoint
from edge_moe.config import Preset, load_preset
from edge_moe.data.base import TaskDataset
from edge_moe.data.sample import Sample
from edge_moe.train.engine import LAST

SIZE = (32, 64)
TINY = (
    "model.image_size=[32,64]",
    "model.embed_dim=16",
    "model.depth=2",
    "model.head_channels=8",
    "model.num_experts=4",
    "train.batch_size=4",
    "train.train_images=12",
    "train.val_images=2",
    "train.warmup_steps=2",
    "train.epochs=3",
)


def tiny(*overrides: str) -> Preset:
    """A model of 9 tokens; an epoch has 3 steps."""
    return load_preset("mini", [*TINY, *overrides])


class Toy(TaskDataset):
    """Halves of one colour each, which decides class and depth."""

    name = "toy"

    def __init__(self, split: str, count: int) -> None:
        self.split = "train" if split == "train" else "val"
        self.tasks = {"semseg": 7, "depth": 1}
        self.class_names, self.palette = {}, {}
        self.count = count

    def __len__(self) -> int:
        return self.count

    def image_id(self, index: int) -> str:
        return str(index)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((index, self.split == "val"))
        label = np.repeat(rng.integers(0, 7, 2).astype(np.uint8), SIZE[1] // 2)
        semseg = np.broadcast_to(label, SIZE).copy()
        image = np.stack([30 * semseg] * 3, axis=2).astype(np.uint8)
        image += rng.integers(0, 20, image.shape, dtype=np.uint8)
        return {"image": image, "semseg": semseg, "depth": 1.0 + semseg.astype(np.float32)}


def open_toy(
    spec: str, split: str, tasks: Mapping[str, int], size: tuple[int, int], train: int, val: int
) -> Toy:
    """In place of :func:`edge_moe.data.open_dataset`."""
    return Toy(split, train if split == "train" else val)


def assert_same_state(a: Any, b: Any, where: str = "") -> int:
    """Bitwise equality of nested states; returns the number of tensors compared."""
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        assert torch.equal(a, b), where
        return 1
    if isinstance(a, Mapping):
        assert a.keys() == b.keys(), where
        return sum(assert_same_state(a[key], b[key], f"{where}.{key}") for key in a)
    if isinstance(a, list | tuple):
        assert len(a) == len(b), where
        return sum(
            assert_same_state(x, y, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))
        )
    assert a == b or (a != a and b != b), where
    return 0


def assert_same_checkpoint(a: Path, b: Path) -> None:
    """Bitwise equality of everything in two checkpoints."""
    first, second = (dataclasses.asdict(load_checkpoint(path)) for path in (a, b))
    compared = assert_same_state(first, second)
    assert compared >= len(first["model"]) > 60
    if a.name == LAST:
        assert compared > 1.5 * len(first["model"])  # the optimizer's moments too


def lines(out: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind in a run's log."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]
