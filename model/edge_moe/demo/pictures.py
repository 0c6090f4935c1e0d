# SPDX-License-Identifier: Apache-2.0
"""The demo's drawings: every form of every result in the same colours, and the expert of each patch."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from edge_moe.demo.backends import REFERENCE
from edge_moe.demo.flow import Trained
from edge_moe.demo.folder import Folder
from edge_moe.eval.show import predict
from edge_moe.eval.visualize import decode
from edge_moe_host.contract.bundle import Bundle, TaskProgram, load_bundle
from edge_moe_host.files import replacing
from edge_moe_host.golden.interpreter import run_program
from edge_moe_host.golden.trace import Trace
from edge_moe_host.runtime.drawing import depth_limit, distinct_palette, draw_values, overlay
from edge_moe_host.runtime.record import load_images, load_record
from edge_moe_host.runtime.result import Raw, Result, make_result

FORMS = ("truth", "float", "integer", "difference")
_SHARE = 0.65  # of experts' colours over a picture

Values = dict[str, Any]


def draw_results(folder: Folder, trained: Trained, shown: Values) -> Values:
    """Write every picture, with the integers on which all backends agree; return how near floats are."""
    bundle, images = load_bundle(folder.bundle), load_images(folder.images)
    integer = load_record(folder.record(REFERENCE))
    agreement = []
    for number, (name, index) in enumerate(zip(shown["names"], shown["indices"], strict=True)):
        image, sample = images[number], trained.dataset[index]
        _write(image, folder.drawing(name, "input"))
        floats = predict(trained.model, image, trained.tasks)
        row = {}
        for task, program in bundle.tasks.items():
            result = _result(program, integer.raw[task][number], image)
            maps = {"truth": sample[task], "float": decode(task, floats[task]), "integer": result.values}
            kind, palette = result.kind, result.palette
            limit = depth_limit(maps["truth"]) if kind == "scalar" else None
            for form, values in maps.items():
                drawn = draw_values(kind, values, palette=palette, limit=limit, predicted=form != "truth")
                _write(drawn, folder.drawing(name, task, form))
            differences = _differences(kind, maps["float"], maps["integer"])
            most = float(differences.max())
            _write(_heat(differences / (most or 1)), folder.drawing(name, task, "difference"))
            unit = "m" if kind == "scalar" and trained.dataset.depth_kind == "metric" else ""
            agreed = {"same": float(np.mean(differences == 0))} if kind == "classes" else {"most": most}
            row[task] = {"limit": limit, "unit": unit, "difference": float(differences.mean()), **agreed}
        agreement.append(row)
    return {
        "forms": agreement,
        "legend": {
            task: [{"name": style.name, "colour": style.colour} for style in program.entry.classes]
            for task, program in bundle.tasks.items()
        },
        "kinds": {task: program.entry.output.kind for task, program in bundle.tasks.items()},
        "routing": draw_routing(folder, bundle, images[0], shown["names"][0]),
    }


def _result(program: TaskProgram, raw: np.ndarray, image: np.ndarray) -> Result:
    return make_result(program, Raw(raw, None, 0.0), image)


def _differences(kind: str, floats: np.ndarray, integers: np.ndarray) -> np.ndarray:
    """[h, w]: for classes where they differ, else the absolute difference, of vectors its length."""
    if kind == "classes":
        return (floats != integers).astype(np.float32)
    difference = np.abs(floats - integers)
    return np.linalg.norm(difference, axis=2) if difference.ndim == 3 else difference


def _heat(shares: np.ndarray) -> np.ndarray:
    """Black for 0 to white for 1."""
    return np.rint(255 * colormaps["inferno"](shares)[..., :3]).astype(np.uint8)


def draw_routing(folder: Folder, bundle: Bundle, image: np.ndarray, name: str) -> Values:
    """Write, for each task and MoE block, the picture with every patch in the colour of its first expert."""
    model = bundle.manifest.model.config
    colours = _expert_colours(model["num_experts"])
    blocks: dict[str, list[int]] = {}
    for task, program in bundle.tasks.items():
        trace = Trace()
        run_program(bundle, task, image[None], trace)
        blocks[task] = sorted(map(int, program.entry.expert_ids))
        for block in blocks[task]:
            ids = np.array(program.entry.expert_ids[str(block)])
            first = ids[trace.tensors[f"block{block}.gate.expert"][0, 1:, 0]]  # the class token has no patch
            _write(
                _patches(colours[first], image, model["patch_size"]),
                folder.drawing(name, task, f"block{block}"),
            )
    return {"picture": name, "blocks": blocks, "colours": colours.tolist()}


def _expert_colours(count: int) -> np.ndarray:
    """uint8 [count, 3]."""
    for name in ("tab10", "tab20"):
        if count <= colormaps[name].N:
            return np.rint(255 * colormaps[name](np.arange(count))[:, :3]).astype(np.uint8)
    return distinct_palette(count + 1)[1:]  # the first is black


def _patches(colours: np.ndarray, image: np.ndarray, size: int) -> np.ndarray:
    """[patches, 3] over a picture, with thin lines between."""
    height, width = image.shape[0] // size, image.shape[1] // size
    drawn = colours.reshape(height, width, 3).repeat(size, axis=0).repeat(size, axis=1)
    mixed = overlay(image, drawn, _SHARE)
    mixed[size::size] = mixed[:, size::size] = 255
    return mixed


def _write(pixels: np.ndarray, path: Path) -> None:
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, optimize=True)
