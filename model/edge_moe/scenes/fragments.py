# SPDX-License-Identifier: Apache-2.0
"""The input of shading for each pixel, as flat planes."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edge_moe.scenes.geometry import Array, Material, Scene, View
from edge_moe.scenes.noise import noise_bank
from edge_moe.scenes.raster import Buffers

Index = npt.NDArray[np.intp]

_CURVED_TILT = 0.6  # curved surfaces take their texture from x + 0.6 z and y


@dataclass
class Fragments:
    """Flat arrays over the n pixels that show something solid, sorted by material.

    In this order the pixels of one material are a slice, so painting them needs no gathering. Planes of
    three components are 3 x n: NumPy processes long rows far faster than pixels of three
    values.
    """

    order: Index  # image position of each fragment; the sky's pixels follow the first n
    by_material: list[slice]  # fragments of each material
    surface: Index
    part: npt.NDArray[np.uint8]
    colour: Array  # 3 x n linear RGB albedo
    normal: Array  # 3 x n camera coordinates, unit
    up: Array  # vertical component of the world normal
    side: Array  # world x component
    ahead: Array  # world z component
    x: Array  # world position, metres
    y: Array
    z: Array
    u: Array  # texture coordinates in the surface, metres
    v: Array
    depth: Array
    footprint: Array  # width of a pixel on a surface that faces the camera, metres
    grain: Array  # noise with details of 4 cm
    coarse: Array  # noise with details of 60 cm

    @property
    def solid(self) -> Index:
        """Image positions of the fragments."""
        return self.order[: len(self.surface)]

    @property
    def sky(self) -> Index:
        """Image positions of the sky."""
        return self.order[len(self.surface) :]

    def image(self, values: np.ndarray, sky: float | np.ndarray, back: Index) -> np.ndarray:
        """Values per fragment in image order; ``back`` is :meth:`positions`."""
        full = np.empty(len(self.order), values.dtype)
        full[: len(values)] = values
        full[len(values) :] = sky
        return full.take(back)

    def positions(self) -> Index:
        """The index in ``order`` of each pixel of the image."""
        back = np.empty_like(self.order)
        back[self.order] = np.arange(len(back))
        return back


def _planes(table: Array, index: Index) -> Array:
    """Rows of an n x 3 table per pixel, as 3 x N."""
    result = np.empty((3, index.size), np.float32)
    for plane, column in zip(result, np.ascontiguousarray(table.T), strict=True):
        column.take(index, out=plane, mode="clip")
    return result


def lookup(values: list[int], surface: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """A small integer property per pixel."""
    return np.array(values, np.uint8).take(surface)


def gather(
    scene: Scene, view: View, rays: tuple[Array, Array, Array], buffers: Buffers, offset: tuple[float, float]
) -> Fragments:
    """Positions, normals and plain colours of all solid pixels; ``offset`` shifts the noise."""
    shown = buffers.surface.reshape(-1)
    material = lookup(scene.material, shown)
    order = np.argsort(material, kind="stable")
    count = np.bincount(material, minlength=len(Material))
    ends = np.cumsum(count).tolist()
    solid = order[: ends[Material.SKY - 1]]
    surface = shown.take(solid).astype(np.intp)

    depth = 1.0 / buffers.inverse.reshape(-1).take(solid)
    normal = _planes(buffers.table, surface)
    curved = np.flatnonzero(buffers.curved.take(surface))
    bent = np.ascontiguousarray(buffers.normal.reshape(-1, 3).take(solid[curved], axis=0).T)
    bent /= np.sqrt(bent[0] * bent[0] + bent[1] * bent[1] + bent[2] * bent[2])
    normal[:, curved] = bent
    rotation = view.camera.rotation
    side, up, ahead = (
        normal[0] * rotation[0, k] + normal[1] * rotation[1, k] + normal[2] * rotation[2, k] for k in range(3)
    )
    x, y, z = (
        depth * plane.reshape(-1).take(solid) + at
        for plane, at in zip(rays, view.camera.position, strict=True)
    )
    level = np.flatnonzero(np.abs(up) > 0.75)
    u = x * ahead - z * side
    v = y.copy()
    u[level], v[level] = x.take(level), z.take(level)
    u[curved] = x.take(curved) + _CURVED_TILT * z.take(curved)
    v[curved] = y.take(curved)
    grain, coarse = (_noise(u, v, per_metre, offset) for per_metre in (24.0, 1.7))
    return Fragments(
        order=order,
        by_material=[slice(a, b) for a, b in pairwise([0, *ends])],
        surface=surface,
        part=lookup(scene.part, surface),
        colour=_planes(scene.palette(), surface),
        normal=normal,
        up=up,
        side=side,
        ahead=ahead,
        x=x,
        y=y,
        z=z,
        u=u,
        v=v,
        depth=depth,
        footprint=depth * (1.0 / view.focal),
        grain=grain,
        coarse=coarse,
    )


def _noise(u: Array, v: Array, per_metre: float, offset: tuple[float, float]) -> Array:
    """Nearest sample of tileable noise with ``per_metre`` texels a metre."""
    bank, _ = noise_bank()
    side = bank.shape[0]
    column = (u * per_metre + offset[0]).astype(np.int32) & (side - 1)
    row = (v * per_metre + offset[1]).astype(np.int32) & (side - 1)
    row *= side
    row += column
    return bank.reshape(-1).take(row)
