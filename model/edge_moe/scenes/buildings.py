# SPDX-License-Identifier: Apache-2.0
"""Buildings along the street, across its end and on the horizon."""

import math
from dataclasses import dataclass

from edge_moe.scenes.dice import Dice
from edge_moe.scenes.geometry import COLOURS, Colour, Material, Place, Point, Scene, upright

_CHIMNEY: Colour = (0.45, 0.27, 0.22)
_HAZY: Colour = (0.55, 0.56, 0.58)  # the skyline

# Ground floors.
PLAIN_FLOOR, SHOP_FLOOR, DOOR_FLOOR = 0, 1, 2


@dataclass(frozen=True)
class Style:
    """Common properties of one building's faces: lengths in metres, colours sRGB."""

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
    wall = dice.colour(dice.choice(COLOURS["walls"]), 0.15)
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
        accent=dice.colour(dice.choice(COLOURS["accents"]), 0.1),
        brick=dice.uniform(0.5, 1.0) if reddish else 0.0,
        band=dice.uniform(-0.25, 0.3) if dice.chance(0.6) else 0.0,
        lit=dice.uniform(0.0, 0.25),
        seed=dice.integer(0, 60000),
    )


def add_wall(
    scene: Scene, style: Style, start: Place, end: Place, base: float, behind: Point, plain: bool = False
) -> None:
    """One upright facade of the building, and its row of the facade table."""
    length = math.dist(start, end)
    row = {
        **vars(style),
        "x": start[0],
        "z": start[1],
        "ux": (end[0] - start[0]) / length,
        "uz": (end[1] - start[1]) / length,
        "pitch": length / max(1, round(length / style.pitch)),
        "base": base,
    }
    if plain:
        row |= {"storeys": 0, "floor": PLAIN_FLOOR}
    scene.facades.append(row)
    quad, number = upright(start, end, base, base + style.height), len(scene.facades) - 1
    scene.add_quad(quad, behind, "facade", style.wall, Material.FACADE, facade=number)


def add_building(
    scene: Scene, dice: Dice, side: int, z0: float, z1: float, style: Style, depth: float, gable: bool
) -> None:
    """A building on one side of the street from ``z0`` to ``z1``, ``depth`` metres deep."""
    street = scene.street
    sign = 1.0 if side else -1.0
    lateral = sign * street.front(side)
    base = street.kerb
    near, far = street.place(lateral, z0), street.place(lateral, z1)
    back_near, back_far = (near[0] + sign * depth, z0), (far[0] + sign * depth, z1)
    middle = (0.25 * (near[0] + far[0] + back_near[0] + back_far[0]), 1.0, 0.5 * (z0 + z1))
    add_wall(scene, style, near, far, base, middle)
    add_wall(scene, style, near, back_near, base, middle, plain=dice.chance(0.4))
    top = base + style.height
    if gable:
        _add_gable(scene, dice, (near, far, back_near, back_far), top, middle, style.wall)
    elif dice.chance(0.6):
        _add_cornice(scene, dice, near, far, sign, top, middle, style.wall)
    if dice.chance(0.25) and style.storeys >= 2 and z0 < 45:
        _add_balconies(scene, dice, near, far, sign, base, style)


def _add_gable(
    scene: Scene, dice: Dice, corners: tuple[Place, ...], top: float, middle: Point, wall: Colour
) -> None:
    near, far, back_near, back_far = corners
    rise = dice.uniform(1.8, 3.6)
    ridge_near = (0.5 * (near[0] + back_near[0]), top + rise, near[1])
    ridge_far = (0.5 * (far[0] + back_far[0]), top + rise, far[1])
    flank = scene.owner[-1]
    slope = [(near[0], top, near[1]), (far[0], top, far[1]), ridge_far, ridge_near]
    triangle = [(near[0], top, near[1]), (back_near[0], top, back_near[1]), ridge_near, ridge_near]
    scene.add_quad(slope, middle, "roof", dice.colour(dice.choice(COLOURS["roofs"]), 0.15), Material.TILES)
    scene.add_quad(triangle, middle, "facade", wall, owner=flank)
    if dice.chance(0.6):
        x, z = ridge_near[0], ridge_near[2] + dice.uniform(1.0, 3.0)
        stack, low, high = scene.group(), top + 0.5 * rise, top + rise + 0.9
        inner = x - 0.4 if x > 0 else x + 0.4
        for start, end in (((x - 0.4, z), (x + 0.4, z)), ((inner, z), (inner, z + 0.7))):
            face = upright(start, end, low, high)
            scene.add_quad(face, (x, low, z + 0.35), "facade", _CHIMNEY, Material.BRICK, stack)


def _add_cornice(
    scene: Scene, dice: Dice, near: Place, far: Place, sign: float, top: float, middle: Point, wall: Colour
) -> None:
    """A ledge along the eaves."""
    out, low = dice.uniform(0.2, 0.45), top - dice.uniform(0.25, 0.5)
    colour = dice.colour((0.8, 0.78, 0.74) if dice.chance(0.5) else wall, 0.1)
    (xn, zn), (xf, zf) = near, far
    x0, x1 = xn - sign * out, xf - sign * out
    face, end = upright((x0, zn), (x1, zf), low, top), upright((x0, zn), near, low, top)
    under = [(x0, low, zn), (x1, low, zf), (xf, low, zf), (xn, low, zn)]
    above, ledge = (middle[0], top + 5.0, middle[2]), scene.group()
    for quad, behind in ((face, middle), (under, above), (end, middle)):
        scene.add_quad(quad, behind, "facade", colour, owner=ledge)


def _add_balconies(
    scene: Scene, dice: Dice, near: Place, far: Place, sign: float, base: float, style: Style
) -> None:
    """Slabs with a parapet, one per storey, on part of the front."""
    start = dice.uniform(0.1, 0.5)
    stop = start + dice.uniform(0.2, 0.4)
    out, colour = dice.uniform(0.7, 1.2), dice.colour((0.75, 0.75, 0.75), 0.2)
    x0, x1 = (near[0] + t * (far[0] - near[0]) for t in (start, stop))
    z0, z1 = (near[1] + t * (far[1] - near[1]) for t in (start, stop))
    a, b = x0 - sign * out, x1 - sign * out
    owner = scene.group()
    for storey in range(min(style.storeys, 5)):
        low = base + style.ground + storey * style.storey - 0.1
        high = low + 1.05
        face, end = upright((a, z0), (b, z1), low, high), upright((x0, z0), (a, z0), low, high)
        under = [(x0, low, z0), (a, low, z0), (b, low, z1), (x1, low, z1)]
        inside = (0.5 * (x0 + x1), 0.5 * (low + high), 0.5 * (z0 + z1))
        for quad in (face, end, under):
            scene.add_quad(quad, inside, "facade", colour, owner=owner)


def add_end(scene: Scene, dice: Dice, low: int, high: int, shops: float) -> None:
    """Buildings across the far end of the street, facing the camera."""
    street = scene.street
    x, right = street.shift(street.end) - 48.0, street.shift(street.end) + 48.0
    while x < right:
        width = dice.uniform(9.0, 22.0)
        style = draw_style(dice, low, high, shops)
        start, end = (x, street.end), (x + width, street.end)
        add_wall(scene, style, start, end, street.kerb, (x, 1.0, street.end + 10.0))
        x += width if dice.chance(0.8) else width + dice.uniform(2.0, 5.0)


def add_skyline(scene: Scene, dice: Dice) -> None:
    """Plain distant blocks that rise over the horizon."""
    x = -220.0
    while x < 220.0:
        width, z = dice.uniform(12.0, 40.0), dice.uniform(170.0, 260.0)
        height = dice.uniform(5.0, 20.0) if dice.chance(0.85) else dice.uniform(25.0, 45.0)
        quad = upright((x, z), (x + width, z), 0.0, height)
        scene.add_quad(quad, (x, 0.0, z + 10.0), "skyline", dice.colour(_HAZY, 0.12))
        x += width * dice.uniform(0.7, 1.3)
