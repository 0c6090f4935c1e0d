# SPDX-License-Identifier: Apache-2.0
"""Data sets: the embedded ``scenes`` renderer and the real data sets, opened by a specification."""

from collections.abc import Mapping
from pathlib import Path

from edge_moe.cache import cache_folder
from edge_moe.data.base import TaskDataset, check_split
from edge_moe_host.errors import EdgeMoEError

__all__ = ["TaskDataset", "open_dataset"]

SPECS = "'scenes', 'cityscapes:DIR', 'nyud:DIR' and 'pascal:DIR'"


def open_dataset(
    spec: str,
    split: str,
    tasks: Mapping[str, int],
    image_size: tuple[int, int],
    train_images: int,
    val_images: int,
    seed: int = 0,
) -> TaskDataset:
    """Open one split of a data set.

    ``spec`` is ``scenes`` or ``NAME:DIR``; the layout inside DIR is detected. ``tasks`` maps each
    wanted task to its output channels. ``image_size`` (height, width), ``train_images``,
    ``val_images`` and ``seed`` matter for ``scenes`` only: real data keeps its own size and count.
    Rendered scenes are kept in :func:`edge_moe.cache.cache_folder`.

    Raises :class:`EdgeMoEError` for an unknown specification, a missing folder, an unknown
    layout, an empty split, or a task without labels.
    """
    checked = check_split(split)
    name, separator, folder = spec.partition(":")
    if name == "scenes" and not separator:
        from edge_moe.scenes import ScenesDataset

        count = train_images if checked == "train" else val_images
        return ScenesDataset(checked, tasks, image_size, count, seed, cache=cache_folder())
    if name not in ("cityscapes", "nyud", "pascal") or not folder:
        raise EdgeMoEError(f"unknown data specification '{spec}': known are {SPECS}.")
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise EdgeMoEError(f"data folder '{root}' of '{spec}' does not exist or is not a folder.")
    if name == "cityscapes":
        from edge_moe.data.cityscapes import open_cityscapes

        return open_cityscapes(root, checked, tasks)
    if name == "nyud":
        from edge_moe.data.nyud import NyudDataset

        return NyudDataset(root, checked, tasks)
    from edge_moe.data.pascal import PascalDataset

    return PascalDataset(root, checked, tasks)
