# SPDX-License-Identifier: Apache-2.0
"""Random streets and the cameras in them."""

from typing import Any

from edge_moe.scenes.dice import Dice
from edge_moe.scenes.geometry import Camera, Street, look

District = dict[str, Any]  # a table of districts.toml


def draw_street(dice: Dice, district: District) -> Street:
    """The carriageway of a ``district``, its crossings and its end."""
    lane = dice.uniform(2.9, 3.6)
    lanes = dice.choice(district["lanes"])
    parking = tuple(2.1 if dice.chance(0.55) and lanes == 1 else 0.0 for _ in range(2))
    left, right = (lanes * lane + p for p in parking)
    green, yard = district["green"], district["yard"]
    verges = tuple(dice.uniform(1.0, 2.4) if dice.chance(0.55 * green) else 0.0 for _ in range(2))
    street = Street(
        left=left,
        right=right,
        lane=lane,
        bend=dice.uniform(-1, 1) / dice.uniform(140, 400) if dice.chance(0.45) else 0.0,
        kerb=dice.uniform(0.1, 0.17),
        verge=(verges[0], verges[1]),
        paving=(dice.uniform(1.8, 4.5), dice.uniform(1.8, 4.5)),
        yard=(dice.uniform(*yard), dice.uniform(*yard)),
        yard_green=(dice.chance(green), dice.chance(green)),
        centre_style=dice.choice((0, 1, 1, 2, 3)) if lanes == 2 or dice.chance(0.75) else 0,
        edge_lines=dice.chance(0.4),
        parking=(parking[0], parking[1]),
    )
    z = dice.uniform(-4, 40)
    while z < 95 and len(street.crossings) < 3:
        if dice.chance(0.7):
            width = dice.uniform(6.0, 10.0)
            both = dice.unit()
            street.crossings.append((z, z + width, both < 0.65, both > 0.35))
            if dice.chance(0.6) and z > 8:
                street.zebras.append(z - dice.uniform(2.2, 3.5))
            if dice.chance(0.4):
                street.zebras.append(z + width + dice.uniform(2.2, 3.5))
        z += dice.uniform(28, 60)
    if dice.chance(0.2):
        street.zebras.append(dice.uniform(7, 35))
    if dice.chance(0.4):
        # A T-junction: the cross street runs in front of the closing buildings.
        street.end = dice.uniform(38, 105)
        cross = dice.uniform(7, 10)
        front = dice.uniform(2.0, 4.0)
        street.crossings = [c for c in street.crossings if c[1] < street.end - cross - front - 12]
        street.crossings.append((street.end - front - cross, street.end - front, True, True))
        street.zebras = [z for z in street.zebras if z < street.end - cross - front]
    return street


def draw_camera(dice: Dice, street: Street) -> tuple[Camera, bool]:
    """Usually a camera behind a windscreen, sometimes one carried on the pavement."""
    walker = dice.chance(0.2)
    if walker:
        side = dice.integer(0, 1)
        offset = street.verge[side] + dice.uniform(0.25, 0.75) * street.paving[side]
        x = (street.edge(side) + offset) * (1 if side else -1)
        height = street.kerb + dice.uniform(1.35, 1.75)
        yaw = (-1 if side else 1) * dice.uniform(-0.12, 0.45)
    else:
        lane = street.right - street.parking[1] - street.lane * 0.5
        x = lane + dice.normal(0.25)
        height = dice.uniform(1.15, 1.7) if dice.chance(0.85) else dice.uniform(1.8, 2.6)
        yaw = dice.normal(0.05) if dice.chance(0.8) else dice.uniform(-0.5, 0.5)
    pitch = dice.normal(0.03) + 0.02
    focal = dice.uniform(1.55, 2.3)  # 66 to 47 degrees across a 2:1 image
    return look((x, height, 0.0), yaw, pitch, dice.normal(0.012), focal), walker
