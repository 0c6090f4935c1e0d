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
from edge_moe.scenes.geometry import COLOURS, Colour, Point, Scene, turn

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


def _head_and_torso(width: float, long_hair: bool, hip: Point, neck: Point) -> list[Limb]:
    """Torso from the hips to the neck, head above it."""
    (_, hip_y, hip_z), (_, neck_y, neck_z) = hip, neck
    lean_z, lean_y = neck_z - hip_z, neck_y - hip_y
    size = math.hypot(lean_z, lean_y)
    uz, uy = lean_z / size, lean_y / size
    limbs: list[Limb] = []
    for x in (-1.0, 0.0, 1.0):
        low = (0.042 * x * width, hip_y, hip_z)
        drop = 0.062 + 0.012 * abs(x)
        high = (0.070 * x * width, neck_y - drop * uy, neck_z - drop * uz)
        limbs.append((low, high, 0.060 * width, 0.060 * width, "torso", "top"))
    y, z = neck_y + 0.085, neck_z + 0.018  # of the head's centre
    back, length = (0.03, 0.07) if long_hair else (0.018, -0.005)
    return [
        *limbs,
        ((0.0, neck_y + 0.01, neck_z + 0.005), (0.0, y, z), 0.032, 0.034, "head", "skin"),
        ((0.0, y - 0.018, z), (0.0, y + 0.018, z), 0.048, 0.052, "head", "skin"),
        ((0.0, y - length, z - back), (0.0, y + 0.026, z - 0.014), 0.046, 0.055, "head", "hair"),
    ]


def _arm(width: float, shoulder: Point, swing: float, bend: float, out: float) -> list[Limb]:
    elbow = _chain(shoulder, swing, 0.17, out)
    wrist = _chain(elbow, swing + bend, 0.15, 0.5 * out)
    hand = _chain(wrist, swing + bend, 0.04)
    b = math.sqrt(width)
    return [
        (shoulder, elbow, 0.034 * b, 0.028 * b, "upper_arm", "top"),
        (elbow, wrist, 0.026 * b, 0.021 * b, "lower_arm", "sleeve"),
        (wrist, hand, 0.022, 0.02, "lower_arm", "skin"),
    ]


def _leg(width: float, hip: Point, swing: float, knee_bend: float) -> list[Limb]:
    knee = _chain(hip, swing, 0.245)
    ankle = _chain(knee, swing - knee_bend, 0.235)
    toe = (ankle[0], ankle[1] - 0.012, ankle[2] + 0.085)
    b = math.sqrt(width)
    return [
        (hip, knee, 0.056 * b, 0.041 * b, "upper_leg", "legs"),
        (knee, ankle, 0.039 * b, 0.028 * b, "lower_leg", "shin"),
        (ankle, toe, 0.027, 0.022, "lower_leg", "shoes"),
    ]


def _walker(dice: Dice) -> list[Limb]:
    width, long_hair = dice.uniform(0.85, 1.25), dice.chance(0.35)
    walking = dice.chance(0.75)
    phase = dice.uniform(0, 2 * math.pi)
    stride = dice.uniform(0.3, 0.52) if walking else dice.uniform(0.0, 0.08)
    swing = stride * math.sin(phase)
    hip_y, neck_y = 0.52 - 0.06 * stride * abs(math.sin(phase)), 0.83
    limbs = _head_and_torso(width, long_hair, (0.0, hip_y, 0.0), (0.0, neck_y, 0.02 if walking else 0.0))
    arms_out = dice.uniform(0.02, 0.16)
    for side in (-1.0, 1.0):
        flex = 0.1 + 0.9 * stride * max(0.0, side * math.cos(phase)) * 1.6
        limbs += _leg(width, (0.048 * side, hip_y, 0.0), side * swing, flex if walking else 0.04)
        arm = -0.8 * side * swing
        bend = dice.uniform(0.1, 0.5) if dice.chance(0.75) else dice.uniform(1.2, 1.9)
        limbs += _arm(width, (0.108 * side * width, neck_y - 0.045, 0.01), arm, bend, side * arms_out)
    kind = dice.unit()
    if kind < 0.18:
        limbs.append(((0.0, 0.6, -0.09), (0.0, 0.76, -0.09), 0.075, 0.065, "torso", "pack"))
    elif kind < 0.34:
        limbs.append(((0.0, 0.54, 0.0), (0.0, 0.33, 0.0), 0.085, 0.125, "upper_leg", "top"))
    return limbs


def _rider(dice: Dice) -> list[Limb]:
    width, long_hair = dice.uniform(0.85, 1.25), dice.chance(0.35)
    hip, neck = (0.0, 0.56, -0.13), (0.0, 0.84, 0.03 + dice.uniform(0.0, 0.06))
    limbs = _head_and_torso(width, long_hair, hip, neck)
    phase = dice.uniform(0, 2 * math.pi)
    for side in (-1.0, 1.0):
        lift = 0.5 + 0.5 * math.sin(phase + (math.pi if side > 0 else 0.0))
        limbs += _leg(width, (0.048 * side, 0.56, -0.13), 0.55 + 0.75 * lift, 0.75 + 0.75 * lift)
        limbs += _arm(width, (0.105 * side * width, neck[1] - 0.045, neck[2]), 0.95, 0.25, side * 0.08)
    return limbs


@dataclass(frozen=True)
class _Pose:
    """A finished figure of unit stature: n capsules and, per capsule, part and cloth slot."""

    points: npt.NDArray[np.float64]  # n x 2 x 3
    radii: npt.NDArray[np.float64]  # n x 2
    looks: list[tuple[str, str]]


@functools.lru_cache(maxsize=2 * _POSES)
def _pose(who: str, variant: int) -> _Pose:
    dice = Dice(np.random.default_rng([_BANK_SEED, variant]))
    starts, ends, radii_0, radii_1, parts, slots = zip(
        *(_walker(dice) if who == "person" else _rider(dice)), strict=True
    )
    looks = [(f"{who}_{part}", slot) for part, slot in zip(parts, slots, strict=True)]
    return _Pose(np.stack([starts, ends], axis=1), np.stack([radii_0, radii_1], axis=1), looks)


def _clothes(dice: Dice) -> dict[str, Colour]:
    """Colour per cloth slot."""
    skin = dice.colour(dice.choice(COLOURS["skin"]), 0.1)
    top = dice.colour(dice.choice(COLOURS["cloth"]), 0.2)
    legs = dice.colour(dice.choice(COLOURS["trousers"]), 0.25)
    return {
        "skin": skin,
        "hair": dice.colour(dice.choice(COLOURS["hair"]), 0.2),
        "top": top,
        "legs": legs,
        "sleeve": top if dice.chance(0.65) else skin,
        "shin": legs if dice.chance(0.8) else skin,
        "shoes": dice.colour(dice.choice(COLOURS["shoes"]), 0.1),
        "pack": dice.colour(dice.choice(COLOURS["cloth"]), 0.2),
    }


def _place(scene: Scene, dice: Dice, who: str, stature: float, heading: float, at: Point) -> None:
    pose = _pose(who, dice.integer(0, _POSES - 1))
    clothes = _clothes(dice)
    owner = scene.group()
    scene.foreground.append(owner)
    points = turn(pose.points * stature, heading, at)
    ids = [scene.surface(part, clothes[slot], owner=owner) for part, slot in pose.looks]
    scene.add_limbs(points, pose.radii * stature, ids)


def add_person(scene: Scene, dice: Dice, x: float, z: float, height: float, heading: float) -> None:
    """A pedestrian at a point in road coordinates; ``height`` is the ground's level there."""
    stature = dice.uniform(1.56, 1.92) if dice.chance(0.88) else dice.uniform(1.05, 1.45)
    _place(scene, dice, "person", stature, heading, (x + scene.street.shift(z), height, z))


def add_cyclist(scene: Scene, dice: Dice, x: float, z: float, heading: float) -> None:
    """A rider on a bicycle on the carriageway."""
    stature = dice.uniform(1.62, 1.9)
    at = (x + scene.street.shift(z), 0.0, z)
    heading += math.atan(scene.street.bend * z)
    _place(scene, dice, "rider", stature, heading, at)
    _add_bicycle(scene, dice, heading, at)


def _add_bicycle(scene: Scene, dice: Dice, heading: float, at: Point) -> None:
    """Frame and two wheels."""
    frame = scene.surface("bike_frame", dice.colour(dice.choice(COLOURS["cloth"]), 0.2))
    owner = scene.owner[frame]
    scene.foreground.append(owner)
    wheel = scene.surface("bike_wheel", (0.08, 0.08, 0.08), owner=owner)
    rear, front, radius = -0.52, 0.55, 0.34
    tubes: list[tuple[Point, Point]] = [
        ((0, 0.34, rear), (0, 0.30, 0.0)), ((0, 0.30, 0.0), (0, 0.88, -0.2)),
        ((0, 0.34, rear), (0, 0.72, -0.14)), ((0, 0.72, -0.14), (0, 0.76, 0.38)),
        ((0, 0.30, 0.0), (0, 0.70, 0.39)), ((0, 0.34, front), (0, 1.0, 0.33)),
        ((-0.25, 1.02, 0.33), (0.25, 1.02, 0.33)), ((0, 0.92, -0.32), (0, 0.92, -0.1)),
    ]  # fmt: skip
    rim: list[tuple[Point, Point]] = []
    turns = [math.pi * i / 5 for i in range(11)]
    for centre in (rear, front):
        ring = [(0.0, radius + radius * math.sin(t), centre + radius * math.cos(t)) for t in turns]
        rim += pairwise(ring)
    pieces = turn(tubes + rim, heading, at)
    scene.add_limbs(pieces, np.full((len(pieces), 2), _TUBE), [frame] * len(tubes) + [wheel] * len(rim))
