# SPDX-License-Identifier: Apache-2.0
"""Cars, vans, trucks and buses as prisms over a side profile, with flat details on their faces.

Local coordinates: x right, y up from the road, z forward, origin below the vehicle's centre. Shapes
come from a bank that is filled on demand; each vehicle adds its own paint.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edge_moe.scenes.dice import Dice
from edge_moe.scenes.geometry import (
    COLOURS,
    Colour,
    Material,
    Point,
    Polygons,
    Quad,
    Scene,
    box_faces,
    turn,
    upright,
)  # fmt: skip

GLASS: Colour = (0.12, 0.14, 0.16)
TRIM: Colour = (0.10, 0.10, 0.11)
RUBBER: Colour = (0.09, 0.09, 0.09)
_BANK_SEED = 4711
_VARIANTS = 96  # shapes per kind
_DETAIL_END = 32.0  # metres; farther vehicles lack small parts
_DECAL = 0.015  # metres between a detail and its face
_CIRCLE = [(math.cos(2 * math.pi * i / 10), math.sin(2 * math.pi * i / 10)) for i in range(10)]

Look = tuple[str, Colour | None, int]  # part, colour (None: the vehicle's paint), material
Face = tuple[list[Point], Point, Look]  # corners, a point on their back side, look


class _Body:
    """Faces of one vehicle in local coordinates."""

    def __init__(self, kind: str, detail: bool) -> None:
        self.kind = kind
        self.detail = detail
        self.quads: list[Face] = []
        self.discs: list[Face] = []

    def face(
        self,
        quad: Quad,
        behind: Point,
        part: str = "body",
        colour: Colour | None = None,
        material: int = Material.PAINT,
    ) -> None:
        self.quads.append((quad, behind, (f"{self.kind}_{part}", colour, material)))

    def trim(self, quad: Quad, behind: Point, colour: Colour = TRIM) -> None:
        self.face(quad, behind, "trim", colour, Material.PLAIN)

    def glass(self, quad: Quad, behind: Point) -> None:
        self.face(quad, behind, "glass", GLASS, Material.GLASS)

    def wheels(self, half: float, axles: Sequence[float], radius: float, width: float, rim: Colour) -> None:
        for x in (-half, half):
            for z in axles:
                self._wheel(x, z, radius, width, rim)

    def _wheel(self, x: float, z: float, radius: float, width: float, rim: Colour) -> None:
        sign = 1.0 if x > 0 else -1.0
        inner = (0.0, radius, z)
        rings = ((0.02, 1.0, RUBBER), (0.035, 0.62, rim), (0.045, 0.18, TRIM))
        for offset, size, colour in rings if self.detail else rings[:2]:
            ring = [(x + sign * offset, radius * (1 + size * s), z + radius * size * c) for c, s in _CIRCLE]
            self.discs.append((ring, inner, (f"{self.kind}_wheel", colour, Material.PLAIN)))
        if self.detail:
            a, b = sorted((x, x - sign * width))
            for face in box_faces(a, b, 0.02, 1.5 * radius, z - 0.8 * radius, z + 0.8 * radius)[:2]:
                self.face(face, inner, "wheel", RUBBER, Material.PLAIN)


def _across(low: Point, high: Point) -> Quad:
    """A symmetric face from the edge between (-x, y, z) and (x, y, z) of ``low`` to that of ``high``."""
    (a, ya, za), (b, yb, zb) = low, high
    return [(-a, ya, za), (a, ya, za), (b, yb, zb), (-b, yb, zb)]


def _inset(quad: Quad, left: float, right: float, low: float, high: float, off: Point) -> Quad:
    """Part of a face in its own bilinear coordinates (from its first corner to its third), moved off it."""
    result: Quad = []
    for s, t in ((left, low), (right, low), (right, high), (left, high)):
        wa, wb, wc, wd = (1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t
        x, y, z = (
            wa * a + wb * b + wc * c + wd * d + move for a, b, c, d, move in zip(*quad, off, strict=True)
        )
        result.append((x, y, z))
    return result


def _prism(
    body: _Body, profile: list[tuple[float, float]], half: float, centre: Point, under: float, inner: int = -1
) -> None:
    """Faces over consecutive profile points (z, y), as wide as the body; ``inner`` is left out."""
    for i, ((za, ya), (zb, yb)) in enumerate(pairwise(profile)):
        if i != inner:
            body.face(_across((half, ya, za), (half, yb, zb)), centre)
    for x in (-half, half):
        for (za, ya), (zb, yb) in pairwise(profile[1:-1]):
            if abs(za - zb) > 0.05:
                flank = [(x, under, za), (x, under, zb), (x, yb, zb), (x, ya, za)]
                body.face(flank, (0.0, under, 0.5 * (za + zb)))


def _ends(
    body: _Body, half: float, front: float, rear: float, low: float, light: float, centre: Point
) -> None:
    """Bumpers, lights and plates at both ends."""

    def plate(wide: float, y0: float, y1: float, at: float) -> Quad:
        return _across((wide, y0, at), (wide, y1, at))

    for z, sign, colour in ((front, 1.0, (0.92, 0.92, 0.85)), (rear, -1.0, (0.70, 0.05, 0.05))):
        at = z + sign * _DECAL
        for x in (-1.0, 1.0):
            a, b = sorted((x * (half - 0.05), x * (half - 0.38)))
            lamp = upright((a, at), (b, at), light - 0.09, light + 0.09)
            body.face(lamp, centre, "light", colour, Material.PLAIN)
        if not body.detail:
            continue
        body.trim(plate(half, low, low + 0.17, at), centre)
        at += sign * _DECAL
        y = low + 0.28
        body.trim(plate(0.26, y - 0.06, y + 0.06, at), centre, (0.9, 0.9, 0.86))
        if sign > 0:
            body.trim(plate(0.45, light - 0.14, light + 0.06, at), centre)


def _car(dice: Dice, detail: bool) -> tuple[_Body, float, float, float]:
    shape = dice.choice(("hatch", "sedan", "suv", "wagon"))
    length = {"hatch": 3.9, "sedan": 4.6, "suv": 4.5, "wagon": 4.6}[shape] * dice.uniform(0.95, 1.06)
    half = dice.uniform(0.86, 0.94) + (0.04 if shape == "suv" else 0.0)
    height = (1.72 if shape == "suv" else 1.46) * dice.uniform(0.97, 1.05)
    low, belt = (0.30 if shape == "suv" else 0.22), 0.63 * height
    front, rear = length / 2, -length / 2
    hood = front - length * dice.uniform(0.22, 0.27)
    roof_front = hood - length * dice.uniform(0.13, 0.17)
    deck = {"sedan": rear + 0.17 * length}.get(shape, rear + 0.04)
    roof_rear = deck + length * {"sedan": 0.14, "hatch": 0.09, "suv": 0.06, "wagon": 0.08}[shape]
    top = 0.80 * half
    body = _Body("car", detail)
    centre = (0.0, 0.45 * height, 0.0)
    profile = [
        (front, low), (front - 0.06, belt - 0.17), (hood, belt), (deck, belt), (rear + 0.03, belt - 0.06),
        (rear, low),
    ]  # fmt: skip
    _prism(body, profile, half, centre, low, inner=2)  # the cabin is on the third
    body.face(_across((top, height, roof_front), (top, height, roof_rear)), centre)
    for base, roof, sign in ((hood, roof_front, 1.0), (deck, roof_rear, -1.0)):
        pane = _across((half, belt, base), (top, height, roof))
        body.face(pane, centre)
        body.glass(_inset(pane, 0.06, 0.94, 0.06, 0.90, (0.0, _DECAL, sign * _DECAL)), centre)
    for sign in (-1.0, 1.0):
        x, x_top = sign * half, sign * top
        side: Quad = [
            (x, belt, deck), (x, belt, hood), (x_top, height, roof_front), (x_top, height, roof_rear)
        ]  # fmt: skip
        body.face(side, centre)
        off = (sign * _DECAL, 0.004, 0.0)
        split = dice.uniform(0.46, 0.52)
        body.glass(_inset(side, 0.07, split - 0.015, 0.08, 0.86, off), centre)
        body.glass(_inset(side, split + 0.015, 0.92, 0.08, 0.86, off), centre)
        if detail:
            x = sign * (half + _DECAL)
            body.trim(upright((x, rear + 0.15), (x, front - 0.15), low, low + 0.1), centre)
    _ends(body, half, front - 0.03, rear, low, belt - 0.26, centre)
    rim, axle = dice.colour((0.62, 0.63, 0.65), 0.2), 0.295 * length
    body.wheels(half, (axle, -axle), 0.36 if shape == "suv" else 0.32, 0.2, rim)
    return body, length, half, height


def _boxy(dice: Dice, kind: str, detail: bool) -> tuple[_Body, float, float, float]:
    """Vans and buses: one volume with a slanted or upright front."""
    bus = kind == "bus"
    length = dice.uniform(9.5, 12.5) if bus else dice.uniform(4.6, 5.9)
    half = 1.25 if bus else dice.uniform(0.95, 1.02)
    height = dice.uniform(2.9, 3.2) if bus else dice.uniform(1.95, 2.6)
    low, belt = 0.32, (1.15 if bus else 0.46 * height)
    front, rear = length / 2, -length / 2
    nose, brow = (front - 0.04, front - 0.12) if bus else (front - 0.75, front - 1.45)
    body = _Body(kind, detail)
    centre = (0.0, 0.45 * height, -0.2)
    bumper = (front - 0.02, belt if bus else belt - 0.2)
    profile = [(front, low), bumper, (nose, belt), (brow, height), (rear, height), (rear, low)]
    _prism(body, profile, half, centre, low)
    shield = _across((half, belt, nose), (half, height, brow))
    body.glass(_inset(shield, 0.05, 0.95, 0.05, 0.80 if bus else 0.92, (0.0, _DECAL, _DECAL)), centre)
    back = _across((half, low, rear), (half, height, rear))
    body.glass(_inset(back, 0.1, 0.9, 0.55, 0.88, (0.0, 0.0, -_DECAL)), centre)
    for x in (-half - _DECAL, half + _DECAL):
        y0, y1 = belt + 0.05, height - (0.55 if bus else 0.25)
        panes = 7 if bus else dice.choice((1, 1, 3))
        end = nose - 0.35 if bus else nose - 0.55
        width = 1.35 if bus else 0.95
        for pane in range(panes):
            z1 = end - pane * (width + 0.12)
            body.glass(upright((x, z1 - width), (x, z1), y0, y1), centre)
        body.trim(upright((x, rear), (x, front - 0.1), low, low + 0.16), centre)
    _ends(body, half, front, rear, low, low + 0.45, centre)
    body.wheels(half, (0.29 * length, -0.29 * length), 0.48 if bus else 0.34, 0.3, (0.45, 0.45, 0.47))
    return body, length, half, height


def _truck(dice: Dice, detail: bool) -> tuple[_Body, float, float, float]:
    length, half, height = dice.uniform(6.2, 8.5), dice.uniform(1.1, 1.25), dice.uniform(2.9, 3.6)
    low, belt, cab_top = 0.45, 1.45, dice.uniform(2.35, 2.7)
    front, rear = length / 2, -length / 2
    cab = front - 1.75
    body = _Body("truck", detail)
    centre = (0.0, 1.2, front - 0.9)
    profile = [(front, low), (front, belt), (front - 0.3, cab_top), (cab, cab_top), (cab, low)]
    _prism(body, profile, half, centre, low)
    shield = _across((half, belt, front), (half, cab_top, front - 0.3))
    body.glass(_inset(shield, 0.06, 0.94, 0.08, 0.85, (0.0, _DECAL, _DECAL)), centre)
    y = cab_top - 0.2
    for x in (-half - _DECAL, half + _DECAL):
        pane = [(x, belt, cab + 0.45), (x, belt, front - 0.3), (x, y, front - 0.45), (x, y, cab + 0.45)]
        body.glass(pane, centre)
    cargo = dice.colour(dice.choice(((0.9, 0.9, 0.88), (0.75, 0.76, 0.78), *COLOURS["paints"][5:11])), 0.1)
    hold = (0.0, 0.5 * height, 0.5 * (cab + rear))
    for face in box_faces(-half - 0.05, half + 0.05, 0.95, height, rear, cab - 0.12):
        body.face(face, hold, "cargo", cargo, Material.PLAIN)
    for face in box_faces(-half + 0.25, half - 0.25, 0.4, 0.95, rear + 0.1, cab)[:4]:
        body.trim(face, hold)
    _ends(body, half, front, rear, low + 0.05, low + 0.4, (0.0, 1.2, 0.0))
    body.wheels(half, (front - 0.95, rear + 1.3), 0.45, 0.35, (0.5, 0.5, 0.52))
    return body, length, half, height


@dataclass(frozen=True)
class _Shape:
    """A finished vehicle: all its points in one array, so that placing it is one rotation.

    The points are the corners of the quads (4 each), their points behind, the corners of the discs (10
    each), their points behind, the hull and the ground rectangle; ``ends`` is where each but the last ends.
    """

    points: npt.NDArray[np.float64]
    ends: npt.NDArray[np.int64]
    looks: list[Look]  # of quads, then of discs


@functools.lru_cache(maxsize=4 * _VARIANTS)
def _shape(kind: str, variant: int, detail: bool) -> _Shape:
    dice = Dice(np.random.default_rng([_BANK_SEED, variant]))
    if kind == "car":
        body, length, half, height = _car(dice, detail)
    elif kind == "truck":
        body, length, half, height = _truck(dice, detail)
    else:
        body, length, half, height = _boxy(dice, kind, detail)
    hull = [(a * half, y, b * length / 2) for a in (-1, 1) for b in (-1, 1) for y in (0.1, 0.6 * height)]
    hull += [(a * 0.85 * half, height, b * length * 0.3) for a in (-1, 1) for b in (-1, 1)]
    pad = [(a * half, 0.0, a * b * length / 2) for a, b in ((-1, 1), (1, -1), (1, 1), (-1, -1))]
    quads, behind, looks = zip(*body.quads, strict=True)
    discs, disc_behind, disc_looks = zip(*body.discs, strict=True)
    groups = (quads, behind, discs, disc_behind, hull, pad)
    parts = [np.array(group, np.float64).reshape(-1, 3) for group in groups]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return _Shape(np.concatenate(parts), ends, [*looks, *disc_looks])


def _paint(dice: Dice, kind: str) -> Colour:
    paints = COLOURS["paints"]
    if kind == "bus":
        return dice.colour(dice.choice(paints[5:13]), 0.1)
    if kind == "van" and dice.chance(0.5):
        return dice.colour(paints[0], 0.08)
    return dice.colour(dice.choice(paints), 0.12)


def add_vehicle(scene: Scene, dice: Dice, kind: str, x: float, z: float, heading: float) -> None:
    """A vehicle at a point in road coordinates; heading 0 drives along +z, positive turns right."""
    shape = _shape(kind, dice.integer(0, _VARIANTS - 1), z < _DETAIL_END)
    paint = _paint(dice, kind)
    street = scene.street
    points = turn(shape.points, heading + math.atan(street.bend * z), (x + street.shift(z), 0.0, z))
    owner = scene.group()
    scene.foreground.append(owner)
    ids = [scene.surface(part, colour or paint, material, owner) for part, colour, material in shape.looks]
    quads, behind, discs, disc_behind, hull, pad = np.split(points, shape.ends)
    scene.quads.append(Polygons(quads.reshape(-1, 4, 3), behind, np.array(ids[: len(behind)])))
    scene.discs.append(Polygons(discs.reshape(-1, 10, 3), disc_behind, np.array(ids[len(behind) :])))
    scene.hulls.append(hull)
    scene.contacts.append(pad)
