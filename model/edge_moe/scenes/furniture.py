# SPDX-License-Identifier: Apache-2.0
"""Poles, lamps, traffic lights, signs, trees, bushes, hedges, walls and fences."""

import math

import numpy as np

from edge_moe.scenes.dice import Dice
from edge_moe.scenes.foliage import BUSHES, CONIFERS, CROWNS
from edge_moe.scenes.geometry import Colour, Material, Polygons, Scene, box_faces
from edge_moe.scenes.labels import PART

_STEEL: tuple[Colour, ...] = ((0.42, 0.44, 0.45), (0.25, 0.27, 0.27), (0.58, 0.60, 0.60), (0.20, 0.28, 0.24))
LEAVES: tuple[Colour, ...] = (
    (0.30, 0.42, 0.16), (0.24, 0.38, 0.15), (0.38, 0.46, 0.18), (0.22, 0.33, 0.18), (0.45, 0.45, 0.18),
    (0.58, 0.42, 0.14), (0.34, 0.48, 0.22),
)  # fmt: skip
_MASONRY: tuple[Colour, ...] = ((0.58, 0.36, 0.29), (0.72, 0.69, 0.64))
_BOARDS: tuple[Colour, ...] = ((0.46, 0.35, 0.25), (0.85, 0.85, 0.83), (0.26, 0.30, 0.27))
_HOUSING: Colour = (0.09, 0.10, 0.10)
_BLACK: Colour = (0.12, 0.12, 0.12)
_RED: Colour = (0.75, 0.06, 0.08)
_WHITE: Colour = (0.93, 0.93, 0.93)
_BLUE: Colour = (0.08, 0.25, 0.62)
_YELLOW: Colour = (0.95, 0.78, 0.12)


def _pole(
    scene: Scene, dice: Dice, x: float, z: float, base: float, height: float, radius: float
) -> tuple[int, int, Colour]:
    """An upright pole; returns its instance, its surface and its colour."""
    steel = dice.colour(dice.choice(_STEEL), 0.15)
    instance = scene.group()
    surface = scene.surface(PART["pole"], steel, instance, instance)
    bottom, top = (x, base, z), (x, base + height, z)
    scene.add_capsule(bottom, top, radius, 0.8 * radius, surface)
    return instance, surface, steel


def add_lamp_post(
    scene: Scene, dice: Dice, x: float, z: float, base: float, inward: float, height: float
) -> None:
    """A street lamp whose arm reaches over the road."""
    wx, wz = scene.street.place(x, z)
    instance, surface, _ = _pole(scene, dice, wx, wz, base, height, dice.uniform(0.07, 0.11))
    reach, top = inward * dice.uniform(0.8, 1.8), base + height
    lamp = scene.surface(PART["lamp"], (0.62, 0.63, 0.62), instance, instance)
    scene.add_capsule((wx, top, wz), (wx + reach, top + 0.25, wz), 0.05, 0.04, surface)
    scene.add_capsule((wx + reach, top + 0.25, wz), (wx + 1.4 * reach, top + 0.28, wz), 0.09, 0.12, lamp)


def add_traffic_light(
    scene: Scene, dice: Dice, x: float, z: float, base: float, toward: float, state: int, arm: float
) -> None:
    """A signal on a pole; ``toward`` -1 shows its lamps, ``state`` is 0 red, 1 amber, 2 green."""
    wx, wz = scene.street.place(x, z)
    tall = abs(arm) > 0
    height = 5.6 if tall else dice.uniform(2.9, 3.4)
    instance, surface, _ = _pole(scene, dice, wx, wz, base, height, 0.07)
    spots = [(wx, base + (2.6 if tall else height - 0.55))]
    if tall:
        scene.add_capsule((wx, base + 5.5, wz), (wx + arm, base + 5.7, wz), 0.07, 0.05, surface)
        spots.append((wx + arm, base + 5.15))
    box_edge = scene.group()
    for bx, by in spots:
        z0, z1 = (wz - 0.32, wz - 0.10) if toward < 0 else (wz + 0.10, wz + 0.32)
        for face in box_faces(bx - 0.2, bx + 0.2, by - 0.5, by + 0.55, z0, z1):
            scene.add_quad(
                face, (bx, by, 0.5 * (z0 + z1)), scene.surface(PART["light"], _HOUSING, box_edge, instance)
            )
        if toward > 0:
            continue
        colours: tuple[Colour, ...] = ((0.95, 0.10, 0.08), (0.98, 0.65, 0.10), (0.15, 0.90, 0.45))
        for lamp in range(3):
            lit = lamp == state
            colour = colours[lamp] if lit else (0.16, 0.15, 0.14)
            glow = scene.surface(PART["light"], colour, box_edge, instance, Material.GLOW if lit else 0)
            centre_y = by + 0.33 - 0.31 * lamp
            _disc(scene, bx, centre_y, z0 - 0.015, 0.125, glow, bx)


def _disc(scene: Scene, x: float, y: float, z: float, radius: float, surface: int, behind_x: float) -> None:
    ring = [
        (x + radius * math.cos(0.2 * math.pi * i), y + radius * math.sin(0.2 * math.pi * i), z)
        for i in range(10)
    ]
    behind = np.array([[behind_x, y, z + 0.5]])
    scene.discs.append(Polygons(np.array([ring]), behind, np.array([surface])))


def add_sign(scene: Scene, dice: Dice, x: float, z: float, base: float, facing: bool) -> None:
    """A traffic sign on a pole: round, triangular or square."""
    wx, wz = scene.street.place(x, z)
    height = dice.uniform(2.2, 2.9)
    instance, _, _ = _pole(scene, dice, wx, wz, base, height, 0.04)
    y, front, size = base + height - 0.25, wz - 0.06, dice.uniform(0.32, 0.45)
    edge = scene.group()

    def layer(colour: Colour) -> int:
        return scene.surface(PART["sign"], colour if facing else (0.55, 0.55, 0.56), edge, instance)

    kind = dice.integer(0, 4)
    rim, field_, mark = (
        (_RED, _WHITE, _BLACK),
        (_BLUE, _BLUE, _WHITE),
        (_RED, _RED, _WHITE),
        (_RED, _WHITE, _RED),
        (_WHITE, _YELLOW, _YELLOW),
    )[kind]
    layers = ((1.0, rim), (0.78, field_), (0.3, mark)) if facing else ((1.0, rim),)
    for depth, (share, colour) in enumerate(layers):
        surface, r, at = layer(colour), size * share, front - 0.012 * depth
        behind = (wx, y, wz + 0.5)
        if kind in (0, 2) or (kind == 1 and depth == 2):
            _disc(scene, wx, y, at, r, surface, wx)
        elif kind == 3:
            quad = [(wx - r, y - 0.6 * r, at), (wx + r, y - 0.6 * r, at), (wx, y + r, at), (wx, y + r, at)]
            scene.add_quad(quad, behind, surface)
        elif kind == 4:
            quad = [(wx - r, y, at), (wx, y - r, at), (wx + r, y, at), (wx, y + r, at)]
            scene.add_quad(quad, behind, surface)
        else:
            quad = [(wx - r, y - r, at), (wx + r, y - r, at), (wx + r, y + r, at), (wx - r, y + r, at)]
            scene.add_quad(quad, behind, surface)


def add_bollard(scene: Scene, dice: Dice, x: float, z: float, base: float) -> None:
    """A knee-high post."""
    wx, wz = scene.street.place(x, z)
    _pole(scene, dice, wx, wz, base, dice.uniform(0.8, 1.05), 0.06)


def add_tree(scene: Scene, dice: Dice, x: float, z: float, base: float, leaf: Colour, height: float) -> None:
    """A broad-leaved tree, or now and then a conifer."""
    wx, wz = scene.street.place(x, z)
    instance, edge = scene.group(), scene.group()
    conifer = dice.chance(0.12)
    width = height * (dice.uniform(0.38, 0.5) if conifer else dice.uniform(0.55, 0.85))
    clear = height * (0.08 if conifer else dice.uniform(0.22, 0.36))
    bark = scene.surface(PART["trunk"], dice.colour((0.32, 0.26, 0.20), 0.2), scene.group(), instance)
    radius = 0.016 * height + 0.03
    lean = dice.normal(0.02) * height
    scene.add_capsule((wx, base, wz), (wx + lean, base + 0.55 * height, wz), radius, 0.6 * radius, bark)
    crown = scene.surface(PART["crown"], dice.colour(leaf, 0.15), edge, instance, Material.FOLIAGE)
    tall = height - clear
    if conifer:
        which = CROWNS + dice.integer(0, CONIFERS - 1)
        scene.add_sprite((wx, base + clear + tall / 2, wz), width, tall, which, dice.chance(0.5), crown)
        scene.crowns.append((wx, base + clear + 0.4 * tall, wz, 0.35 * width))
        return
    parts = 1 if z > 45 else dice.integer(1, 3)
    for i in range(parts):
        share = 1.0 if parts == 1 else dice.uniform(0.66, 0.85)
        off = (1 - share) * 0.5 * (1 if i % 2 else -1) if parts > 1 else 0.0
        up = dice.uniform(-0.5, 0.5) * (1 - share) * tall
        centre = (wx + lean + off * width, base + clear + tall / 2 + up, wz + dice.uniform(-0.1, 0.1) * width)
        which = dice.integer(0, CROWNS - 1)
        scene.add_sprite(centre, width * share, tall * share, which, dice.chance(0.5), crown)
        scene.crowns.append((*centre, 0.42 * width * share))


def add_bush(scene: Scene, dice: Dice, x: float, z: float, base: float, leaf: Colour, size: float) -> None:
    """A shrub on the ground."""
    wx, wz = scene.street.place(x, z)
    edge = scene.group()
    bush = scene.surface(PART["bush"], dice.colour(leaf, 0.2), edge, edge, Material.FOLIAGE)
    which = CROWNS + CONIFERS + dice.integer(0, BUSHES - 1)
    width = size * dice.uniform(1.0, 1.6)
    scene.add_sprite((wx, base + 0.42 * size, wz), width, size, which, dice.chance(0.5), bush)
    scene.crowns.append((wx, base + 0.3 * size, wz, 0.3 * width))


def add_barrier(
    scene: Scene,
    dice: Dice,
    kind: str,
    x: float,
    z0: float,
    z1: float,
    base: float,
    height: float,
    leaf: Colour,
) -> None:
    """A hedge, garden wall or fence along the street."""
    (xa, za), (xb, zb) = scene.street.place(x, z0), scene.street.place(x, z1)
    thick = {"hedge": 0.4, "wall": 0.15, "fence": 0.04}[kind] * (1 if x > 0 else -1)
    colour, material = {
        "hedge": (dice.colour(leaf, 0.2), Material.FOLIAGE),
        "wall": (dice.colour(dice.choice(_MASONRY), 0.2), Material.BRICK),
        "fence": (dice.colour(dice.choice(_BOARDS), 0.2), Material.TILES),
    }[kind]
    edge = scene.group()
    low, high = base, base + height
    near = (xa, za), (xa + thick, za)
    far = (xb, zb), (xb + thick, zb)
    faces = [
        [(near[0][0], low, za), (far[0][0], low, zb), (far[0][0], high, zb), (near[0][0], high, za)],
        [(near[0][0], low, za), (near[1][0], low, za), (near[1][0], high, za), (near[0][0], high, za)],
        [(near[0][0], high, za), (far[0][0], high, zb), (far[1][0], high, zb), (near[1][0], high, za)],
    ]
    behind = (0.5 * (near[1][0] + far[1][0]), low + 0.5 * height, 0.5 * (za + zb))
    for face in faces:
        scene.add_quad(face, behind, scene.surface(PART[kind], colour, edge, edge, material))
