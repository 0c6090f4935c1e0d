# SPDX-License-Identifier: Apache-2.0
"""Poles, lamps, traffic lights, signs, trees, bushes, hedges, walls and fences."""

import math

import numpy as np

from edge_moe.scenes.dice import Dice
from edge_moe.scenes.foliage import BUSHES, CONIFERS, CROWNS
from edge_moe.scenes.geometry import COLOURS, Colour, Material, Polygons, Scene, box_faces, upright

_HOUSING: Colour = (0.09, 0.10, 0.10)
_BLACK: Colour = (0.12, 0.12, 0.12)
_BACK: Colour = (0.55, 0.55, 0.56)  # of signs
_RED: Colour = (0.75, 0.06, 0.08)
_WHITE: Colour = (0.93, 0.93, 0.93)
_BLUE: Colour = (0.08, 0.25, 0.62)
_YELLOW: Colour = (0.95, 0.78, 0.12)
_LAMPS: tuple[Colour, ...] = ((0.95, 0.10, 0.08), (0.98, 0.65, 0.10), (0.15, 0.90, 0.45))
_SIGNS = (  # rim, field and mark
    (_RED, _WHITE, _BLACK),
    (_BLUE, _BLUE, _WHITE),
    (_RED, _RED, _WHITE),
    (_RED, _WHITE, _RED),
    (_WHITE, _YELLOW, _YELLOW),
)


def _pole(scene: Scene, dice: Dice, x: float, z: float, height: float, radius: float) -> int:
    """An upright pole; returns its surface."""
    surface = scene.surface("pole", dice.colour(dice.choice(COLOURS["steel"]), 0.15))
    base = scene.street.kerb
    scene.add_capsule((x, base, z), (x, base + height, z), radius, 0.8 * radius, surface)
    return surface


def add_lamp_post(scene: Scene, dice: Dice, x: float, z: float, inward: float, height: float) -> None:
    """A street lamp whose arm reaches over the road."""
    x += scene.street.shift(z)
    surface = _pole(scene, dice, x, z, height, dice.uniform(0.07, 0.11))
    reach, top = inward * dice.uniform(0.8, 1.8), scene.street.kerb + height
    lamp = scene.surface("lamp", (0.62, 0.63, 0.62), owner=scene.owner[surface])
    scene.add_capsule((x, top, z), (x + reach, top + 0.25, z), 0.05, 0.04, surface)
    scene.add_capsule((x + reach, top + 0.25, z), (x + 1.4 * reach, top + 0.28, z), 0.09, 0.12, lamp)


def add_traffic_light(
    scene: Scene, dice: Dice, x: float, z: float, toward: float, state: int, arm: float
) -> None:
    """A signal on a pole; ``toward`` -1 shows its lamps, ``state`` is 0 red, 1 amber, 2 green."""
    base = scene.street.kerb
    x += scene.street.shift(z)
    height = 5.6 if arm else dice.uniform(2.9, 3.4)
    surface = _pole(scene, dice, x, z, height, 0.07)
    spots = [(x, base + (2.6 if arm else height - 0.55))]
    if arm:
        scene.add_capsule((x, base + 5.5, z), (x + arm, base + 5.7, z), 0.07, 0.05, surface)
        spots.append((x + arm, base + 5.15))
    box = scene.group()
    z0, z1 = (z - 0.32, z - 0.10) if toward < 0 else (z + 0.10, z + 0.32)
    for bx, by in spots:
        for face in box_faces(bx - 0.2, bx + 0.2, by - 0.5, by + 0.55, z0, z1):
            scene.add_quad(face, (bx, by, 0.5 * (z0 + z1)), "light", _HOUSING, owner=box)
        for lamp, colour in enumerate(_LAMPS) if toward < 0 else ():
            look = (colour, Material.GLOW) if lamp == state else ((0.16, 0.15, 0.14), Material.PLAIN)
            glow = scene.surface("light", *look, box)
            _disc(scene, bx, by + 0.33 - 0.31 * lamp, z0 - 0.015, 0.125, glow)


def _disc(scene: Scene, x: float, y: float, z: float, radius: float, surface: int) -> None:
    turns = [0.2 * math.pi * i for i in range(10)]
    ring = [(x + radius * math.cos(turn), y + radius * math.sin(turn), z) for turn in turns]
    scene.discs.append(Polygons(np.array([ring]), np.array([[x, y, z + 0.5]]), np.array([surface])))


def add_sign(scene: Scene, dice: Dice, x: float, z: float, facing: bool) -> None:
    """A traffic sign on a pole: round, triangular or square."""
    x += scene.street.shift(z)
    height = dice.uniform(2.2, 2.9)
    _pole(scene, dice, x, z, height, 0.04)
    y, front, size = scene.street.kerb + height - 0.25, z - 0.06, dice.uniform(0.32, 0.45)
    edge = scene.group()
    kind = dice.integer(0, 4)
    layers = list(zip((1.0, 0.78, 0.3), _SIGNS[kind], strict=True)) if facing else [(1.0, _BACK)]
    for depth, (share, colour) in enumerate(layers):
        r, at = size * share, front - 0.012 * depth
        if kind in (0, 2) or (kind == 1 and depth == 2):
            _disc(scene, x, y, at, r, scene.surface("sign", colour, owner=edge))
            continue
        if kind == 3:
            quad = [(x - r, y - 0.6 * r, at), (x + r, y - 0.6 * r, at), (x, y + r, at), (x, y + r, at)]
        elif kind == 4:
            quad = [(x - r, y, at), (x, y - r, at), (x + r, y, at), (x, y + r, at)]
        else:
            quad = upright((x - r, at), (x + r, at), y - r, y + r)
        scene.add_quad(quad, (x, y, z + 0.5), "sign", colour, owner=edge)


def add_bollard(scene: Scene, dice: Dice, x: float, z: float) -> None:
    """A knee-high post."""
    _pole(scene, dice, x + scene.street.shift(z), z, dice.uniform(0.8, 1.05), 0.06)


def add_tree(scene: Scene, dice: Dice, x: float, z: float, base: float, leaf: Colour, height: float) -> None:
    """A broad-leaved tree, or now and then a conifer."""
    x += scene.street.shift(z)
    conifer = dice.chance(0.12)
    width = height * (dice.uniform(0.38, 0.5) if conifer else dice.uniform(0.55, 0.85))
    clear = height * (0.08 if conifer else dice.uniform(0.22, 0.36))
    bark = scene.surface("trunk", dice.colour((0.32, 0.26, 0.20), 0.2))
    radius = 0.016 * height + 0.03
    lean = dice.normal(0.02) * height
    scene.add_capsule((x, base, z), (x + lean, base + 0.55 * height, z), radius, 0.6 * radius, bark)
    crown = scene.surface("crown", dice.colour(leaf, 0.15), Material.FOLIAGE)
    tall = height - clear
    if conifer:
        which = CROWNS + dice.integer(0, CONIFERS - 1)
        scene.add_sprite((x, base + clear + tall / 2, z), width, tall, which, dice.chance(0.5), crown)
        scene.crowns.append((x, base + clear + 0.4 * tall, z, 0.35 * width))
        return
    parts = 1 if z > 45 else dice.integer(1, 3)
    for i in range(parts):
        share = 1.0 if parts == 1 else dice.uniform(0.66, 0.85)
        off = (1 - share) * 0.5 * (1 if i % 2 else -1) if parts > 1 else 0.0
        up = dice.uniform(-0.5, 0.5) * (1 - share) * tall
        centre = (x + lean + off * width, base + clear + tall / 2 + up, z + dice.uniform(-0.1, 0.1) * width)
        which = dice.integer(0, CROWNS - 1)
        scene.add_sprite(centre, width * share, tall * share, which, dice.chance(0.5), crown)
        scene.crowns.append((*centre, 0.42 * width * share))


def add_bush(scene: Scene, dice: Dice, x: float, z: float, leaf: Colour, size: float) -> None:
    """A shrub on the ground."""
    base = scene.street.kerb
    x += scene.street.shift(z)
    bush = scene.surface("bush", dice.colour(leaf, 0.2), Material.FOLIAGE)
    which = CROWNS + CONIFERS + dice.integer(0, BUSHES - 1)
    width = size * dice.uniform(1.0, 1.6)
    scene.add_sprite((x, base + 0.42 * size, z), width, size, which, dice.chance(0.5), bush)
    scene.crowns.append((x, base + 0.3 * size, z, 0.3 * width))


def add_barrier(
    scene: Scene, dice: Dice, kind: str, x: float, z0: float, z1: float, height: float, leaf: Colour
) -> None:
    """A hedge, garden wall or fence along the street."""
    base = scene.street.kerb
    near, far = scene.street.place(x, z0), scene.street.place(x, z1)
    thick = {"hedge": 0.4, "wall": 0.15, "fence": 0.04}[kind] * (1 if x > 0 else -1)
    colour, material = {
        "hedge": (dice.colour(leaf, 0.2), Material.FOLIAGE),
        "wall": (dice.colour(dice.choice(COLOURS["masonry"]), 0.2), Material.BRICK),
        "fence": (dice.colour(dice.choice(COLOURS["boards"]), 0.2), Material.TILES),
    }[kind]
    owner, high = scene.group(), base + height
    inner_near, inner_far = (near[0] + thick, z0), (far[0] + thick, z1)
    top = [(px, high, pz) for px, pz in (near, far, inner_far, inner_near)]
    behind = (0.5 * (inner_near[0] + inner_far[0]), base + 0.5 * height, 0.5 * (z0 + z1))
    for face in (upright(near, far, base, high), upright(near, inner_near, base, high), top):
        scene.add_quad(face, behind, kind, colour, material, owner)
