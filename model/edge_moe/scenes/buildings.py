# SPDX-License-Identifier: Apache-2.0
"""Buildings along the street, across its end and on the horizon."""

import math
from dataclasses import dataclass

from edge_moe.scenes.dice import Dice
from edge_moe.scenes.geometry import Colour, Material, Point, Scene
from edge_moe.scenes.labels import PART

WALL_COLOURS: tuple[Colour, ...] = (
    (0.62, 0.36, 0.28), (0.55, 0.30, 0.24), (0.70, 0.47, 0.36), (0.80, 0.74, 0.62), (0.86, 0.82, 0.74),
    (0.74, 0.72, 0.69), (0.60, 0.60, 0.60), (0.46, 0.46, 0.48), (0.90, 0.88, 0.85), (0.83, 0.70, 0.50),
    (0.78, 0.62, 0.52), (0.66, 0.70, 0.72), (0.72, 0.58, 0.45), (0.58, 0.62, 0.56), (0.80, 0.66, 0.62),
)  # fmt: skip
ROOF_COLOURS: tuple[Colour, ...] = (
    (0.52, 0.28, 0.22),
    (0.34, 0.31, 0.31),
    (0.44, 0.30, 0.25),
    (0.27, 0.29, 0.33),
)
_WALL = PART["facade"]
_CHIMNEY: Colour = (0.45, 0.27, 0.22)
ACCENTS: tuple[Colour, ...] = (
    (0.75, 0.13, 0.13), (0.12, 0.30, 0.60), (0.10, 0.42, 0.26), (0.85, 0.62, 0.10), (0.15, 0.15, 0.17),
    (0.90, 0.88, 0.84), (0.50, 0.16, 0.40), (0.85, 0.42, 0.12),
)  # fmt: skip

# Ground floors.
PLAIN_FLOOR, SHOP_FLOOR, DOOR_FLOOR = 0, 1, 2

# Columns of the facade table, in order. Lengths in metres, colours sRGB.
FACADE_COLUMNS = (
    "x", "z", "ux", "uz", "pitch", "storey", "ground", "storeys", "half_width", "half_height",
    "glass", "frame", "floor", "red", "green", "blue", "seed", "brick", "band", "lit", "base", "columns",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """Common properties of one building's faces."""

    wall: Colour
    storeys: int
    storey: float
    ground: float
    pitch: float
    half_width: float
    half_height: float
    glass: float
    frame: float
    floor: int
    accent: Colour
    brick: float
    band: float
    lit: float
    seed: int

    @property
    def height(self) -> float:
        """From the pavement to the eaves."""
        return self.ground + self.storeys * self.storey + 0.6


def draw_style(dice: Dice, low: int, high: int, shops: float) -> Style:
    """A building of between ``low`` and ``high`` storeys above its ground floor."""
    wall = dice.colour(dice.choice(WALL_COLOURS), 0.15)
    reddish = wall[0] > 1.35 * wall[2]
    modern = dice.chance(0.25)
    floor = SHOP_FLOOR if dice.chance(shops) else DOOR_FLOOR
    return Style(
        wall=wall,
        storeys=dice.integer(low, high),
        storey=dice.uniform(2.8, 3.6),
        ground=dice.uniform(3.4, 4.4) if floor == SHOP_FLOOR else dice.uniform(2.9, 3.5),
        pitch=dice.uniform(1.9, 3.6),
        half_width=dice.uniform(0.32, 0.47) if modern else dice.uniform(0.18, 0.33),
        half_height=dice.uniform(0.28, 0.42) if modern else dice.uniform(0.22, 0.33),
        glass=dice.uniform(0.10, 0.28),
        frame=dice.choice((0.9, 0.85, 0.2, 0.35)),
        floor=floor,
        accent=dice.colour(dice.choice(ACCENTS), 0.1),
        brick=dice.uniform(0.5, 1.0) if reddish else 0.0,
        band=dice.uniform(-0.25, 0.3) if dice.chance(0.6) else 0.0,
        lit=dice.uniform(0.0, 0.25),
        seed=dice.integer(0, 60000),
    )


def _facade(
    scene: Scene, style: Style, start: tuple[float, float], end: tuple[float, float], base: float, plain: bool
) -> int:
    """Row of the facade table for a wall from ``start`` to ``end`` (world X, Z)."""
    length = math.dist(start, end)
    columns = max(1, round(length / style.pitch))
    scene.facades.append(
        [
            start[0], start[1], (end[0] - start[0]) / length, (end[1] - start[1]) / length,
            length / columns, style.storey, style.ground, 0 if plain else style.storeys,
            style.half_width, style.half_height, style.glass, style.frame,
            PLAIN_FLOOR if plain else style.floor, *style.accent, style.seed,
            style.brick, style.band, style.lit, base, columns,
        ]
    )  # fmt: skip
    return len(scene.facades) - 1


def add_wall(
    scene: Scene,
    style: Style,
    start: tuple[float, float],
    end: tuple[float, float],
    base: float,
    behind: Point,
    instance: int,
    plain: bool = False,
) -> None:
    """One upright facade of the building."""
    row = _facade(scene, style, start, end, base, plain)
    surface = scene.surface(_WALL, style.wall, scene.group(), instance, Material.FACADE, row)
    top = base + style.height
    quad = [
        (start[0], base, start[1]),
        (end[0], base, end[1]),
        (end[0], top, end[1]),
        (start[0], top, start[1]),
    ]
    scene.add_quad(quad, behind, surface)


def add_building(
    scene: Scene, dice: Dice, side: int, z0: float, z1: float, style: Style, depth: float, gable: bool
) -> None:
    """A building on one side of the street from ``z0`` to ``z1``, ``depth`` metres deep."""
    street = scene.street
    sign = 1.0 if side else -1.0
    lateral = sign * street.front(side)
    base = street.kerb
    instance = scene.group()
    near, far = street.place(lateral, z0), street.place(lateral, z1)
    back_near, back_far = (near[0] + sign * depth, z0), (far[0] + sign * depth, z1)
    middle = (0.25 * (near[0] + far[0] + back_near[0] + back_far[0]), 1.0, 0.5 * (z0 + z1))
    add_wall(scene, style, near, far, base, middle, instance)
    add_wall(scene, style, near, back_near, base, middle, instance, plain=dice.chance(0.4))
    top = base + style.height
    if gable:
        _add_gable(scene, dice, (near, far, back_near, back_far), top, middle, style, instance)
    elif dice.chance(0.6):
        _add_cornice(scene, dice, near, far, sign, top, middle, style, instance)
    if dice.chance(0.25) and style.storeys >= 2 and z0 < 45:
        _add_balconies(scene, dice, near, far, sign, base, middle, style, instance)


def _add_gable(
    scene: Scene,
    dice: Dice,
    corners: tuple[tuple[float, float], ...],
    top: float,
    middle: Point,
    style: Style,
    instance: int,
) -> None:
    near, far, back_near, back_far = corners
    rise = dice.uniform(1.8, 3.6)
    ridge_near = (0.5 * (near[0] + back_near[0]), top + rise, near[1])
    ridge_far = (0.5 * (far[0] + back_far[0]), top + rise, far[1])
    colour = dice.colour(dice.choice(ROOF_COLOURS), 0.15)
    tiles = scene.surface(PART["roof"], colour, scene.group(), instance, Material.TILES)
    wall = scene.surface(_WALL, style.wall, scene.edge[-2], instance, Material.PLAIN)
    slope = [(near[0], top, near[1]), (far[0], top, far[1]), ridge_far, ridge_near]
    triangle = [(near[0], top, near[1]), (back_near[0], top, back_near[1]), ridge_near, ridge_near]
    scene.add_quad(slope, middle, tiles)
    scene.add_quad(triangle, middle, wall)
    if dice.chance(0.6):
        x, z = ridge_near[0], ridge_near[2] + dice.uniform(1.0, 3.0)
        stack = scene.surfaces([_WALL] * 2, [_CHIMNEY] * 2, [Material.BRICK] * 2, scene.group(), instance)
        low, high = top + 0.5 * rise, top + rise + 0.9
        front = [(x - 0.4, low, z), (x + 0.4, low, z), (x + 0.4, high, z), (x - 0.4, high, z)]
        inner = -0.4 if x > 0 else 0.4
        flank = [
            (x + inner, low, z),
            (x + inner, low, z + 0.7),
            (x + inner, high, z + 0.7),
            (x + inner, high, z),
        ]
        for face, surface in zip((front, flank), stack, strict=True):
            scene.add_quad(face, (x, low, z + 0.35), surface)


def _add_cornice(
    scene: Scene,
    dice: Dice,
    near: tuple[float, float],
    far: tuple[float, float],
    sign: float,
    top: float,
    middle: Point,
    style: Style,
    instance: int,
) -> None:
    """A ledge along the eaves."""
    out, drop = dice.uniform(0.2, 0.45), dice.uniform(0.25, 0.5)
    colour = dice.colour((0.8, 0.78, 0.74) if dice.chance(0.5) else style.wall, 0.1)
    ledge = scene.surfaces([_WALL] * 3, [colour] * 3, [Material.PLAIN] * 3, scene.group(), instance)
    x0, x1 = near[0] - sign * out, far[0] - sign * out
    face = [(x0, top - drop, near[1]), (x1, top - drop, far[1]), (x1, top, far[1]), (x0, top, near[1])]
    under = [
        (x0, top - drop, near[1]),
        (x1, top - drop, far[1]),
        (far[0], top - drop, far[1]),
        (near[0], top - drop, near[1]),
    ]
    end = [
        (x0, top - drop, near[1]),
        (near[0], top - drop, near[1]),
        (near[0], top, near[1]),
        (x0, top, near[1]),
    ]
    above = (middle[0], top + 5.0, middle[2])
    for quad, behind, surface in zip((face, under, end), (middle, above, middle), ledge, strict=True):
        scene.add_quad(quad, behind, surface)


def _add_balconies(
    scene: Scene,
    dice: Dice,
    near: tuple[float, float],
    far: tuple[float, float],
    sign: float,
    base: float,
    middle: Point,
    style: Style,
    instance: int,
) -> None:
    """Slabs with a parapet, one per storey, on part of the front."""
    start = dice.uniform(0.1, 0.5)
    stop = start + dice.uniform(0.2, 0.4)
    out, colour = dice.uniform(0.7, 1.2), dice.colour((0.75, 0.75, 0.75), 0.2)
    x0, x1 = (near[0] + t * (far[0] - near[0]) for t in (start, stop))
    z0, z1 = (near[1] + t * (far[1] - near[1]) for t in (start, stop))
    edge = scene.group()
    for storey in range(min(style.storeys, 5)):
        low = base + style.ground + storey * style.storey - 0.1
        high = low + 1.05
        slab = scene.surfaces([_WALL] * 3, [colour] * 3, [Material.PLAIN] * 3, edge, instance)
        a, b = x0 - sign * out, x1 - sign * out
        face = [(a, low, z0), (b, low, z1), (b, high, z1), (a, high, z0)]
        end = [(x0, low, z0), (a, low, z0), (a, high, z0), (x0, high, z0)]
        under = [(x0, low, z0), (a, low, z0), (b, low, z1), (x1, low, z1)]
        inside = (0.5 * (x0 + x1), 0.5 * (low + high), 0.5 * (z0 + z1))
        for quad, surface in zip((face, end, under), slab, strict=True):
            scene.add_quad(quad, inside, surface)


def add_end(scene: Scene, dice: Dice, low: int, high: int, shops: float) -> None:
    """Buildings across the far end of the street, facing the camera."""
    street = scene.street
    x, right = street.shift(street.end) - 48.0, street.shift(street.end) + 48.0
    while x < right:
        width = dice.uniform(9.0, 22.0)
        style = draw_style(dice, low, high, shops)
        start, end = (x, street.end), (x + width, street.end)
        add_wall(scene, style, start, end, street.kerb, (x, 1.0, street.end + 10.0), scene.group())
        x += width if dice.chance(0.8) else width + dice.uniform(2.0, 5.0)


def add_skyline(scene: Scene, dice: Dice, hazy: Colour) -> None:
    """Plain distant blocks that rise over the horizon."""
    x = -220.0
    while x < 220.0:
        width, z = dice.uniform(12.0, 40.0), dice.uniform(170.0, 260.0)
        height = dice.uniform(5.0, 20.0) if dice.chance(0.85) else dice.uniform(25.0, 45.0)
        block = scene.surface(PART["skyline"], dice.colour(hazy, 0.12), scene.group(), scene.group())
        quad = [(x, 0.0, z), (x + width, 0.0, z), (x + width, height, z), (x, height, z)]
        scene.add_quad(quad, (x, 0.0, z + 10.0), block)
        x += width * dice.uniform(0.7, 1.3)
