# SPDX-License-Identifier: Apache-2.0
"""Cars, vans, trucks and buses as prisms over a side profile, with flat details on their faces.

Local coordinates: x right, y up from the road, z forward, origin below the vehicle's centre. Shapes
come from a bank that is filled on demand; each vehicle adds its own paint.
"""

import functools
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edge_moe.scenes.dice import Dice
from edge_moe.scenes.geometry import Colour, Material, Point, Polygons, Scene, box_faces, turn
from edge_moe.scenes.labels import PART

PAINTS: tuple[Colour, ...] = (
    (0.90, 0.90, 0.90), (0.72, 0.74, 0.76), (0.45, 0.46, 0.48), (0.18, 0.19, 0.21), (0.08, 0.08, 0.09),
    (0.62, 0.08, 0.08), (0.10, 0.20, 0.50), (0.15, 0.30, 0.60), (0.09, 0.26, 0.20), (0.75, 0.65, 0.45),
    (0.80, 0.45, 0.08), (0.80, 0.70, 0.10), (0.45, 0.62, 0.70), (0.35, 0.10, 0.15),
)  # fmt: skip
GLASS: Colour = (0.12, 0.14, 0.16)
TRIM: Colour = (0.10, 0.10, 0.11)
RUBBER: Colour = (0.09, 0.09, 0.09)
_BANK_SEED = 4711
_VARIANTS = 96  # shapes per kind
_DETAIL_END = 32.0  # metres; farther vehicles lack small parts
_DECAL = 0.015  # metres between a detail and its face
_CIRCLE = [(math.cos(2 * math.pi * i / 10), math.sin(2 * math.pi * i / 10)) for i in range(10)]

Quad = list[Point]
Look = tuple[int, Colour | None, int]  # part, colour, material


class _Body:
    """Faces of one vehicle in local coordinates; the colour None is its paint."""

    def __init__(self, kind: str, detail: bool) -> None:
        self.kind = kind
        self.detail = detail
        self.quads: list[Quad] = []
        self.behind: list[Point] = []
        self.discs: list[Quad] = []
        self.disc_behind: list[Point] = []
        self.looks: list[Look] = []  # of quads
        self.disc_looks: list[Look] = []

    def face(
        self,
        quad: Quad,
        behind: Point,
        part: str = "body",
        colour: Colour | None = None,
        material: int = Material.PAINT,
    ) -> None:
        self.quads.append(quad)
        self.behind.append(behind)
        self.looks.append((PART[f"{self.kind}_{part}"], colour, int(material)))

    def glass(self, quad: Quad, behind: Point) -> None:
        self.face(quad, behind, "glass", GLASS, Material.GLASS)

    def wheel(self, x: float, z: float, radius: float, width: float, rim: Colour) -> None:
        sign = 1.0 if x > 0 else -1.0
        inner = (0.0, radius, z)
        rings = ((0.02, 1.0, RUBBER), (0.035, 0.62, rim), (0.045, 0.18, TRIM))
        for offset, size, colour in rings if self.detail else rings[:2]:
            ring = [(x + sign * offset, radius * (1 + size * s), z + radius * size * c) for c, s in _CIRCLE]
            self.discs.append(ring)
            self.disc_looks.append((PART[f"{self.kind}_wheel"], colour, int(Material.PLAIN)))
            self.disc_behind.append(inner)
        if not self.detail:
            return
        a, b = sorted((x, x - sign * width))
        for face in box_faces(a, b, 0.02, 1.5 * radius, z - 0.8 * radius, z + 0.8 * radius)[:2]:
            self.face(face, inner, "wheel", RUBBER, Material.PLAIN)


def _inset(
    quad: Quad, left: float, right: float, low: float, high: float, off: tuple[float, float, float]
) -> Quad:
    """Part of a face in its own bilinear coordinates (from its first corner to its third), moved off it."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz), (dx, dy, dz) = quad
    result: Quad = []
    for s, t in ((left, low), (right, low), (right, high), (left, high)):
        wa, wb, wc, wd = (1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t
        result.append(
            (
                wa * ax + wb * bx + wc * cx + wd * dx + off[0],
                wa * ay + wb * by + wc * cy + wd * dy + off[1],
                wa * az + wb * bz + wc * cz + wd * dz + off[2],
            )
        )
    return result


def _prism(
    body: _Body, profile: list[tuple[float, float]], half: float, centre: Point, under: float, inner: int = -1
) -> None:
    """Faces over consecutive profile points (z, y), as wide as the body; ``inner`` is left out."""
    for i, ((za, ya), (zb, yb)) in enumerate(pairwise(profile)):
        if i != inner:
            body.face([(-half, ya, za), (half, ya, za), (half, yb, zb), (-half, yb, zb)], centre)
    for x in (-half, half):
        for (za, ya), (zb, yb) in pairwise(profile[1:-1]):
            if abs(za - zb) > 0.05:
                body.face(
                    [(x, under, za), (x, under, zb), (x, yb, zb), (x, ya, za)], (0.0, under, 0.5 * (za + zb))
                )


def _ends(
    body: _Body, half: float, front: float, rear: float, low: float, light: float, centre: Point, detail: bool
) -> None:
    """Bumpers, lights and plates at both ends."""
    for z, sign, colour in ((front, 1.0, (0.92, 0.92, 0.85)), (rear, -1.0, (0.70, 0.05, 0.05))):
        at = z + sign * _DECAL
        for x in (-1.0, 1.0):
            a, b = sorted((x * (half - 0.05), x * (half - 0.38)))
            lamp = [
                (a, light - 0.09, at),
                (b, light - 0.09, at),
                (b, light + 0.09, at),
                (a, light + 0.09, at),
            ]
            body.face(lamp, centre, "light", colour, Material.PLAIN)
        if not detail:
            continue
        bumper = [(-half, low, at), (half, low, at), (half, low + 0.17, at), (-half, low + 0.17, at)]
        body.face(bumper, centre, "trim", TRIM, Material.PLAIN)
        at += sign * _DECAL
        y = low + 0.28
        plate = [(-0.26, y - 0.06, at), (0.26, y - 0.06, at), (0.26, y + 0.06, at), (-0.26, y + 0.06, at)]
        body.face(plate, centre, "trim", (0.9, 0.9, 0.86), Material.PLAIN)
        if sign > 0:
            grille = [
                (-0.45, light - 0.14, at),
                (0.45, light - 0.14, at),
                (0.45, light + 0.06, at),
                (-0.45, light + 0.06, at),
            ]
            body.face(grille, centre, "trim", TRIM, Material.PLAIN)


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
        (front, low),
        (front - 0.06, belt - 0.17),
        (hood, belt),
        (deck, belt),
        (rear + 0.03, belt - 0.06),
        (rear, low),
    ]
    _prism(body, profile, half, centre, low, inner=2)  # the cabin is on the third
    shield: Quad = [
        (-half, belt, hood),
        (half, belt, hood),
        (top, height, roof_front),
        (-top, height, roof_front),
    ]
    back: Quad = [
        (-half, belt, deck),
        (half, belt, deck),
        (top, height, roof_rear),
        (-top, height, roof_rear),
    ]
    body.face(
        [
            (-top, height, roof_front),
            (top, height, roof_front),
            (top, height, roof_rear),
            (-top, height, roof_rear),
        ],
        centre,
    )
    for quad, sign in ((shield, 1.0), (back, -1.0)):
        body.face(quad, centre)
        body.glass(_inset(quad, 0.06, 0.94, 0.06, 0.90, (0.0, _DECAL, sign * _DECAL)), centre)
    for sign in (-1.0, 1.0):
        side: Quad = [
            (sign * half, belt, deck),
            (sign * half, belt, hood),
            (sign * top, height, roof_front),
            (sign * top, height, roof_rear),
        ]
        body.face(side, centre)
        off = (sign * _DECAL, 0.004, 0.0)
        split = dice.uniform(0.46, 0.52)
        body.glass(_inset(side, 0.07, split - 0.015, 0.08, 0.86, off), centre)
        body.glass(_inset(side, split + 0.015, 0.92, 0.08, 0.86, off), centre)
        if detail:
            z0, z1, x = rear + 0.15, front - 0.15, sign * (half + _DECAL)
            sill = [(x, low, z0), (x, low, z1), (x, low + 0.1, z1), (x, low + 0.1, z0)]
            body.face(sill, centre, "trim", TRIM, Material.PLAIN)
    _ends(body, half, front - 0.03, rear, low, belt - 0.26, centre, detail)
    radius = 0.36 if shape == "suv" else 0.32
    rim = dice.colour((0.62, 0.63, 0.65), 0.2)
    axle = 0.295 * length
    for x in (-half, half):
        for z in (axle, -axle):
            body.wheel(x, z, radius, 0.2, rim)
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
    profile = [
        (front, low),
        (front - 0.02, belt - (0.0 if bus else 0.2)),
        (nose, belt),
        (brow, height),
        (rear, height),
        (rear, low),
    ]
    _prism(body, profile, half, centre, low)
    shield: Quad = [(-half, belt, nose), (half, belt, nose), (half, height, brow), (-half, height, brow)]
    body.glass(_inset(shield, 0.05, 0.95, 0.05, 0.80 if bus else 0.92, (0.0, _DECAL, _DECAL)), centre)
    rear_quad: Quad = [(-half, low, rear), (half, low, rear), (half, height, rear), (-half, height, rear)]
    body.glass(_inset(rear_quad, 0.1, 0.9, 0.55, 0.88, (0.0, 0.0, -_DECAL)), centre)
    for sign in (-1.0, 1.0):
        x = sign * (half + _DECAL)
        y0, y1 = belt + 0.05, height - (0.55 if bus else 0.25)
        panes = 7 if bus else dice.choice((1, 1, 3))
        end = nose - 0.35 if bus else nose - 0.55
        width = 1.35 if bus else 0.95
        for pane in range(panes):
            z1 = end - pane * (width + 0.12)
            body.glass([(x, y0, z1 - width), (x, y0, z1), (x, y1, z1), (x, y1, z1 - width)], centre)
        stripe: Quad = [
            (x, low, rear),
            (x, low, front - 0.1),
            (x, low + 0.16, front - 0.1),
            (x, low + 0.16, rear),
        ]
        body.face(stripe, centre, "trim", TRIM, Material.PLAIN)
    _ends(body, half, front, rear, low, low + 0.45, centre, detail)
    radius = 0.48 if bus else 0.34
    for x in (-half, half):
        for z in (0.29 * length, -0.29 * length):
            body.wheel(x, z, radius, 0.3, (0.45, 0.45, 0.47))
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
    shield: Quad = [
        (-half, belt, front),
        (half, belt, front),
        (half, cab_top, front - 0.3),
        (-half, cab_top, front - 0.3),
    ]
    body.glass(_inset(shield, 0.06, 0.94, 0.08, 0.85, (0.0, _DECAL, _DECAL)), centre)
    for sign in (-1.0, 1.0):
        x = sign * (half + _DECAL)
        pane: Quad = [
            (x, belt, cab + 0.45),
            (x, belt, front - 0.3),
            (x, cab_top - 0.2, front - 0.45),
            (x, cab_top - 0.2, cab + 0.45),
        ]
        body.glass(pane, centre)
    cargo = dice.colour(dice.choice(((0.9, 0.9, 0.88), (0.75, 0.76, 0.78), *PAINTS[5:11])), 0.1)
    hold = (0.0, 0.5 * height, 0.5 * (cab + rear))
    for face in box_faces(-half - 0.05, half + 0.05, 0.95, height, rear, cab - 0.12):
        body.face(face, hold, "cargo", cargo, Material.PLAIN)
    for face in box_faces(-half + 0.25, half - 0.25, 0.4, 0.95, rear + 0.1, cab)[:4]:
        body.face(face, hold, "trim", TRIM, Material.PLAIN)
    _ends(body, half, front, rear, low + 0.05, low + 0.4, (0.0, 1.2, 0.0), detail)
    for x in (-half, half):
        for z in (front - 0.95, rear + 1.3):
            body.wheel(x, z, 0.45, 0.35, (0.5, 0.5, 0.52))
    return body, length, half, height


@dataclass(frozen=True)
class _Shape:
    """A finished vehicle: all its points in one array, so that placing it is one rotation."""

    points: npt.NDArray[np.float64]
    quads: int
    discs: int
    parts: list[int]
    colours: list[Colour | None]
    materials: list[int]


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
    parts = [body.quads, body.behind, body.discs, body.disc_behind, hull, pad]
    points = np.concatenate([np.array(part, np.float64).reshape(-1, 3) for part in parts])
    looks = body.looks + body.disc_looks
    return _Shape(
        points, len(body.quads), len(body.discs), *(list(values) for values in zip(*looks, strict=True))
    )


def _paint(dice: Dice, kind: str) -> Colour:
    if kind == "bus":
        return dice.colour(dice.choice(PAINTS[5:13]), 0.1)
    if kind == "van" and dice.chance(0.5):
        return dice.colour(PAINTS[0], 0.08)
    return dice.colour(dice.choice(PAINTS), 0.12)


def add_vehicle(scene: Scene, dice: Dice, kind: str, x: float, z: float, heading: float) -> None:
    """A vehicle at a point in road coordinates; heading 0 drives along +z, positive turns right."""
    shape = _shape(kind, dice.integer(0, _VARIANTS - 1), z < _DETAIL_END)
    paint = _paint(dice, kind)
    street = scene.street
    place = street.place(x, z)
    points = turn(shape.points, heading + math.atan(street.bend * z), (place[0], 0.0, place[1]))
    instance = scene.group()
    scene.foreground.append(instance)
    colours = [colour or paint for colour in shape.colours]
    ids = np.array(scene.surfaces(shape.parts, colours, shape.materials, instance, instance))
    q, d = shape.quads, shape.discs
    discs = 5 * q  # start of the discs' corners, after the quads' corners and reference points
    rest = discs + 11 * d
    scene.quads.append(Polygons(points[: 4 * q].reshape(q, 4, 3), points[4 * q : discs], ids[:q]))
    corners = points[discs : discs + 10 * d].reshape(d, 10, 3)
    scene.discs.append(Polygons(corners, points[discs + 10 * d : rest], ids[q:]))
    scene.hulls.append(points[rest : rest + 12])
    scene.contacts.append(points[rest + 12 :])
