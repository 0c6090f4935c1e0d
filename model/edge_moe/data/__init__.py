# SPDX-License-Identifier: Apache-2.0
"""Data sets: the embedded ``scenes`` renderer, real data sets, and your own, opened by a specification."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from edge_moe.cache import cache_folder
from edge_moe.data.base import Split, TaskDataset, check_split
from edge_moe_host.errors import EdgeMoEError, listed, reason
from edge_moe_host.files import at_home, kind

__all__ = ["TaskDataset", "open_dataset"]

Opener = Callable[[Path, Split, Mapping[str, int]], TaskDataset]
OPENERS = {
    "folder": "edge_moe.data.folder:FolderDataset",
    "cityscapes": "edge_moe.data.cityscapes:open_cityscapes",
    "nyud": "edge_moe.data.nyud:NyudDataset",
    "pascal": "edge_moe.data.pascal:PascalDataset",
}
GROUP = "edge_moe.datasets"  # of entry points


def open_dataset(
    spec: str,
    split: str,
    tasks: Mapping[str, int],
    image_size: tuple[int, int],
    train_images: int,
    val_images: int,
    seed: int = 0,
    *,
    unlabelled: bool = False,
) -> TaskDataset:
    """Open one split of a data set.

    ``spec`` is ``scenes``, or ``NAME:DIR`` with a known name, the name of an entry point of the group
    ``edge_moe.datasets``, or ``MODULE:CLASS``; each is called with (DIR, split, tasks). ``tasks`` maps
    each wanted task to its output channels. ``image_size`` (height, width), ``train_images``, ``val_images``
    and ``seed`` matter for ``scenes`` only: real data keeps its own size and count. Rendered scenes are kept
    in :func:`edge_moe.cache.cache_folder`. With ``unlabelled``, pictures alone will do: ``images:DIR``.

    Raises :class:`EdgeMoEError` for an unknown specification, a missing folder, an unknown
    layout, an empty split, or a task without labels.
    """
    checked = check_split(split)
    name, separator, folder = spec.partition(":")
    if name == "scenes" and not separator:
        from edge_moe.scenes import ScenesDataset

        count = train_images if checked == "train" else val_images
        return ScenesDataset(checked, tasks, image_size, count, seed, cache=cache_folder())
    if name == "images" and not unlabelled:
        raise EdgeMoEError(
            f"the pictures of '{spec}' have no labels: they serve 'quantise', 'export' and 'show'; "
            "elsewhere name labelled data, such as folder:DIR."
        )
    plugins = {point.name: point.value for point in metadata.entry_points(group=GROUP)}
    target = (plugins | OPENERS).get(name)
    if target is None and name != "images" and ":" in folder:  # MODULE:CLASS:DIR
        attribute, _, folder = folder.partition(":")
        target = f"{name}:{attribute}"
    if not folder or (target is None and name != "images"):
        names = (*OPENERS, "images", *plugins, "MODULE:CLASS")
        known = listed(("scenes", *(f"{known}:DIR" for known in names)), spec)
        raise EdgeMoEError(f"unknown data specification '{spec}': known are {known}.")
    root = at_home(folder)
    if kind(root) != "folder":
        raise EdgeMoEError(f"data folder '{root}' of '{spec}' does not exist or is not a folder.")
    if target is None:
        from edge_moe.data.folder import UnlabelledDataset

        return UnlabelledDataset(root, checked)
    dataset = _load(target, spec)(root, checked, tasks)
    if not isinstance(dataset, TaskDataset):
        raise EdgeMoEError(
            f"'{target}' of '{spec}' made a {type(dataset).__name__}, which is no TaskDataset."
        )
    return dataset


def _load(target: str, spec: str) -> Opener:
    module, _, attribute = target.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # a command's own folder is the first entry, not the current one
    try:
        opener: Opener = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise EdgeMoEError(f"cannot load '{target}' of the data '{spec}': {reason(error)}.") from None
    return opener
