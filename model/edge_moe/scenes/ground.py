# SPDX-License-Identifier: Apache-2.0
"""The ground by ray casting: the carriageway at height 0, all else at kerb height.

A ray that meets the raised level above the carriageway, but the lower level outside it, has hit the
kerb face between them.
"""

import numpy as np
import numpy.typing as npt

from edge_moe.scenes.geometry import Array, Fixed, Scene, Street, View
from edge_moe.scenes.raster import Buffers

_HORIZON = 1.5e-3  # rays flatter than this show no ground
_BEND_END = 160.0  # metres; the street runs straight from there on


def road_x(street: Street, x: Array, z: Array) -> Array:
    """Lateral road coordinate of world points."""
    if street.bend == 0.0:
        return x
    near = np.clip(z, 0, _BEND_END)
    shift = (z - near) * np.float32(_BEND_END)
    shift += np.float32(0.5) * near * near
    return x - np.float32(street.bend) * shift


def _is_low(street: Street, x: Array, z: Array) -> npt.NDArray[np.bool_]:
    low: npt.NDArray[np.bool_] = (x > -street.left) & (x < street.right)
    for z0, z1, left, right in street.crossings:
        span = (z > z0) & (z < z1)
        if not left:
            span &= x > 0
        if not right:
            span &= x < 0
        low |= span
    return low


def cast_ground(scene: Scene, view: View, rays: tuple[Array, Array, Array], buffers: Buffers) -> None:
    """Fill the buffers with road, pavement, grass and kerbs."""
    street = scene.street
    rx, ry, rz = rays
    camera_x, camera_y, camera_z = (np.float32(v) for v in view.camera.position)
    rows = np.flatnonzero(ry.min(axis=1) < -_HORIZON)
    if not len(rows):
        return
    part = slice(int(rows[0]), view.height)
    rx, ry, rz = rx[part], ry[part], rz[part]
    ground = ry < -_HORIZON
    per_metre = 1.0 / np.maximum(-ry, np.float32(_HORIZON))
    far = camera_y * per_metre
    near = (camera_y - np.float32(street.kerb)) * per_metre
    x0, z0 = camera_x + far * rx, camera_z + far * rz
    x1, z1 = camera_x + near * rx, camera_z + near * rz
    x0, x1 = road_x(street, x0, z0), road_x(street, x1, z1)
    low0, low1 = _is_low(street, x0, z0), _is_low(street, x1, z1)

    surface = np.where(low0, np.int32(Fixed.ROAD), np.int32(Fixed.KERB_LEFT))
    raised = ~low1
    surface[raised] = _raised_surface(street, x1[raised], z1[raised])
    depth = np.where(raised, near, far)

    kerb = np.nonzero(~low0 & low1 & ground)
    ka, kb = (x1[kerb], z1[kerb]), (x0[kerb], z0[kerb])
    edge = np.where(kb[0] > 0, np.float32(street.right), np.float32(-street.left))
    cross = np.abs(ka[0]) > np.abs(edge)  # the upper hit is in a side street
    share = (edge - ka[0]) / np.where(kb[0] == ka[0], 1, kb[0] - ka[0])
    side = np.where(kb[0] > 0, np.int32(Fixed.KERB_RIGHT), np.int32(Fixed.KERB_LEFT))
    for _, end, _, _ in street.crossings:
        here = cross & (ka[1] <= end) & (kb[1] >= end)
        share = np.where(here, (np.float32(end) - ka[1]) / np.maximum(kb[1] - ka[1], 1e-6), share)
        side = np.where(here, np.int32(Fixed.KERB_CROSS), side)
    surface[kerb] = side
    depth[kerb] = near[kerb] + (far[kerb] - near[kerb]) * np.clip(share, 0, 1)

    buffers.surface[part] = np.where(ground, surface, np.int32(Fixed.SKY))
    buffers.inverse[part] = np.where(ground, 1.0 / depth, np.float32(0))

    rotation = view.camera.rotation
    up = rotation[:, 1]
    for fixed in (Fixed.ROAD, Fixed.PAVEMENT, Fixed.GRASS):
        buffers.table[fixed] = up
    tangent = np.float32(street.bend) * np.clip(kb[1], 0, _BEND_END)  # dX/dz of the kerb line
    inward = np.where(kb[0] > 0, np.float32(-1), np.float32(1)) / np.sqrt(1 + tangent * tangent)
    inward[side == Fixed.KERB_CROSS] = 0
    along = -inward * tangent
    along[side == Fixed.KERB_CROSS] = -1
    pixel = (kerb[0] + part.start, kerb[1])
    buffers.curved[[Fixed.KERB_LEFT, Fixed.KERB_RIGHT, Fixed.KERB_CROSS]] = True
    buffers.normal[pixel] = inward[:, None] * rotation[:, 0] + along[:, None] * rotation[:, 2]


def _raised_surface(street: Street, x: Array, z: Array) -> npt.NDArray[np.int32]:
    """Pavement or grass at raised points in road coordinates."""
    right = x > 0

    def pick(pair: tuple[float, float] | tuple[bool, bool]) -> Array:
        return np.where(right, np.float32(pair[1]), np.float32(pair[0]))

    lateral = np.abs(x) - pick((street.left, street.right))
    verge = pick(street.verge)
    outer = verge + pick(street.paving)
    green = (lateral < verge) | ((lateral > outer) & (pick(street.yard_green) > 0))
    for z0, z1, left, right_side in street.crossings:
        # Pavements turn the corner and follow the side street.
        near = (z > z0 - outer) & (z < z1 + outer) & np.where(right, right_side, left)
        green &= ~near
    return np.where(green, np.int32(Fixed.GRASS), np.int32(Fixed.PAVEMENT))
