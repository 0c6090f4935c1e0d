# SPDX-License-Identifier: Apache-2.0
"""The class of every rendered surface in each class set.

The renderer labels pixels with a *part*; every class set is a table over parts, so the sets can
never contradict each other. The number of classes chooses the set: 7 (the Cityscapes groups), 19
(the Cityscapes training ids), 21 (a street set similar to PASCAL: class 0 is background and
includes the sky) and 40 (the renderer's own finest set).
"""

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_moe_host.errors import EdgeMoEError

CLASSES_7: Final = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
CLASSES_19: Final = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
CLASSES_21: Final = (
    "background", "road", "marking", "pavement", "kerb", "building", "window", "door", "wall or fence",
    "pole", "traffic light", "traffic sign", "tree", "bush", "grass", "person", "bicycle", "car", "van",
    "truck", "bus",
)  # fmt: skip
CLASSES_40: Final = (
    "asphalt", "lane marking", "zebra crossing", "pavement", "kerb", "grass", "facade", "window", "door",
    "shop window", "roof", "garden wall", "fence", "pole", "street lamp", "traffic light", "traffic sign",
    "trunk", "crown", "sky", "bush", "hedge", "head", "torso", "upper arm", "lower arm", "upper leg",
    "lower leg", "bicycle frame", "bicycle wheel", "car body", "vehicle glass", "vehicle light",
    "vehicle wheel", "vehicle trim", "van body", "truck cab", "truck cargo", "bus body", "distant building",
)  # fmt: skip
HUMAN_PARTS: Final = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")

# Classes that no scene contains; they keep their number so that ids stay Cityscapes ids.
NEVER_OCCUR: Final = {7: (), 19: ("train", "motorcycle"), 21: (), 40: ()}


def _part_table() -> dict[str, tuple[int, int, int, int]]:
    """Part name -> class in the sets of 7, 19, 21 and 40 classes."""
    table = {
        "sky": (4, 10, 0, 19),
        "road": (0, 0, 1, 0),
        "marking": (0, 0, 2, 1),
        "zebra": (0, 0, 2, 2),
        "pavement": (0, 1, 3, 3),
        "kerb": (0, 1, 4, 4),
        "grass": (3, 9, 14, 5),
        "facade": (1, 2, 5, 6),
        "window": (1, 2, 6, 7),
        "door": (1, 2, 7, 8),
        "shop": (1, 2, 6, 9),
        "roof": (1, 2, 5, 10),
        "wall": (1, 3, 8, 11),
        "fence": (1, 4, 8, 12),
        "skyline": (1, 2, 5, 39),
        "pole": (2, 5, 9, 13),
        "lamp": (2, 5, 9, 14),
        "light": (2, 6, 10, 15),
        "sign": (2, 7, 11, 16),
        "trunk": (3, 8, 12, 17),
        "crown": (3, 8, 12, 18),
        "bush": (3, 8, 13, 20),
        "hedge": (3, 8, 13, 21),
        "bike_frame": (6, 18, 16, 28),
        "bike_wheel": (6, 18, 16, 29),
    }
    for who, city in (("person", 11), ("rider", 12)):
        for i, part in enumerate(HUMAN_PARTS[1:]):
            table[f"{who}_{part.replace(' ', '_')}"] = (5, city, 15, 22 + i)
    bodies = {"car": (13, 17, 30), "van": (13, 18, 35), "truck": (14, 19, 36), "bus": (15, 20, 38)}
    for kind, (city, street, body) in bodies.items():
        table[f"{kind}_body"] = (6, city, street, body)
        for i, detail in enumerate(("glass", "light", "wheel", "trim")):
            table[f"{kind}_{detail}"] = (6, city, street, 31 + i)
    table["truck_cargo"] = (6, 14, 19, 37)
    return table


_TABLE: Final = _part_table()
PART: Final = {name: number for number, name in enumerate(_TABLE)}
_NAMES: Final = {7: CLASSES_7, 19: CLASSES_19, 21: CLASSES_21, 40: CLASSES_40}
KNOWN_CLASS_COUNTS: Final = tuple(_NAMES)


def _check(channels: int) -> None:
    if channels not in _NAMES:
        raise EdgeMoEError(
            f"scenes has no semseg set of {channels} classes: the known numbers are "
            f"{', '.join(map(str, KNOWN_CLASS_COUNTS))}; change model.tasks.semseg."
        )


@functools.cache
def class_table(channels: int) -> npt.NDArray[np.uint8]:
    """Lookup table part -> class of the set with ``channels`` classes."""
    _check(channels)
    column = KNOWN_CLASS_COUNTS.index(channels)
    return np.array([row[column] for row in _TABLE.values()], np.uint8)


@functools.cache
def human_table() -> npt.NDArray[np.uint8]:
    """Lookup table part -> human part (0: not a human)."""
    names = [part.replace(" ", "_") for part in HUMAN_PARTS]
    return np.array(
        [
            names.index(name.partition("_")[2]) if name.startswith(("person_", "rider_")) else 0
            for name in _TABLE
        ],
        np.uint8,
    )


def class_names(channels: int) -> tuple[str, ...]:
    """Names of the classes of the set with ``channels`` classes."""
    _check(channels)
    return _NAMES[channels]


_PALETTE_7 = (
    (128, 64, 128), (70, 70, 70), (153, 153, 153), (107, 142, 35), (70, 130, 180), (220, 20, 60), (0, 0, 142),
)  # fmt: skip
_PALETTE_19 = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
    (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
    (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip


def _spread_palette(count: int) -> npt.NDArray[np.uint8]:
    """Distinct colours as in PASCAL: the bits of the index are spread over R, G and B."""
    colours = np.zeros((count, 3), np.uint8)
    for index in range(count):
        value = index
        for shift in range(7, -1, -1):
            for channel in range(3):
                colours[index, channel] |= ((value >> channel) & 1) << shift
            value >>= 3
    return colours


def class_palette(channels: int) -> npt.NDArray[np.uint8]:
    """RGB colour per class, uint8 ``channels`` x 3."""
    _check(channels)
    fixed = {7: _PALETTE_7, 19: _PALETTE_19}
    return np.array(fixed[channels], np.uint8) if channels in fixed else _spread_palette(channels)


def human_palette() -> npt.NDArray[np.uint8]:
    """RGB colour per human part, uint8 7 x 3."""
    return _spread_palette(len(HUMAN_PARTS))
