# SPDX-License-Identifier: Apache-2.0
"""Batches for training, the same in every run: the order follows from (seed, epoch), augmentation from
(seed, epoch, index). Nothing depends on the number of workers, and a run can start within an epoch.
"""

import signal
from collections.abc import Iterator, Sequence
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edge_moe.config import TrainConfig
from edge_moe.data.base import TaskDataset
from edge_moe.data.sample import collate, to_tensors
from edge_moe.data.transforms import Augmentation
from edge_moe_host.errors import EdgeMoEError

# First word of a seed: numpy pads seeds with zeros, so (s, e) alone would equal (s, e, 0).
_ORDER, _AUGMENTATION = 1, 2


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Permutation of ``count`` sample indices, int64, a function of (seed, epoch) alone."""
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(count)


def steps_per_epoch(count: int, batch_size: int, world: int = 1) -> int:
    """Number of full batches in ``count`` samples; ``batch_size`` counts all ranks together."""
    if batch_size % world:
        raise EdgeMoEError(f"train.batch_size = {batch_size} must be a multiple of the {world} processes.")
    if count < batch_size:
        raise EdgeMoEError(
            f"the training split has {count} samples, fewer than train.batch_size = {batch_size}."
        )
    return count // batch_size


class _AugmentedEpoch(Dataset[dict[str, Tensor] | EdgeMoEError]):
    """The augmented tensors of one epoch."""

    def __init__(self, dataset: TaskDataset, augmentation: Augmentation, seed: int, epoch: int) -> None:
        self.dataset, self.augmentation = dataset, augmentation
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor] | EdgeMoEError:
        rng = np.random.default_rng((_AUGMENTATION, self.seed, self.epoch, index))
        try:
            return to_tensors(self.augmentation(self.dataset[index], rng))
        except EdgeMoEError as error:
            return error  # raised in the main process: a worker's exception would be wrapped in its traceback


def epoch_batches(
    dataset: TaskDataset,
    train: TrainConfig,
    augmentation: Augmentation,
    epoch: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """This rank's batches of one epoch from step ``start_step`` on.

    Each batch maps ``"image"`` (uint8 B x 3 x H x W) and every task to stacked tensors as in
    :func:`edge_moe.data.sample.to_tensors`, with B = ``train.batch_size / world``. Samples that do
    not fill a batch are left out; each epoch leaves out different ones.
    """
    steps = steps_per_epoch(len(dataset), train.batch_size, world)
    order = epoch_order(train.seed, epoch, len(dataset))
    share = train.batch_size // world
    starts = [step * train.batch_size + rank * share for step in range(start_step, steps)]
    loader = DataLoader(
        _AugmentedEpoch(dataset, augmentation, train.seed, epoch),
        batch_sampler=[order[start : start + share].tolist() for start in starts],
        num_workers=train.workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(train.seed),  # leaves the global generator alone
    )
    return _raising(iter(loader))


def _collate(samples: Sequence[dict[str, Tensor] | EdgeMoEError]) -> dict[str, Tensor] | EdgeMoEError:
    failed = [sample for sample in samples if isinstance(sample, EdgeMoEError)]
    try:
        return failed[0] if failed else collate(cast(list[dict[str, Tensor]], samples))
    except EdgeMoEError as error:
        return error


def _raising(batches: Iterator[dict[str, Tensor] | EdgeMoEError]) -> Iterator[dict[str, Tensor]]:
    for batch in batches:
        if isinstance(batch, EdgeMoEError):
            raise batch
        yield batch


def _start_worker(_: int) -> None:
    """Workers leave Ctrl-C to the main process, which saves first, and use one thread each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
