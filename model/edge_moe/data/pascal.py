# SPDX-License-Identifier: Apache-2.0
"""PASCAL-Context (Mottaghi et al., CVPR 2014) in the multi-task archive PASCAL_MT.

The archive of Maninis et al. (CVPR 2019), which M3ViT uses too::

    ImageSets/Context/{train,val}.txt             one ID per line
    JPEGImages/ID.jpg
    semseg/VOC12/ID.png, semseg/pascal-context/ID.png   21 classes of VOC, 255 ignored; first found
    human_parts/ID.mat                            PASCAL-Part: "anno" with objects and their parts
    sal_distill/ID.png                            grey, salient above one half
    normals_distill/ID.png                        8 bits that store 255 * (n + 1) / 2
    pascal-context/trainval/ID.mat                "LabelMap" of 459 classes: edges, validity of normals

Edges are the boundaries of the 459 classes thinned to one pixel. Normals were distilled from a
network trained on NYUD-v2, so they count only on classes that NYUD-v2 knows. A picture in which
no person has annotated parts is ignored for human_parts. Normals keep the axes of the archive;
see :mod:`edge_moe.data.nyud`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from skimage.morphology import thin

from edge_moe.data.base import (
    FileDataset,
    IndexMap,
    Split,
    check_tasks,
    folder_content,
    read_split,
)
from edge_moe.data.images import read_label, read_mat, read_mat_array
from edge_moe.data.nyud import decode_normals
from edge_moe.tasks import IGNORE_LABEL
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.runtime.drawing import distinct_palette

CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv monitor",
)  # fmt: skip

PART_NAMES = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
# PASCAL-Part's names of the parts of a person, without the sides, merged into PART_NAMES.
PART_GROUPS: dict[str, tuple[str, ...]] = {
    "head": ("head", "hair", "mouth", "nose", "lear", "rear", "leye", "reye", "lebrow", "rebrow"),
    "torso": ("torso", "neck"),
    "upper arm": ("luarm", "ruarm"),
    "lower arm": ("llarm", "rlarm", "lhand", "rhand"),
    "upper leg": ("luleg", "ruleg"),
    "lower leg": ("llleg", "rlleg", "lfoot", "rfoot"),
}
PART_INDEX = {part: PART_NAMES.index(group) for group, parts in PART_GROUPS.items() for part in parts}
PERSON = 15  # class_ind of a person in PASCAL-Part

# PASCAL-Context classes whose name is also the name of an object class of NYUD-v2, and "tvmonitor".
NORMALS_CLASSES = (
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50,
    51, 53, 55, 56, 59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104,
    105, 107, 111, 113, 115, 122, 124, 135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172,
    174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215, 216, 219, 220, 223, 225, 228, 230,
    232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261, 263, 269, 272, 273, 275, 281,
    283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314, 315, 319, 323,
    329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383,
    384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432,
    440, 441, 442, 443, 444, 446, 454, 457,
)  # fmt: skip

KNOWN_TASKS = {
    "semseg": (len(CLASS_NAMES),),
    "human_parts": (len(PART_NAMES),),
    "saliency": (1,),
    "normals": (3,),
    "edge": (1,),
}
ARCHIVE = "PASCAL_MT"


class PascalDataset(FileDataset):
    """One split of PASCAL_MT; ``root`` is the archive's folder or the folder that contains it."""

    def __init__(self, root: Path, split: Split, tasks: Mapping[str, int]) -> None:
        checked = check_tasks("pascal", tasks, KNOWN_TASKS)
        self.root = root / ARCHIVE if (root / ARCHIVE).is_dir() else root
        splits = self.root / "ImageSets" / "Context"
        if not splits.is_dir() or not (self.root / "JPEGImages").is_dir():
            raise EdgeMoEError(
                f"'{self.root}' holds PASCAL-Context in no known layout: known is the {ARCHIVE} archive "
                "(ImageSets/Context/, JPEGImages/, semseg/, human_parts/, sal_distill/, normals_distill/, "
                f"pascal-context/trainval/); found {folder_content(self.root)}."
            )
        self.index_map = IndexMap(
            {index: index for index in range(len(CLASS_NAMES))} | {IGNORE_LABEL: IGNORE_LABEL}
        )
        super().__init__("pascal", split, checked, read_split(splits / f"{split}.txt"))
        for task, names in (("semseg", CLASS_NAMES), ("human_parts", PART_NAMES)):
            if task in checked:
                self.class_names[task] = names
                self.palette[task] = distinct_palette(len(names))

    def image_path(self, identifier: str) -> Path:
        return self.root / "JPEGImages" / f"{identifier}.jpg"

    def label_path(self, task: str, identifier: str) -> Path:
        if task == "semseg":
            voc, context = (
                self.root / "semseg" / source / f"{identifier}.png" for source in ("VOC12", "pascal-context")
            )
            return context if context.is_file() and not voc.is_file() else voc
        if task == "edge":
            return self._context_path(identifier)
        folder, suffix = {
            "human_parts": ("human_parts", ".mat"),
            "saliency": ("sal_distill", ".png"),
            "normals": ("normals_distill", ".png"),
        }[task]
        return self.root / folder / (identifier + suffix)

    def _context_path(self, identifier: str) -> Path:
        return self.root / "pascal-context" / "trainval" / f"{identifier}.mat"

    def read_label_of(
        self, task: str, path: Path, identifier: str, image_size: tuple[int, int]
    ) -> np.ndarray:
        if task == "semseg":
            return self.index_map(path, read_label(path))
        if task == "human_parts":
            return merge_parts(path, read_mat(path, "anno"), image_size)
        if task == "saliency":
            return (read_label(path) > 127).astype(np.uint8)
        if task == "edge":
            return class_boundaries(read_mat_array(path, "LabelMap"))
        return self._read_normals(path, self._context_path(identifier))

    def _read_normals(self, path: Path, context_path: Path) -> np.ndarray:
        """Distilled normals; zero on classes that the source network has never seen."""
        normals = decode_normals(path)
        context = read_mat_array(context_path, "LabelMap")
        if context.shape != normals.shape[:2]:
            raise EdgeMoEError(
                f"label map '{context_path}' has {context.shape} pixels, but the normals '{path}' have "
                f"{normals.shape[:2]}."
            )
        normals[~np.isin(context, NORMALS_CLASSES)] = 0
        return normals


def merge_parts(path: Path, annotation: Any, image_size: tuple[int, int]) -> np.ndarray:
    """uint8 H x W index into PART_NAMES from PASCAL-Part's "anno"; all 255 where no person has parts.

    Later parts cover earlier ones.
    """
    parts = np.zeros(image_size, dtype=np.uint8)
    found = False
    try:
        for item in np.atleast_1d(annotation.objects):
            if int(item.class_ind) != PERSON:
                continue
            for part in np.atleast_1d(item.parts):
                if part.part_name not in PART_INDEX:
                    raise EdgeMoEError(
                        f"'{path}' has the unknown human part '{part.part_name}': "
                        f"known are {', '.join(sorted(PART_INDEX))}."
                    )
                mask = np.asarray(part.mask)
                if mask.shape != image_size:
                    raise EdgeMoEError(
                        f"part '{part.part_name}' in '{path}' has a mask of shape {mask.shape}, "
                        f"but its image has {image_size} (height, width)."
                    )
                parts[mask.astype(bool)] = PART_INDEX[part.part_name]
                found = True
    except (AttributeError, TypeError, ValueError) as error:
        raise EdgeMoEError(f"'{path}' is not structured as PASCAL-Part annotations are: {error}.") from None
    return parts if found else np.full(image_size, IGNORE_LABEL, dtype=np.uint8)


def class_boundaries(labels: np.ndarray) -> np.ndarray:
    """uint8 H x W, 1 on pixels with a 4-neighbour of another class, thinned to one pixel."""
    boundary = np.zeros(labels.shape, dtype=bool)
    across = labels[:, 1:] != labels[:, :-1]
    boundary[:, 1:] |= across
    boundary[:, :-1] |= across
    down = labels[1:] != labels[:-1]
    boundary[1:] |= down
    boundary[:-1] |= down
    return thin(boundary).astype(np.uint8)
