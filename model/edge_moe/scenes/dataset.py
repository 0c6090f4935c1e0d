# SPDX-License-Identifier: Apache-2.0
"""Rendered scenes as a data set, with an optional cache on disk."""

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_moe.data.base import SPLITS, Split, TaskDataset
from edge_moe.data.pascal import PART_NAMES
from edge_moe.data.sample import IMAGE, Sample
from edge_moe.scenes.labels import CLASSES, class_palette
from edge_moe.scenes.render import RENDERER_VERSION, check_request, render_scene
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import replacing
from edge_moe_host.runtime.drawing import distinct_palette

_LOG = logging.getLogger(__name__)
_SPLIT_STRIDE = 1 << 32  # each split draws from its own range of indices


class ScenesDataset(TaskDataset):
    """``count`` rendered scenes of one split.

    ``tasks`` maps task to channels; semseg takes 7, 19, 21 or 40 classes. ``size`` is (height,
    width). With ``cache``, each sample is kept there as an uncompressed .npz file and read on
    later access. A damaged file is rendered anew; on a full disk the data set continues without
    caching. Several processes may share a cache.
    """

    def __init__(
        self,
        split: Split,
        tasks: Mapping[str, int],
        size: tuple[int, int],
        count: int,
        seed: int = 0,
        cache: Path | None = None,
    ) -> None:
        if split not in SPLITS:
            raise EdgeMoEError(f"scenes has no split '{split}': it has {', '.join(SPLITS)}.")
        if not 0 <= count < _SPLIT_STRIDE:
            raise EdgeMoEError(f"scenes cannot hold {count} images: choose 0 to {_SPLIT_STRIDE - 1}.")
        check_request(seed, size, tasks)
        self.name = "scenes"
        self.split = split
        self.tasks = dict(tasks)
        self.size = (int(size[0]), int(size[1]))
        self.seed = seed
        self.count = count
        self.class_names = {}
        self.palette = {}
        if "semseg" in tasks:
            self.class_names["semseg"] = CLASSES[tasks["semseg"]]
            self.palette["semseg"] = class_palette(tasks["semseg"])
        if "human_parts" in tasks:
            self.class_names["human_parts"] = PART_NAMES
            self.palette["human_parts"] = distinct_palette(len(PART_NAMES))
        self._folder = None if cache is None else Path(cache) / self._key()

    def _key(self) -> str:
        tasks = "-".join(f"{task}{channels}" for task, channels in sorted(self.tasks.items()))
        height, width = self.size
        return f"scenes-v{RENDERER_VERSION}-seed{self.seed}-{self.split}-{height}x{width}-{tasks}"

    def __len__(self) -> int:
        return self.count

    def image_id(self, index: int) -> str:
        return f"{self.split}_{self.seed}_{self._checked(index):06d}"

    def __getitem__(self, index: int) -> Sample:
        index = self._checked(index)
        path = None if self._folder is None else self._folder / f"{index:08d}.npz"
        if path is not None:
            cached = self._read(path)
            if cached is not None:
                return cached
        stream = SPLITS.index(self.split) * _SPLIT_STRIDE + index
        sample = render_scene(self.seed, stream, self.size, self.tasks)
        if path is not None:
            self._write(path, sample)
        return sample

    def _checked(self, index: int) -> int:
        """The index, counted from the end when negative; past the end ends an iteration."""
        if not -self.count <= index < self.count:
            raise IndexError(f"scenes {self.split} has {self.count} images, index {index} is outside.")
        return index % self.count

    def _read(self, path: Path) -> Sample | None:
        """The cached sample; None if there is none or it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                sample: Sample = {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            _LOG.warning("cached scene '%s' is damaged (%s) and is rendered anew.", path, error)
            return None
        shapes_agree = all(array.shape[:2] == self.size for array in sample.values())
        return sample if shapes_agree and set(sample) == {IMAGE, *self.tasks} else None

    def _write(self, path: Path, sample: Sample) -> None:
        try:
            # each writer of a sample has a file name of its own; the last one to finish stays
            with replacing(path, durable=False) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **sample)
        except EdgeMoEError as error:
            _LOG.warning("%s Continuing without the scenes cache.", error)
            self._folder = None
