# SPDX-License-Identifier: Apache-2.0
"""The layout: buildings and everything that moves or grows on the street."""

import math

import numpy as np

from edge_moe.scenes import buildings, figures, furniture, vehicles
from edge_moe.scenes.dice import Dice
from edge_moe.scenes.geometry import COLOURS, PROFILE_START, SIDES, Camera, Colour, Scene
from edge_moe.scenes.labels import read_table
from edge_moe.scenes.street import District, draw_camera, draw_street

REACH = 110.0  # metres of street that are furnished
_DISTRICTS = read_table("districts.toml")
_DISTRICT_NAMES = ("centre", "centre", "terrace", "terrace", "suburb", "suburb", "park")


class _Taken:
    """Occupied boxes in road coordinates, so that bodies do not overlap."""

    def __init__(self) -> None:
        self.boxes: list[tuple[float, float, float, float]] = []

    def claim(self, x: float, z: float, half_x: float, half_z: float) -> bool:
        for bx, bz, hx, hz in self.boxes:
            if abs(x - bx) < half_x + hx and abs(z - bz) < half_z + hz:
                return False
        self.boxes.append((x, z, half_x, half_z))
        return True


def draw_scene(dice: Dice) -> tuple[Scene, Camera]:
    """One street scene and the camera in it."""
    district = _DISTRICTS[dice.choice(_DISTRICT_NAMES)]
    street = draw_street(dice, district)
    scene = Scene(street)
    camera, walker = draw_camera(dice, street)
    taken = _Taken()
    taken.claim(camera.position[0], 0.0, 0.5 if walker else 1.2, 1.6 if walker else 4.5)
    _add_rows(scene, dice, district)
    if street.end:
        low, high = district["end_storeys"]
        buildings.add_end(scene, dice, low, high, district["end_shops"])
    elif dice.chance(0.6):
        buildings.add_skyline(scene, dice)
    _add_side_street_ends(scene, dice)
    _add_traffic(scene, dice, district, taken)
    _add_signals(scene, dice)
    _add_greenery(scene, dice, district, taken)
    _add_poles(scene, dice, taken)
    _add_people(scene, dice, district, taken, camera)
    return scene, camera


def _add_rows(scene: Scene, dice: Dice, district: District) -> None:
    """Buildings on both sides and the profile of the shadow that they cast."""
    street = scene.street
    stop = street.end - 16.0 if street.end else REACH
    heights = np.zeros((2, int(REACH) + 20 - PROFILE_START), np.float32)  # per metre
    for side in (0, 1):
        z = -12.0
        low, high = district["storeys"]
        tower = district["tower"] and dice.chance(district["tower"])
        while z < stop:
            length = dice.uniform(*district["length"])
            ahead = (c for c in street.crossings if c[2 + side] and c[1] + street.paving[side] > z)
            corner = next((c for c in ahead if c[0] < z + length + 4), None)
            if corner is not None:
                length = corner[0] - street.paving[side] - z
                if length < 5.0:
                    z = corner[1] + street.paving[side]
                    continue
            if not dice.chance(district["gap"]):
                more = 5 if tower and dice.chance(0.4) else 0
                style = buildings.draw_style(dice, low, high + more, district["shops"])
                pitched = bool(district["pitched"]) and dice.chance(district["pitched"])
                buildings.add_building(scene, dice, side, z, z + length, style, dice.uniform(9, 14), pitched)
                top = street.kerb + style.height + (1.2 if pitched else 0.0)
                first, last = (max(0, int(at - PROFILE_START)) for at in (z, z + length))
                heights[side, first:last] = top
            z += length
            if district["detached"]:
                z += dice.uniform(2.0, 6.0)
            elif dice.chance(0.1):
                z += dice.uniform(1.5, 5.0)
    scene.height_profile = heights


def _add_side_street_ends(scene: Scene, dice: Dice) -> None:
    """Distant buildings that close side streets, so that not every gap shows the sky."""
    street = scene.street
    for z0, z1, left, right in street.crossings:
        for (side, sign), there in zip(SIDES, (left, right), strict=True):
            if not there or (street.end and z1 > street.end - 6):
                continue
            x = sign * dice.uniform(38, 60) + street.shift(z0)
            style = buildings.draw_style(dice, 1, 4, 0.2)
            start, end = (x, z0 - 14.0), (x, z1 + 14.0)
            buildings.add_wall(scene, style, start, end, street.kerb, (x + 10 * sign, 1.0, z0))
            # The far side of the side street.
            far = buildings.draw_style(dice, 1, 4, 0.3)
            corner = sign * (street.front(side) + 12.0) + street.shift(z1)
            line = z1 + street.paving[side] + 0.4
            if abs(corner) < abs(x):
                start, end = (corner, line), (x, line)
                buildings.add_wall(scene, far, start, end, street.kerb, (corner, 1.0, line + 10))


_HALF_LENGTH = {"car": 2.6, "van": 3.1, "truck": 4.6, "bus": 6.6}


def _vehicle_kind(dice: Dice) -> str:
    draw = dice.unit()
    return "car" if draw < 0.76 else "van" if draw < 0.88 else "truck" if draw < 0.95 else "bus"


def _add_traffic(scene: Scene, dice: Dice, district: District, taken: _Taken) -> None:
    street = scene.street
    stop = street.end - 12 if street.end else 85.0
    for side, sign in SIDES:
        if street.parking[side] and dice.chance(0.9):
            fill = dice.uniform(0.25, 0.85)
            z = dice.uniform(-3, 4)
            while z < min(stop, 65.0):
                kind = _vehicle_kind(dice) if dice.chance(0.5) else "car"
                step = 2 * _HALF_LENGTH[kind] + dice.uniform(0.2, 1.2)
                x = sign * (street.edge(side) - 1.05 + dice.normal(0.06))
                middle = z + step / 2
                if dice.chance(fill) and kind != "bus" and not street.in_crossing(middle, side, 4.5):
                    heading = (0.0 if side else math.pi) + dice.normal(0.03)
                    if dice.chance(0.08):
                        heading += math.pi
                    if taken.claim(x, middle, 1.0, _HALF_LENGTH[kind]):
                        vehicles.add_vehicle(scene, dice, kind, x, middle, heading)
                z += step
    busy = dice.uniform(0.0, 1.0) * district["busy"]
    for side, sign in SIDES:
        ahead = 0.0 if side else math.pi
        for lane in range(round((street.edge(side) - street.parking[side]) / street.lane)):
            x = sign * street.lane * (lane + 0.5)
            z = dice.uniform(5.0, 28.0)
            while z < min(stop, 80.0):
                kind = _vehicle_kind(dice)
                if dice.chance(0.2 + 0.7 * busy):
                    at = x + dice.normal(0.2)
                    if dice.chance(0.1):
                        if taken.claim(at + 0.5 * sign, z, 0.6, 1.2):
                            figures.add_cyclist(scene, dice, at + 0.5 * sign, z, ahead)
                    elif taken.claim(at, z, 1.1, _HALF_LENGTH[kind]):
                        heading = ahead + dice.normal(0.03)
                        vehicles.add_vehicle(scene, dice, kind, at, z, heading)
                z += dice.uniform(9, 18) + 14 * (1 - busy)
    for z0, z1, left, right in street.crossings:
        if not dice.chance(0.55):
            continue
        kind = dice.choice(("car", "car", "car", "van"))
        heading = dice.choice((-1, 1)) * math.pi / 2
        lane_z = z0 + (z1 - z0) * (0.28 if heading > 0 else 0.72)
        low = -16.0 if left else -street.left + 3
        high = 16.0 if right else street.right - 3
        x = dice.uniform(low, high)
        if abs(x) < street.right + 2 and dice.chance(0.3):
            heading += dice.uniform(-0.9, 0.9)
        if lane_z > 7 and taken.claim(x, lane_z, 2.8, 1.2):
            vehicles.add_vehicle(scene, dice, kind, x, lane_z, heading)


def _add_signals(scene: Scene, dice: Dice) -> None:
    street = scene.street
    for z0, z1, _, _ in street.crossings:
        state = dice.choice((0, 0, 2, 2, 1))
        if not dice.chance(0.55):
            continue
        for side, sign in SIDES:
            x = sign * (street.edge(side) + 0.5)
            arm = -sign * dice.uniform(2.2, 4.0) if side and dice.chance(0.4) else 0.0
            if z0 > 5:
                furniture.add_traffic_light(scene, dice, x, z0 - 1.0, -sign, state, arm)
            if z1 > 5 and dice.chance(0.6):
                furniture.add_traffic_light(scene, dice, x, z1 + 1.0, -sign, state, 0.0)


def _add_greenery(scene: Scene, dice: Dice, district: District, taken: _Taken) -> None:
    street = scene.street
    stop = street.end - 16 if street.end else 95.0
    leaf = dice.choice(COLOURS["leaves"])
    for side, sign in SIDES:
        base = street.kerb
        planted = dice.chance(district["planted"])
        step, height = dice.uniform(7, 13), dice.uniform(4.5, 10.5)
        offset = 0.5 * street.verge[side] if street.verge[side] else dice.uniform(0.6, 1.0)
        z = dice.uniform(4, 14)
        while planted and z < min(stop, 75):
            at = z + dice.normal(0.4)
            x = sign * (street.edge(side) + offset)
            if dice.chance(0.85) and not street.in_crossing(at, side, 3.5) and taken.claim(x, at, 0.3, 0.5):
                furniture.add_tree(scene, dice, x, at, base, leaf, height * dice.uniform(0.75, 1.2))
            z += step
        if street.yard[side] > 1.2:
            _add_gardens(scene, dice, side, leaf, stop)
        for _ in range(dice.integer(*district["trees"]) if district["trees"] else 0):
            x, z = sign * (street.front(side) - dice.uniform(0.0, 3.0) + 2.0), dice.uniform(8, 80)
            if z < stop and not street.in_crossing(z, side, 3):
                tree = dice.colour(dice.choice(COLOURS["leaves"]), 0.1)
                furniture.add_tree(scene, dice, x, z, base, tree, dice.uniform(6, 13))
    if not street.end:
        for _ in range(dice.integer(1, 5)):
            x, z = dice.uniform(-45, 45), dice.uniform(105, 150)
            furniture.add_tree(scene, dice, x, z, 0.0, dice.choice(COLOURS["leaves"]), dice.uniform(8, 16))


def _add_gardens(scene: Scene, dice: Dice, side: int, leaf: Colour, stop: float) -> None:
    """Hedges, walls or fences at the pavement's outer line, bushes and small trees behind them."""
    street = scene.street
    sign, leaves = SIDES[side][1], COLOURS["leaves"]
    line = sign * (street.edge(side) + street.verge[side] + street.paving[side] + 0.1)
    kind = dice.choice(("hedge", "wall", "fence", "none", "mixed"))
    z = dice.uniform(-3, 2)
    while z < min(stop, 80):
        end = z + dice.uniform(4, 12)
        if (
            not street.in_crossing(z, side, 3)
            and not street.in_crossing(end, side, 3)
            and not street.in_crossing(0.5 * (z + end), side, 6)
        ):
            this = dice.choice(("hedge", "wall", "fence", "none")) if kind == "mixed" else kind
            if this != "none" and dice.chance(0.85):
                height = {
                    "hedge": dice.uniform(0.7, 1.8),
                    "wall": dice.uniform(0.6, 1.5),
                    "fence": dice.uniform(0.9, 1.7),
                }[this]
                until = end - dice.uniform(0.0, 2.0)
                furniture.add_barrier(scene, dice, this, line, z, until, height, leaf)
            for _ in range(dice.integer(0, 2)):
                x = line + sign * dice.uniform(0.8, max(0.9, street.yard[side] - 0.6))
                at = dice.uniform(z, end)
                if dice.chance(0.75):
                    furniture.add_bush(scene, dice, x, at, dice.choice(leaves), dice.uniform(0.7, 2.2))
                elif street.yard[side] > 3:
                    tree = dice.choice(leaves)
                    furniture.add_tree(scene, dice, x, at, street.kerb, tree, dice.uniform(3.5, 7.5))
        z = end + dice.uniform(0.0, 2.0)


def _add_poles(scene: Scene, dice: Dice, taken: _Taken) -> None:
    street = scene.street
    stop = street.end - 14 if street.end else 80.0
    lamps, height = dice.chance(0.75), dice.uniform(5.0, 8.5)
    for side, sign in SIDES:
        x = sign * (street.edge(side) + 0.45)
        z = dice.uniform(4, 22)
        step = dice.uniform(18, 30)
        while lamps and z < stop:
            if not street.in_crossing(z, side, 1.0) and taken.claim(x, z, 0.2, 0.3):
                furniture.add_lamp_post(scene, dice, x, z, -sign, height)
            z += step
        for _ in range(dice.integer(0, 4)):
            z = dice.uniform(5, 55)
            if z < stop and not street.in_crossing(z, side, 1.0) and taken.claim(x, z, 0.3, 0.4):
                furniture.add_sign(scene, dice, x, z, bool(side) or dice.chance(0.25))
        if dice.chance(0.2):
            start = dice.uniform(3, 25)
            for i in range(dice.integer(4, 8)):
                z = start + 1.7 * i
                if not street.in_crossing(z, side, 1.0) and taken.claim(x, z, 0.1, 0.1):
                    furniture.add_bollard(scene, dice, x, z)


def _add_people(scene: Scene, dice: Dice, district: District, taken: _Taken, camera: Camera) -> None:
    street = scene.street
    stop = street.end - 10 if street.end else 65.0
    for _ in range(dice.integer(*district["crowd"])):
        side, sign = dice.choice(SIDES)
        z = 5.0 + (min(stop, 45.0) - 5.0) * dice.unit() ** 1.5
        across = dice.uniform(0.2, 0.85) * street.paving[side]
        x = sign * (street.edge(side) + street.verge[side] + across)
        heading = dice.choice((0.0, math.pi)) + dice.normal(0.25)
        for member in range(dice.choice((1, 1, 1, 2, 3))):
            at = x + sign * 0.62 * member
            if not street.in_crossing(z, side, 0.5) and taken.claim(at, z, 0.28, 0.35):
                place = z + dice.normal(0.15)
                figures.add_person(scene, dice, at, place, street.kerb, heading + dice.normal(0.12))
    for zebra in street.zebras:
        for _ in range(dice.choice((0, 0, 1, 2, 3)) if zebra < 40 else 0):
            x = dice.uniform(-street.left + 0.4, street.right - 0.4)
            z = zebra + dice.normal(0.6)
            if z > 4.5 and taken.claim(x, z, 0.35, 0.35):
                heading = dice.choice((-1, 1)) * math.pi / 2 + dice.normal(0.2)
                figures.add_person(scene, dice, x, z, 0.0, heading)
    for _ in range(dice.choice((0, 0, 1, 1, 2))):
        # A person close to the camera, so that limbs are large enough for training.
        z = dice.uniform(3.2, 8.5)
        forward = camera.rotation[2]
        x = camera.position[0] + z * float(forward[0] / forward[2]) + dice.uniform(-0.42, 0.42) * z
        if (abs(x - street.shift(z)) < 0.6 + street.lane and dice.chance(0.6)) or abs(x) > min(
            street.front(0), street.front(1)
        ):
            continue
        side = 1 if x > 0 else 0
        on_road = -street.left < x < street.right or street.in_crossing(z, side)
        if taken.claim(x, z, 0.35, 0.4):
            heading = dice.uniform(-math.pi, math.pi)
            figures.add_person(scene, dice, x, z, 0.0 if on_road else street.kerb, heading)
