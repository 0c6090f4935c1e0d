# SPDX-License-Identifier: Apache-2.0
"""Pictures and labels in folders, as ``dataset.toml`` beside them describes; and pictures without labels.

A picture and its labels have the same name, whatever their suffixes::

    DIR/dataset.toml
    DIR/images/NAME.jpg
    DIR/masks/NAME.png, DIR/depth/NAME.png, ...     a folder for each task

Sub-folders ``images/train/`` and ``images/val/``, or ``train/images/`` and ``val/images/``, are the splits.
Otherwise ``[split]`` names two lists of names, or takes a share of the pictures for validation.
"""

import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edge_moe.data.base import (
    FileDataset,
    IndexMap,
    Split,
    TaskDataset,
    binary_map,
    check_tasks,
    clean_depth,
    folder_content,
    read_split,
)
from edge_moe.data.images import read_label, read_map, read_mask, read_mat_map
from edge_moe.data.nyud import read_normals
from edge_moe.data.sample import IMAGE, Sample
from edge_moe.tasks import IGNORE_LABEL, TASKS
from edge_moe_host.config import from_dict
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import kind, read_text, visible
from edge_moe_host.runtime.drawing import DepthKind, distinct_palette
from edge_moe_host.runtime.images import is_picture, open_picture, pictures_in, read_image, to_rgb

_LOG = logging.getLogger(__name__)
FILE = "dataset.toml"
SMALLEST = 'tasks.semseg = {folder = "masks", classes = ["background", "plant"]}'
ORIENTATION = 0x0112  # EXIF
ARRAYS = (".npy", ".mat")


@dataclass(frozen=True)
class TaskFolder:
    """The labels of a task."""

    folder: str
    suffix: str = ""  # of a label's name: "_mask" for a.jpg and a_mask.png
    ignore: tuple[int, ...] = ()  # stored values of unknown pixels; 255 if none are stated
    # tasks with classes
    classes: tuple[str, ...] = ()
    values: tuple[int, ...] = ()  # stored values of the classes; default 0, 1, ...
    colours: tuple[
        tuple[int, int, int], ...
    ] = ()  # of the classes, in drawings and in masks stored in colour
    ignore_colours: tuple[tuple[int, int, int], ...] = ()
    # depth
    metres_per_unit: float = 0.0  # 0: not stated, floats are metres
    disparity: bool = False  # what is stored is a disparity ...
    baseline_focal: float = 0.0  # ... and metres are this (baseline in metres x focal length in pixels) by it
    # normals
    axes: Literal["y down", "y up"] = "y down"  # y down, z forward; or y up, z backward, as OpenGL has them
    # MATLAB files
    variable: str = "label"


@dataclass(frozen=True)
class SplitRule:
    """Lists of names, or the share of pictures that a seed draws for validation."""

    train: str = ""
    val: str = ""
    fraction: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class Description:
    """``dataset.toml``."""

    tasks: Mapping[str, TaskFolder]
    images: str = "images"
    rotation: Literal["", "stored", "upright"] = ""  # how labels lie on pictures with an EXIF rotation
    split: SplitRule = field(default_factory=SplitRule)


def read_description(root: Path) -> Description:
    """The checked ``dataset.toml`` of a folder."""
    path = root / FILE
    if kind(path) != "file":
        raise EdgeMoEError(
            f"'{root}' has no {FILE}, which says what the folders hold (found {folder_content(root)}): the "
            f"smallest has one line, {SMALLEST}."
        )
    try:
        data = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise EdgeMoEError(f"'{path}' is not valid TOML: {error}.") from None
    description: Description = from_dict(Description, data, place=str(path))
    if not description.tasks:
        raise EdgeMoEError(f"{path} describes no task: a line for one is {SMALLEST}.")
    for task, labels in description.tasks.items():
        _check(task, labels, f"{path}: tasks.{task}")
    rule = description.split
    if bool(rule.train) != bool(rule.val) or not 0 < rule.fraction < 1 or rule.seed < 0:
        raise EdgeMoEError(
            f"{path}: split needs both lists, train and val, or a fraction between 0 and 1 with a seed."
        )
    return description


def _check(task: str, labels: TaskFolder, where: str) -> None:
    if task not in TASKS:
        raise EdgeMoEError(f"{where} is no task: tasks are {', '.join(TASKS)}.")
    of_kind = TASKS[task].kind
    only = {
        "classes": of_kind == "classes", "values": of_kind == "classes", "colours": of_kind == "classes",
        "ignore_colours": of_kind == "classes", "axes": of_kind == "vector",
        "metres_per_unit": of_kind == "scalar", "disparity": of_kind == "scalar",
        "baseline_focal": of_kind == "scalar",
    }  # fmt: skip
    plain = TaskFolder(labels.folder)
    for name, allowed in only.items():
        if not allowed and getattr(labels, name) != getattr(plain, name):
            raise EdgeMoEError(f"{where}.{name} has no meaning for {task}.")
    count = len(labels.classes)
    if of_kind == "classes" and not 2 <= count <= IGNORE_LABEL:
        raise EdgeMoEError(f"{where}.classes names {count} classes: 2 to {IGNORE_LABEL} are needed.")
    for name in ("values", "colours"):
        given = getattr(labels, name)
        if given and (len(given) != count or len(set(given)) != count):
            raise EdgeMoEError(f"{where}.{name} needs a different one for each of the {count} classes.")
    if len(set(labels.classes)) != count:
        raise EdgeMoEError(f"{where}.classes names a class twice.")
    if wide := [value for value in (*labels.values, *labels.ignore) if not -(2**15) <= value < 2**16]:
        raise EdgeMoEError(f"{where}: the stored value {wide[0]} is not allowed: it has at most 16 bits.")
    if wrong := set(labels.ignore) & set(labels.values or range(count)):
        raise EdgeMoEError(f"{where}.ignore has {min(wrong)}, which is the value of a class.")
    if not all(0 <= part <= 255 for colour in (*labels.colours, *labels.ignore_colours) for part in colour):
        raise EdgeMoEError(f"{where}: a colour has three parts from 0 to 255.")
    if labels.metres_per_unit < 0 or labels.baseline_focal < 0:
        raise EdgeMoEError(f"{where}: metres_per_unit and baseline_focal are positive.")
    if labels.disparity and labels.metres_per_unit:
        raise EdgeMoEError(f"{where}: a disparity is not in metres: state baseline_focal, or nothing.")
    if labels.baseline_focal and not labels.disparity:
        raise EdgeMoEError(f"{where}.baseline_focal belongs to disparity = true.")


class FolderDataset(FileDataset):
    """One split of a folder with a ``dataset.toml``."""

    def __init__(self, root: Path, split: Split, tasks: Mapping[str, int]) -> None:
        self.root, self.split = root, split
        self.about = read_description(root)
        known = {
            task: (len(labels.classes) or TASKS[task].channels or 1,)
            for task, labels in self.about.tasks.items()
        }
        checked = check_tasks(f"folder:{root}", tasks, known)
        self.pictures = _by_stem(pictures_in(self._folder(self.about.images)))
        self.labels = {task: self._labels(self.about.tasks[task]) for task in checked}
        if "depth" in checked:
            depth = self.about.tasks["depth"]
            self.depth_kind: DepthKind = (
                "inverse" if depth.disparity and not depth.baseline_focal else "metric"
            )
        self.maps = {}
        for task, labels in self.about.tasks.items():
            values = labels.values or tuple(range(len(labels.classes)))
            unknown = dict.fromkeys(labels.ignore or (IGNORE_LABEL,), IGNORE_LABEL)
            self.maps[task] = IndexMap({**unknown, **{value: i for i, value in enumerate(values)}})
        super().__init__("folder", split, checked, self._names())
        for task in checked:
            if classes := self.about.tasks[task].classes:
                self.class_names[task] = classes
                colours = self.about.tasks[task].colours
                self.palette[task] = (
                    np.array(colours, np.uint8) if colours else distinct_palette(len(classes))
                )

    def _folder(self, name: str) -> Path:
        """The folder of a name, or its part for the split: NAME/SPLIT or SPLIT/NAME where they exist."""
        parts = (self.root / name / self.split, self.root / self.split / name, self.root / name)
        found = next((path for path in parts if kind(path) == "folder"), None)
        other = "val" if self.split == "train" else "train"
        others = (kind(parts[2] / other), kind(self.root / other / name))
        if found in (parts[2], None) and parts[1] != parts[2] and "folder" in others:
            raise EdgeMoEError(
                f"'{self.root}' has {name} of the split '{other}', but none of '{self.split}'."
            )
        if found is None:
            raise EdgeMoEError(
                f"'{self.root}' has no folder '{name}', which {FILE} names: "
                f"found {folder_content(self.root)}."
            )
        return found

    def _labels(self, labels: TaskFolder) -> dict[str, Path]:
        files = [path for path in visible(self._folder(labels.folder)) if kind(path) == "file"]
        return _by_stem([path for path in files if path.suffix in ARRAYS or is_picture(path)])

    def _names(self) -> list[str]:
        """Names of the split: of its sub-folder, of its list, or drawn."""
        rule, names = self.about.split, sorted(self.pictures)
        if self._folder(self.about.images) != self.root / self.about.images:
            return names
        if rule.train:
            train, val = (
                [name if name in self.pictures else Path(name).stem for name in read_split(self.root / path)]
                for path in (rule.train, rule.val)
            )
            if self.split == "val" and (both := set(train) & set(val)):
                _LOG.warning(
                    "'%s' has pictures in both lists (%d, such as '%s'): metrics on these say little.",
                    self.root, len(both), min(both),
                )  # fmt: skip
            return train if self.split == "train" else val
        if len(names) < 2:
            raise EdgeMoEError(f"'{self.root}' has 1 picture: two splits need at least 2.")
        count = min(max(1, round(len(names) * rule.fraction)), len(names) - 1)
        drawn = set(np.random.default_rng(rule.seed).permutation(len(names))[:count].tolist())
        return [name for place, name in enumerate(names) if (place in drawn) == (self.split == "val")]

    def image_path(self, identifier: str) -> Path:
        return self.pictures.get(identifier, self._folder(self.about.images) / f"{identifier}.png")

    def label_path(self, task: str, identifier: str) -> Path:
        labels = self.about.tasks[task]
        name = identifier + labels.suffix
        return self.labels[task].get(name, self._folder(labels.folder) / f"{name}.png")

    def read_picture(self, path: Path) -> np.ndarray:
        rotation = self.about.rotation
        picture = open_picture(path)
        if not rotation and picture.getexif().get(ORIENTATION, 1) != 1:
            raise EdgeMoEError(
                f"picture '{path}' has an EXIF rotation: say in {FILE} how its labels lie, "
                'rotation = "upright" or rotation = "stored".'
            )
        return to_rgb(path, picture, upright=rotation == "upright")

    def read_label_of(
        self, task: str, path: Path, identifier: str, image_size: tuple[int, int]
    ) -> np.ndarray:
        labels, of_kind = self.about.tasks[task], TASKS[task].kind
        if of_kind == "vector":
            normals = read_normals(path)
            return normals * np.array((1, -1, -1), np.float32) if labels.axes == "y up" else normals
        if of_kind == "classes" and labels.colours and path.suffix not in ARRAYS:
            picture = open_picture(path)
            if picture.mode in ("RGB", "RGBA", "P"):
                indices = _from_colours(path, np.array(picture.convert("RGB")), labels, picture.mode != "P")
                if indices is not None:
                    return indices
        if path.suffix == ".mat":
            stored = read_mat_map(path, labels.variable)
        elif path.suffix == ".npy":
            stored = read_map(path)
        else:
            stored = read_label(path, floats=True) if of_kind == "scalar" else read_mask(path)
        if of_kind == "classes":
            return self.maps[task](path, stored)
        unknown = np.isin(stored, labels.ignore)
        stored = np.where(unknown, stored.dtype.type(0), stored)
        if of_kind == "scalar":
            return _metres(path, stored, labels)
        return np.where(unknown, np.uint8(IGNORE_LABEL), binary_map(path, stored))


def _metres(path: Path, stored: np.ndarray, labels: TaskFolder) -> np.ndarray:
    """Depth in metres, or disparity as stored where nothing turns it into metres."""
    if labels.disparity:
        disparity = clean_depth(path, stored, "inverse")
        if not labels.baseline_focal:
            return disparity
        measured = disparity > 0
        stored = np.where(measured, labels.baseline_focal / np.where(measured, disparity, 1), 0)
    elif labels.metres_per_unit:
        stored = stored * np.float32(labels.metres_per_unit)
    elif stored.dtype.kind != "f":
        raise EdgeMoEError(
            f"depth '{path}' has {stored.dtype} values: state in {FILE} what one is, such as "
            "metres_per_unit = 0.001 for millimetres, or disparity = true."
        )
    return clean_depth(path, stored)


def _by_stem(files: list[Path]) -> dict[str, Path]:
    """The files by their names without suffix; an error for two of one name."""
    found: dict[str, Path] = {}
    for path in files:
        if other := found.get(path.stem):
            raise EdgeMoEError(f"'{other}' and '{path.name}' have the same name: keep one of them.")
        found[path.stem] = path
    return found


def _from_colours(path: Path, pixels: np.ndarray, labels: TaskFolder, strict: bool) -> np.ndarray | None:
    """Class indices of RGB pixels; for an unknown colour None, or with ``strict`` an error."""
    codes = pixels.astype(np.int32) @ np.array((65536, 256, 1), np.int32)
    found, inverse = np.unique(codes, return_inverse=True)
    table = {_code(colour): IGNORE_LABEL for colour in labels.ignore_colours}
    table |= {_code(colour): index for index, colour in enumerate(labels.colours)}
    unknown = [code for code in found.tolist() if code not in table]
    if unknown:
        if not strict:
            return None
        shown = ", ".join(str([code >> 16, code >> 8 & 255, code & 255]) for code in unknown[:3])
        more = f" and {len(unknown) - 3} more" if unknown[3:] else ""
        raise EdgeMoEError(
            f"mask '{path}' has the colours {shown}{more}, which {FILE} does not name: add them to "
            "ignore_colours, or store masks without loss (PNG, not JPEG; no smoothing)."
        )
    return np.array([table[code] for code in found.tolist()], np.uint8)[inverse].reshape(codes.shape)


def _code(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


class UnlabelledDataset(TaskDataset):
    """The pictures of a folder, upright and without labels; both splits have all of them."""

    def __init__(self, root: Path, split: Split) -> None:
        self.name, self.split, self.tasks = "images", split, {}
        self.class_names, self.palette = {}, {}
        self.files = pictures_in(root)
        unique = len({path.stem for path in self.files}) == len(self.files)
        self.names = [path.stem if unique else path.name.replace(".", "_") for path in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        return {IMAGE: read_image(self.files[index])}

    def image_id(self, index: int) -> str:
        return self.names[index]
