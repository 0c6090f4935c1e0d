# SPDX-License-Identifier: Apache-2.0
"""One street scene with labels for every task.

Depth is z-depth along the optical axis in metres, 0 (no measurement) in the sky and beyond
``FAR``. Normals are in camera coordinates (x right, y down, z forward), unit length, facing the
camera; zero in the sky. Edges are between objects and along strong creases (kerbs, the corners of
buildings): a pixel is 1 if its right or lower neighbour belongs to another object. Up to three people,
cyclists, bicycles and vehicles are salient: those that cover most pixels, if each covers at least
0.4 % of the image and a quarter of the largest.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_moe.data.sample import IMAGE, Sample
from edge_moe.scenes.dice import Dice
from edge_moe.scenes.fragments import Fragments, Index, gather
from edge_moe.scenes.geometry import Array, Scene, View
from edge_moe.scenes.ground import cast_ground
from edge_moe.scenes.labels import PART, class_table, human_table
from edge_moe.scenes.layout import draw_scene
from edge_moe.scenes.raster import Buffers, empty_buffers, fill_capsules, fill_polygons, fill_sprites
from edge_moe.scenes.sensor import expose
from edge_moe.scenes.shade import shade
from edge_moe.scenes.weather import Weather, draw_weather
from edge_moe.tasks import TASKS
from edge_moe_host.errors import EdgeMoEError

RENDERER_VERSION = 2  # raised whenever any pixel or label changes
FAR = 80.0  # metres; farther surfaces have no depth label
MINIMUM_SIDE = 16  # pixels
ALL_TASKS: Mapping[str, int] = {
    "semseg": 7, "depth": 1, "normals": 3, "edge": 1, "saliency": 1, "human_parts": 7,
}  # fmt: skip

_HEAP_BYTES = 24 << 20  # glibc follows blocks of up to 32 MB
_SALIENT_COUNT = 3
_SALIENT_SHARE = 0.004
_SALIENT_RATIO = 0.25


@dataclass
class Composition:
    """A scene, its light and the surface that each pixel of a view shows, before shading."""

    scene: Scene
    weather: Weather
    view: View
    rays: tuple[Array, Array, Array]
    buffers: Buffers
    capsules: npt.NDArray[np.float64]


@functools.cache
def _keep_heap() -> None:
    """Let the C library keep freed memory between images, once per process.

    glibc returns the top of its heap to the system after each image and faults it in again for the
    next, which takes a sixth of the whole time. Freeing one large block, which is never touched,
    raises the sizes from which it does so; other allocators ignore this.
    """
    np.empty(_HEAP_BYTES, np.uint8)


def compose(layout: np.random.Generator, size: tuple[int, int]) -> Composition:
    """Lay a scene out and resolve visibility at ``size`` (height, width)."""
    dice = Dice(layout)
    weather = draw_weather(dice)
    scene, camera = draw_scene(dice)
    view = View(camera, size)
    rays = view.rays()
    buffers = empty_buffers(view, len(scene.part))
    cast_ground(scene, view, rays, buffers)
    fill_polygons(scene, view, buffers)
    fill_sprites(scene, view, buffers)
    capsules, capsule_surface = scene.all_capsules()
    fill_capsules(capsules, capsule_surface, view, buffers)
    return Composition(scene, weather, view, rays, buffers, capsules)


def streams(seed: int, index: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Generators of the layout and of the sensor noise of one scene."""
    layout, noise = np.random.SeedSequence([seed, index]).spawn(2)
    return np.random.Generator(np.random.PCG64(layout)), np.random.Generator(np.random.SFC64(noise))


def render_scene(
    seed: int, index: int, size: tuple[int, int], tasks: Mapping[str, int] = ALL_TASKS
) -> Sample:
    """Image and labels of scene ``index`` of the stream ``seed`` at ``size`` (height, width).

    The bytes depend on the arguments alone, and the layout on seed and index only. The size decides the
    sampling (field of view: 47 to 66 degrees across a 2:1 image; other shapes have the same solid
    angle). Raises :class:`EdgeMoEError` for a negative seed or index, a size below 16 pixels, an
    unknown task or number of classes.
    """
    _keep_heap()
    check_request(seed, size, tasks)
    if index < 0:
        raise EdgeMoEError(f"scene index {index} is negative: indices start at 0.")
    layout, noise = streams(seed, index)
    c = compose(layout, size)
    fragments = gather(c.scene, c.view, c.rays, c.buffers, c.weather.texture_offset)
    back = fragments.positions()
    radiance = shade(c.scene, c.view, c.weather, c.rays, fragments, c.capsules).take(back, axis=1)
    sample: Sample = {IMAGE: expose(c.weather, radiance, size, noise)}
    for task, channels in tasks.items():
        sample[task] = _label(task, channels, c.scene, c.buffers, fragments, back)
    return sample


def check_request(seed: int, size: tuple[int, int], tasks: Mapping[str, int]) -> None:
    """Raise :class:`EdgeMoEError` when scenes cannot deliver this."""
    if seed < 0:
        raise EdgeMoEError(f"scenes seed {seed} is negative: choose 0 or more.")
    if min(size) < MINIMUM_SIDE:
        raise EdgeMoEError(
            f"scenes image size {size[0]}x{size[1]} is too small: both sides are {MINIMUM_SIDE} or more."
        )
    for task, channels in tasks.items():
        if task not in ALL_TASKS:
            raise EdgeMoEError(f"scenes has no labels for task '{task}': it has {', '.join(ALL_TASKS)}.")
        if task == "semseg":
            class_table(channels)
        elif channels != TASKS[task].channels and channels != ALL_TASKS[task]:
            raise EdgeMoEError(f"scenes task '{task}' has {ALL_TASKS[task]} channel(s), not {channels}.")


def _label(task: str, channels: int, scene: Scene, buffers: Buffers, f: Fragments, back: Index) -> np.ndarray:
    shape = buffers.surface.shape
    if task == "semseg":
        table = class_table(channels)
        return f.image(table.take(f.part), table[PART["sky"]], back).reshape(shape)
    if task == "human_parts":
        return f.image(human_table().take(f.part), 0, back).reshape(shape)
    if task == "depth":
        sharp = buffers.inverse >= np.float32(1 / FAR)
        return np.where(sharp, 1 / np.maximum(buffers.inverse, np.float32(1e-6)), np.float32(0))
    if task == "normals":
        planes = [f.image(plane, 0, back) for plane in f.normal]
        return np.stack(planes, axis=-1).reshape(*shape, 3)
    if task == "edge":
        group = np.array(scene.owner, np.int32).take(buffers.surface)
        edge = np.zeros(shape, np.uint8)
        edge[:, :-1] |= group[:, :-1] != group[:, 1:]
        edge[:-1] |= group[:-1] != group[1:]
        return edge
    return _saliency(scene, buffers.surface)


def _saliency(scene: Scene, surface: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    owner = np.array(scene.owner)
    area = np.bincount(owner.take(surface.reshape(-1)), minlength=owner.max() + 1)
    foreground = np.array(scene.foreground, np.intp)
    largest = foreground[np.argsort(-area[foreground], kind="stable")[:_SALIENT_COUNT]]
    least = max(_SALIENT_SHARE * surface.size, _SALIENT_RATIO * float(area[largest].max(initial=0.0)))
    salient = largest[area[largest] >= least]
    return np.isin(owner, salient).astype(np.uint8).take(surface)
