# SPDX-License-Identifier: Apache-2.0
"""Articulated people, on foot and on bicycles, built from tapered capsules.

Local coordinates: x to the figure's right, y up, z forward. Lengths are fractions of the stature until
the figure is placed. Poses come from a bank that is filled on demand; each figure adds its own
clothes.
"""

import functools
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edge_moe.scenes.dice import Dice
from edge_moe.scenes.geometry import Colour, Material, Point, Scene, turn
from edge_moe.scenes.labels import PART

SKIN: tuple[Colour, ...] = ((0.92, 0.74, 0.62), (0.82, 0.62, 0.48), (0.62, 0.43, 0.31), (0.40, 0.27, 0.20))
HAIR: tuple[Colour, ...] = (
    (0.10, 0.08, 0.07),
    (0.28, 0.18, 0.11),
    (0.55, 0.42, 0.22),
    (0.6, 0.6, 0.6),
    (0.40, 0.17, 0.09),
)
CLOTH: tuple[Colour, ...] = (
    (0.12, 0.13, 0.16), (0.85, 0.85, 0.83), (0.65, 0.12, 0.12), (0.14, 0.25, 0.50), (0.20, 0.40, 0.28),
    (0.75, 0.62, 0.30), (0.45, 0.28, 0.40), (0.42, 0.44, 0.46), (0.80, 0.42, 0.20), (0.35, 0.55, 0.70),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (0.12, 0.14, 0.22),
    (0.10, 0.10, 0.11),
    (0.35, 0.33, 0.30),
    (0.55, 0.50, 0.42),
    (0.22, 0.28, 0.42),
)

SHOES: tuple[Colour, ...] = ((0.1, 0.1, 0.1), (0.8, 0.8, 0.8), (0.35, 0.22, 0.14))

_BANK_SEED = 1759
_POSES = 256  # per kind of figure
_TUBE = 0.022  # radius of bicycle tubes and tyres, metres

Limb = tuple[Point, Point, float, float, str, str]  # start, end, radii, part, cloth slot


def _chain(start: Point, angle: float, length: float, out: float = 0.0) -> Point:
    """End of a limb hanging from ``start``, swung forward by ``angle`` and sideways by ``out``."""
    return (
        start[0] + length * math.sin(out),
        start[1] - length * math.cos(angle) * math.cos(out),
        start[2] + length * math.sin(angle),
    )


class _Build:
    """Proportions of one figure."""

    def __init__(self, dice: Dice) -> None:
        self.width = dice.uniform(0.85, 1.25)
        self.long_hair = dice.chance(0.35)


def _head_and_torso(build: _Build, hip: Point, neck: Point) -> list[Limb]:
    """Torso from the hips to the neck, head above it."""
    b = build.width
    lean_z, lean_y = neck[2] - hip[2], neck[1] - hip[1]
    size = math.hypot(lean_z, lean_y)
    uz, uy = lean_z / size, lean_y / size
    limbs: list[Limb] = []
    for x in (-1.0, 0.0, 1.0):
        low = (0.042 * x * b, hip[1], hip[2])
        drop = 0.062 + 0.012 * abs(x)
        high = (0.070 * x * b, neck[1] - drop * uy, neck[2] - drop * uz)
        limbs.append((low, high, 0.060 * b, 0.060 * b, "torso", "top"))
    base = (0.0, neck[1] + 0.01, neck[2] + 0.005)
    centre = (0.0, neck[1] + 0.085, neck[2] + 0.018)
    limbs.append((base, centre, 0.032, 0.034, "head", "skin"))
    limbs.append(
        (
            (0.0, centre[1] - 0.018, centre[2]),
            (0.0, centre[1] + 0.018, centre[2]),
            0.048,
            0.052,
            "head",
            "skin",
        )
    )
    back = 0.03 if build.long_hair else 0.018
    length = 0.07 if build.long_hair else -0.005
    limbs.append(
        (
            (0.0, centre[1] - length, centre[2] - back),
            (0.0, centre[1] + 0.026, centre[2] - 0.014),
            0.046,
            0.055,
            "head",
            "hair",
        )
    )
    return limbs


def _arm(build: _Build, shoulder: Point, swing: float, bend: float, out: float) -> list[Limb]:
    elbow = _chain(shoulder, swing, 0.17, out)
    wrist = _chain(elbow, swing + bend, 0.15, 0.5 * out)
    hand = _chain(wrist, swing + bend, 0.04)
    b = math.sqrt(build.width)
    return [
        (shoulder, elbow, 0.034 * b, 0.028 * b, "upper_arm", "top"),
        (elbow, wrist, 0.026 * b, 0.021 * b, "lower_arm", "sleeve"),
        (wrist, hand, 0.022, 0.02, "lower_arm", "skin"),
    ]


def _leg(build: _Build, hip: Point, swing: float, knee_bend: float) -> list[Limb]:
    knee = _chain(hip, swing, 0.245)
    ankle = _chain(knee, swing - knee_bend, 0.235)
    toe = (ankle[0], ankle[1] - 0.012, ankle[2] + 0.085)
    b = math.sqrt(build.width)
    return [
        (hip, knee, 0.056 * b, 0.041 * b, "upper_leg", "legs"),
        (knee, ankle, 0.039 * b, 0.028 * b, "lower_leg", "shin"),
        (ankle, toe, 0.027, 0.022, "lower_leg", "shoes"),
    ]


def _walker(dice: Dice) -> list[Limb]:
    build = _Build(dice)
    walking = dice.chance(0.75)
    phase = dice.uniform(0, 2 * math.pi)
    stride = dice.uniform(0.3, 0.52) if walking else dice.uniform(0.0, 0.08)
    swing = stride * math.sin(phase)
    hip_y, neck_y = 0.52 - 0.06 * stride * abs(math.sin(phase)), 0.83
    limbs = _head_and_torso(build, (0.0, hip_y, 0.0), (0.0, neck_y, 0.02 if walking else 0.0))
    arms_out = dice.uniform(0.02, 0.16)
    for side in (-1.0, 1.0):
        flex = 0.1 + 0.9 * stride * max(0.0, side * math.cos(phase)) * 1.6
        limbs += _leg(build, (0.048 * side, hip_y, 0.0), side * swing, flex if walking else 0.04)
        arm = -0.8 * side * swing
        bend = dice.uniform(0.1, 0.5) if dice.chance(0.75) else dice.uniform(1.2, 1.9)
        limbs += _arm(build, (0.108 * side * build.width, neck_y - 0.045, 0.01), arm, bend, side * arms_out)
    kind = dice.unit()
    if kind < 0.18:
        limbs.append(((0.0, 0.6, -0.09), (0.0, 0.76, -0.09), 0.075, 0.065, "torso", "pack"))
    elif kind < 0.34:
        limbs.append(((0.0, 0.54, 0.0), (0.0, 0.33, 0.0), 0.085, 0.125, "upper_leg", "top"))
    return limbs


def _rider(dice: Dice) -> list[Limb]:
    build = _Build(dice)
    hip, neck = (0.0, 0.56, -0.13), (0.0, 0.84, 0.03 + dice.uniform(0.0, 0.06))
    limbs = _head_and_torso(build, hip, neck)
    phase = dice.uniform(0, 2 * math.pi)
    for side in (-1.0, 1.0):
        lift = 0.5 + 0.5 * math.sin(phase + (math.pi if side > 0 else 0.0))
        limbs += _leg(build, (0.048 * side, 0.56, -0.13), 0.55 + 0.75 * lift, 0.75 + 0.75 * lift)
        limbs += _arm(build, (0.105 * side * build.width, neck[1] - 0.045, neck[2]), 0.95, 0.25, side * 0.08)
    return limbs


@dataclass(frozen=True)
class _Pose:
    """A finished figure of unit stature: n x 8 capsules and, per capsule, part and cloth slot."""

    starts: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]
    radii: npt.NDArray[np.float64]  # n x 2
    parts: list[int]
    cloth: list[str]


@functools.lru_cache(maxsize=2 * _POSES)
def _pose(who: str, variant: int) -> _Pose:
    dice = Dice(np.random.default_rng([_BANK_SEED, variant]))
    limbs = _walker(dice) if who == "person" else _rider(dice)
    return _Pose(
        np.array([limb[0] for limb in limbs]),
        np.array([limb[1] for limb in limbs]),
        np.array([limb[2:4] for limb in limbs]),
        [PART[f"{who}_{limb[4]}"] for limb in limbs],
        [limb[5] for limb in limbs],
    )


def _clothes(dice: Dice) -> dict[str, Colour]:
    """Colour per cloth slot."""
    skin = dice.colour(dice.choice(SKIN), 0.1)
    top = dice.colour(dice.choice(CLOTH), 0.2)
    legs = dice.colour(dice.choice(TROUSERS), 0.25)
    return {
        "skin": skin,
        "hair": dice.colour(dice.choice(HAIR), 0.2),
        "top": top,
        "legs": legs,
        "sleeve": top if dice.chance(0.65) else skin,
        "shin": legs if dice.chance(0.8) else skin,
        "shoes": dice.colour(dice.choice(SHOES), 0.1),
        "pack": dice.colour(dice.choice(CLOTH), 0.2),
    }


def _place(scene: Scene, dice: Dice, who: str, stature: float, heading: float, at: Point) -> int:
    pose = _pose(who, dice.integer(0, _POSES - 1))
    clothes = _clothes(dice)
    instance = scene.group()
    body = np.empty((len(pose.parts), 8))
    body[:, 0:3] = turn(pose.starts * stature, heading, at)
    body[:, 4:7] = turn(pose.ends * stature, heading, at)
    body[:, [3, 7]] = pose.radii * stature
    colours = [clothes[slot] for slot in pose.cloth]
    materials = [Material.PLAIN] * len(colours)
    scene.limbs.append((body, scene.surfaces(pose.parts, colours, materials, instance, instance)))
    return instance


def add_person(scene: Scene, dice: Dice, x: float, z: float, height: float, heading: float) -> None:
    """A pedestrian at a point in road coordinates; ``height`` is the ground's level there."""
    stature = dice.uniform(1.56, 1.92) if dice.chance(0.88) else dice.uniform(1.05, 1.45)
    place = scene.street.place(x, z)
    at = (place[0], height, place[1])
    instance = _place(scene, dice, "person", stature, heading, at)
    scene.foreground.append(instance)


def add_cyclist(scene: Scene, dice: Dice, x: float, z: float, heading: float) -> None:
    """A rider on a bicycle on the carriageway."""
    stature = dice.uniform(1.62, 1.9)
    place = scene.street.place(x, z)
    at = (place[0], 0.0, place[1])
    heading += math.atan(scene.street.bend * z)
    instance = _place(scene, dice, "rider", stature, heading, at)
    scene.foreground.append(instance)
    bicycle = scene.group()
    scene.foreground.append(bicycle)
    add_bicycle(scene, dice, heading, at, bicycle)


def add_bicycle(scene: Scene, dice: Dice, heading: float, at: Point, instance: int) -> None:
    """Frame and two wheels."""
    paint = dice.colour(dice.choice(CLOTH), 0.2)
    frame = scene.surface(PART["bike_frame"], paint, instance, instance)
    wheel = scene.surface(PART["bike_wheel"], (0.08, 0.08, 0.08), instance, instance)
    rear, front, radius = -0.52, 0.55, 0.34
    tubes: list[tuple[Point, Point]] = [
        ((0, 0.34, rear), (0, 0.30, 0.0)), ((0, 0.30, 0.0), (0, 0.88, -0.2)),
        ((0, 0.34, rear), (0, 0.72, -0.14)), ((0, 0.72, -0.14), (0, 0.76, 0.38)),
        ((0, 0.30, 0.0), (0, 0.70, 0.39)), ((0, 0.34, front), (0, 1.0, 0.33)),
        ((-0.25, 1.02, 0.33), (0.25, 1.02, 0.33)), ((0, 0.92, -0.32), (0, 0.92, -0.1)),
    ]  # fmt: skip
    rim: list[tuple[Point, Point]] = []
    for centre in (rear, front):
        ring = [
            (0.0, radius + radius * math.sin(math.pi * i / 5), centre + radius * math.cos(math.pi * i / 5))
            for i in range(11)
        ]
        rim += list(pairwise(ring))
    pieces = turn(tubes + rim, heading, at)
    body = np.full((len(pieces), 8), _TUBE)
    body[:, 0:3], body[:, 4:7] = pieces[:, 0], pieces[:, 1]
    scene.limbs.append((body, [frame] * len(tubes) + [wheel] * len(rim)))
