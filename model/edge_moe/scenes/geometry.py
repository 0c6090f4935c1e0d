# SPDX-License-Identifier: Apache-2.0
"""Camera and scene description: surfaces and the primitives that show them.

World: X right, Y up, Z forward along the street at the camera, metres. Camera: x right, y down,
z forward (the optical axis). Pixel centres have integer coordinates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_moe.scenes.labels import PART, read_table

# float32; NumPy's type stubs lose the width when arrays are combined with Python numbers.
Array = npt.NDArray[Any]
Colour = Sequence[float]  # sRGB in [0, 1]
Point = tuple[float, float, float]  # world metres
Place = tuple[float, float]  # X and Z
Quad = list[Point]

COLOURS: dict[str, list[Colour]] = read_table("colours.toml")
SIDES = ((0, -1.0), (1, 1.0))  # left and right, and the sign of their lateral coordinates
PROFILE_START = -40  # z of the first entry of a height profile, metres


class Material(IntEnum):
    """How a surface is textured."""

    PLAIN = 0
    ROAD = 1
    PAVING = 2
    GRASS = 3
    FACADE = 4
    FOLIAGE = 5
    GLASS = 6
    PAINT = 7
    GLOW = 8
    TILES = 9
    BRICK = 10
    SKY = 11  # the last: everything before it is solid


class Fixed(IntEnum):
    """Surfaces that every scene has."""

    SKY = 0
    ROAD = 1
    PAVEMENT = 2
    GRASS = 3
    KERB_LEFT = 4
    KERB_RIGHT = 5
    KERB_CROSS = 6


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; ``focal`` is in units of sqrt(height * width / 2)."""

    position: tuple[float, float, float]
    rotation: Array  # 3x3, rows: camera x, y, z axes in world coordinates
    focal: float


def look(position: Point, yaw: float, pitch: float, roll: float, focal: float) -> Camera:
    """Camera that looks along +Z, turned right by yaw, down by pitch and clockwise by roll (radians)."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    right = np.array([cy, 0.0, -sy])
    forward = np.array([sy * cp, -sp, cy * cp])
    down = np.array([-sy * sp, -cp, -cy * sp])
    cr, sr = math.cos(roll), math.sin(roll)
    rotation = np.stack([cr * right - sr * down, sr * right + cr * down, forward])
    return Camera(position, rotation.astype(np.float32), focal)


class View:
    """A camera sampled at H x W pixels."""

    def __init__(self, camera: Camera, size: tuple[int, int]) -> None:
        self.camera = camera
        self.height, self.width = size
        self.focal = camera.focal * math.sqrt(self.height * self.width / 2.0)  # pixels
        self.cx, self.cy = (self.width - 1) / 2.0, (self.height - 1) / 2.0
        self._origin = np.array(camera.position)[:, None]
        self._axes = camera.rotation.astype(np.float64).tolist()
        self.xs = np.arange(self.width, dtype=np.float32)
        self.ys = np.arange(self.height, dtype=np.float32)
        self.xn = ((self.xs - np.float32(self.cx)) / np.float32(self.focal)).astype(np.float32)
        self.yn = ((self.ys - np.float32(self.cy)) / np.float32(self.focal)).astype(np.float32)

    def rays(self) -> tuple[Array, Array, Array]:
        """World direction per pixel, scaled so that its z-depth is one metre; three H x W planes."""
        r = self.camera.rotation
        x, y, z = ((self.yn * r[1, k] + r[2, k])[:, None] + self.xn * r[0, k] for k in range(3))
        return x, y, z

    def to_camera(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """World points (..., 3) in camera coordinates."""
        flat = points.reshape(-1, 3).T - self._origin
        result = np.empty(points.shape)
        out = result.reshape(-1, 3)
        for k, (a, b, c) in enumerate(self._axes):
            out[:, k] = a * flat[0] + b * flat[1] + c * flat[2]
        return result

    def project(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Camera points (..., 3) in front of the camera to pixel coordinates (..., 2)."""
        pixels = points[..., :2] * (self.focal / points[..., 2:3])
        pixels[..., 0] += self.cx
        pixels[..., 1] += self.cy
        return pixels


@dataclass
class Street:
    """The carriageway and the strips beside it, in road coordinates.

    Road coordinates are ``x`` (lateral; the centre line is 0) and world ``z``; the bend shifts the
    world: ``X = x + bend * z^2 / 2``.
    """

    left: float  # carriageway spans [-left, right]
    right: float
    lane: float  # lane width
    bend: float  # 1 / radius
    kerb: float  # height
    verge: tuple[float, float]  # grass strip between kerb and pavement, left and right; 0: none
    paving: tuple[float, float]  # pavement width
    yard: tuple[float, float]  # from the pavement to the buildings
    yard_green: tuple[bool, bool]
    crossings: list[tuple[float, float, bool, bool]] = field(default_factory=list)  # z0, z1, left, right
    zebras: list[float] = field(default_factory=list)  # z of the middle of each zebra crossing
    centre_style: int = 0  # 0 none, 1 dashed, 2 solid, 3 double
    edge_lines: bool = False
    parking: tuple[float, float] = (0.0, 0.0)  # width of the parking strip inside the carriageway
    end: float = 0.0  # z where a cross building closes the street; 0: open

    def shift(self, z: float) -> float:
        """World X of the centre line at ``z``."""
        return 0.5 * self.bend * z * z

    def place(self, x: float, z: float) -> Place:
        """World (X, Z) of a point in road coordinates."""
        return x + self.shift(z), z

    def edge(self, side: int) -> float:
        """Lateral distance from the centre line to the kerb on the side (0 left, 1 right)."""
        return self.right if side else self.left

    def front(self, side: int) -> float:
        """Lateral distance from the centre line to the building line."""
        return self.edge(side) + self.verge[side] + self.paving[side] + self.yard[side]

    def in_crossing(self, z: float, side: int, margin: float = 0.0) -> bool:
        """Whether a side street leaves at ``z``."""
        return any(c[2 + side] and c[0] - margin < z < c[1] + margin for c in self.crossings)


@dataclass
class Polygons:
    """Planar convex polygons in world coordinates."""

    corners: npt.NDArray[np.float64]  # n x K x 3
    behind: npt.NDArray[np.float64]  # n x 3: points that the normals point away from
    surface: npt.NDArray[np.int64]  # n


def join(batches: Sequence[Polygons]) -> Polygons | None:
    """All batches as one; they have the same number of corners."""
    if not batches:
        return None
    corners, behind, surface = zip(*((b.corners, b.behind, b.surface) for b in batches), strict=True)
    return Polygons(np.concatenate(corners), np.concatenate(behind), np.concatenate(surface))


class Scene:
    """Surfaces and primitives, in the order in which they were added."""

    def __init__(self, street: Street) -> None:
        self.street = street
        self.part: list[int] = []
        self.colour: list[Colour] = []
        self.owner: list[int] = []  # the object that a surface is part of; edges run between objects
        self.material: list[int] = []
        self.facade: list[int] = []  # row of the facade table; 0 elsewhere
        self.facades: list[dict[str, Any]] = []
        # Static polygons come one by one; articulated or repeated bodies come as arrays.
        self.faces: list[tuple[Quad, Point, int]] = []  # quad, a point on its back side, surface
        self.quads: list[Polygons] = []
        self.discs: list[Polygons] = []  # ten corners
        self.capsules: list[tuple[float, ...]] = []  # x0 y0 z0 r0 x1 y1 z1 r1
        self.capsule_ids: list[int] = []
        self.limbs: list[tuple[npt.NDArray[np.float64], Sequence[int]]] = []  # n x 8 as above, surfaces
        self.sprites: list[tuple[float, float, float, float, float, int, bool]] = []  # x y z w h which flip
        self.sprite_ids: list[int] = []
        # Capsules cast shadows by themselves; these are the other bodies that do.
        self.crowns: list[tuple[float, float, float, float]] = []  # x y z radius
        self.hulls: list[npt.NDArray[np.float64]] = []  # corner points of a convex body, each n x 3
        self.contacts: list[npt.NDArray[np.float64]] = []  # 4 x 3 ground rectangles in ambient shade
        self.foreground: list[int] = []  # objects that may be salient
        self.height_profile: Array | None = None  # left and right: height of the buildings per metre
        self._groups = 0
        for name, material, shade in (
            ("sky", Material.SKY, 0.5),
            ("road", Material.ROAD, 0.3),
            ("pavement", Material.PAVING, 0.5),
            ("grass", Material.GRASS, 0.4),
            ("kerb", Material.PLAIN, 0.58),
            ("kerb", Material.PLAIN, 0.58),
            ("kerb", Material.PLAIN, 0.58),
        ):
            # Grass and pavement are in one plane and meet without a step, but are two objects.
            self.surface(name, (shade, shade, shade), material)
        for kerb in (Fixed.KERB_RIGHT, Fixed.KERB_CROSS):
            self.owner[kerb] = self.owner[Fixed.KERB_LEFT]

    def group(self) -> int:
        """The number of a new object."""
        self._groups += 1
        return self._groups

    def surface(
        self, part: str, colour: Colour, material: int = 0, owner: int | None = None, facade: int = 0
    ) -> int:
        """Register a surface, by default of a new object, and return its id."""
        self.part.append(PART[part])
        self.colour.append(colour)
        self.owner.append(self.group() if owner is None else owner)
        self.material.append(material)
        self.facade.append(facade)
        return len(self.part) - 1

    def palette(self) -> Array:
        """Linear RGB of every surface, n x 3."""
        flat = np.fromiter(chain.from_iterable(self.colour), np.float32, 3 * len(self.colour))
        flat *= flat
        return flat.reshape(-1, 3)

    def add_quad(
        self,
        quad: Quad,
        behind: Point,
        part: str,
        colour: Colour,
        material: int = 0,
        owner: int | None = None,
        facade: int = 0,
    ) -> None:
        """A planar quad whose normal points away from ``behind``; it is a surface of its own."""
        self.faces.append((quad, behind, self.surface(part, colour, material, owner, facade)))

    def all_quads(self) -> Polygons | None:
        """Every planar quad of the scene in one batch."""
        batches = list(self.quads)
        if self.faces:
            quads, behind, surfaces = zip(*self.faces, strict=True)
            flat = chain.from_iterable(chain.from_iterable(quads))
            corners = np.fromiter(flat, np.float64, 12 * len(quads)).reshape(-1, 4, 3)
            batches.append(Polygons(corners, np.array(behind), np.array(surfaces)))
        return join(batches)

    def add_limbs(
        self, points: npt.NDArray[np.float64], radii: npt.NDArray[np.float64], surfaces: Sequence[int]
    ) -> None:
        """Capsules between pairs of points (n x 2 x 3) with the radii there (n x 2)."""
        self.limbs.append((np.concatenate([points, radii[..., None]], axis=2).reshape(-1, 8), surfaces))

    def all_capsules(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Every capsule of the scene (n x 8: x0 y0 z0 r0 x1 y1 z1 r1) and its surface (n)."""
        bodies = [body for body, _ in self.limbs]
        surfaces: list[npt.ArrayLike] = [ids for _, ids in self.limbs]
        if self.capsules:
            bodies.append(np.array(self.capsules))
            surfaces.append(self.capsule_ids)
        if not bodies:
            return np.empty((0, 8)), np.empty(0, np.int64)
        return np.concatenate(bodies), np.concatenate(surfaces)

    def add_capsule(self, start: Point, end: Point, r0: float, r1: float, surface: int) -> None:
        """A round limb or pole between two points with the radii there."""
        self.capsules.append((*start, r0, *end, r1))
        self.capsule_ids.append(surface)

    def add_sprite(
        self, centre: Point, width: float, height: float, which: int, flip: bool, surface: int
    ) -> None:
        """A foliage relief that faces the camera."""
        self.sprites.append((*centre, width, height, which, flip))
        self.sprite_ids.append(surface)


def upright(start: Place, end: Place, low: float, high: float) -> Quad:
    """A vertical rectangle over the line from ``start`` to ``end``."""
    (x0, z0), (x1, z1) = start, end
    return [(x0, low, z0), (x1, low, z1), (x1, high, z1), (x0, high, z0)]


def box_faces(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> list[Quad]:
    """Front (z0), back (z1), left, right and top faces of an axis-parallel box."""
    sides = [((x0, z0), (x1, z0)), ((x0, z1), (x1, z1)), ((x0, z0), (x0, z1)), ((x1, z0), (x1, z1))]
    top = [(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)]
    return [*(upright(a, b, y0, y1) for a, b in sides), top]


def turn(points: npt.ArrayLike, heading: float, at: Point) -> npt.NDArray[np.float64]:
    """Rotate local points (..., 3) about Y, from world Z to the right, and move them."""
    p = np.asarray(points, np.float64)
    c, s = math.cos(heading), math.sin(heading)
    result = np.empty_like(p)
    result[..., 0] = c * p[..., 0] + s * p[..., 2] + at[0]
    result[..., 1] = p[..., 1] + at[1]
    result[..., 2] = -s * p[..., 0] + c * p[..., 2] + at[2]
    return result
