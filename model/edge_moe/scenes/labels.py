# SPDX-License-Identifier: Apache-2.0
"""The class of every rendered surface in each class set.

The renderer labels pixels with a *part*; every class set is a table over parts (labels.toml), so the sets
can never contradict each other. The number of classes chooses the set: 7 (the Cityscapes groups), 19
(the Cityscapes training ids, of which train and motorcycle never occur), 21 (a street set similar to
PASCAL) and 40 (the renderer's own finest set).
"""

import functools
import tomllib
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_moe.data import cityscapes
from edge_moe.data.pascal import PART_NAMES
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.runtime.drawing import distinct_palette


def read_table(name: str) -> dict[str, Any]:
    """The content of the TOML file ``name`` of this package."""
    return tomllib.loads(resources.files("edge_moe.scenes").joinpath(name).read_text(encoding="utf-8"))


_DATA = read_table("labels.toml")
CLASSES: Final[dict[int, tuple[str, ...]]] = {  # names by number of classes
    **{count: cityscapes.class_names(count) for count in (7, 19)},
    **{int(count): tuple(names) for count, names in _DATA["classes"].items()},
}
PART: Final[dict[str, int]] = {name: number for number, name in enumerate(_DATA["parts"])}


@functools.cache
def class_table(channels: int) -> npt.NDArray[np.uint8]:
    """Lookup table part -> class of the set with ``channels`` classes."""
    if channels not in CLASSES:
        raise EdgeMoEError(
            f"scenes has no semseg set of {channels} classes: the known numbers are "
            f"{', '.join(map(str, CLASSES))}; change model.tasks.semseg."
        )
    column = list(CLASSES).index(channels)
    return np.array([CLASSES[channels].index(row[column]) for row in _DATA["parts"].values()], np.uint8)


@functools.cache
def human_table() -> npt.NDArray[np.uint8]:
    """Lookup table part -> human part (0: not a human)."""
    rows = _DATA["parts"].values()
    return np.array([PART_NAMES.index(row[-1]) if row[0] == "human" else 0 for row in rows], np.uint8)


def class_palette(channels: int) -> npt.NDArray[np.uint8]:
    """RGB colour per class, uint8 ``channels`` x 3."""
    return cityscapes.palette(channels) if channels in (7, 19) else distinct_palette(channels)
