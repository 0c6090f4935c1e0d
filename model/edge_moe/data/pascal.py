# SPDX-License-Identifier: Apache-2.0
"""PASCAL-Context (Mottaghi et al., CVPR 2014) in the multi-task archive PASCAL_MT.

The archive of Maninis et al. (CVPR 2019), which M3ViT uses too::

    ImageSets/Context/{train,val}.txt             one ID per line
    JPEGImages/ID.jpg
    semseg/VOC12/ID.png, semseg/pascal-context/ID.png   21 classes of VOC, 255 ignored; first found
    human_parts/ID.mat                            PASCAL-Part: "anno" with objects and their parts
    sal_distill/ID.png                            0 and 1, 0 and 255, or grey, salient above one half
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
    archive_folder,
    binary_map,
    check_tasks,
    class_tables,
    read_split,
)
from edge_moe.data.images import read_label, read_mask, read_mat, read_mat_map
from edge_moe.data.nyud import read_normals
from edge_moe.tasks import IGNORE_LABEL
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import kind
from edge_moe_host.runtime.drawing import distinct_palette

_TABLES = class_tables("pascal")
CLASS_NAMES = tuple(_TABLES["names"])
PART_NAMES = ("background", *_TABLES["parts"])
PART_INDEX = {part: index for index, parts in enumerate(_TABLES["parts"].values(), 1) for part in parts}
PERSON = 15  # class_ind of a person in PASCAL-Part

KNOWN_TASKS = {
    "semseg": (len(CLASS_NAMES),),
    "human_parts": (len(PART_NAMES),),
    "saliency": (1,),
    "normals": (3,),
    "edge": (1,),
}


class PascalDataset(FileDataset):
    """One split of PASCAL_MT; ``root`` is the archive's folder or the folder that contains it."""

    def __init__(self, root: Path, split: Split, tasks: Mapping[str, int]) -> None:
        checked = check_tasks("pascal", tasks, KNOWN_TASKS)
        splits, images = "ImageSets/Context", "JPEGImages"
        content = f"{splits}/, {images}/, semseg/, human_parts/, sal_distill/, normals_distill/, "
        content += "pascal-context/trainval/"
        self.root = archive_folder(root, "PASCAL_MT", "PASCAL-Context", (splits, images), content)
        self.index_map = IndexMap(
            {index: index for index in range(len(CLASS_NAMES))} | {IGNORE_LABEL: IGNORE_LABEL}
        )
        super().__init__("pascal", split, checked, read_split(self.root / splits / f"{split}.txt"))
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
            return context if kind(context) == "file" and kind(voc) != "file" else voc
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
            return binary_map(path, read_mask(path))
        if task == "edge":
            return class_boundaries(read_mat_map(path, "LabelMap"))
        normals, context_path = read_normals(path), self._context_path(identifier)
        context = read_mat_map(context_path, "LabelMap")
        if context.shape != normals.shape[:2]:
            raise EdgeMoEError(
                f"label map '{context_path}' has {context.shape} pixels, but the normals '{path}' have "
                f"{normals.shape[:2]}."
            )
        # zero on classes that the source network has never seen
        normals[~np.isin(context, _TABLES["normals"])] = 0
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
    for turned, edges in ((labels, boundary), (labels.T, boundary.T)):
        changes = turned[1:] != turned[:-1]
        edges[1:] |= changes
        edges[:-1] |= changes
    return thin(boundary).astype(np.uint8)
