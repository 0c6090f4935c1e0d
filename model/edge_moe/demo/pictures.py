# SPDX-License-Identifier: Apache-2.0
"""The demo's drawings: every form of every result in the same colours, and the expert of each patch."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

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

FORMS = ("truth", "float", "integer", "accelerator")
_SHARE = 0.65  # of experts' colours over a picture

Values = dict[str, Any]


def draw_results(folder: Folder, trained: Trained, shown: Values, backend: str) -> Values:
    """Write every picture; return each one's agreement of integers and floats. ``backend``: accelerator."""
    bundle, images = load_bundle(folder.bundle), load_images(folder.images)
    integer, accelerator = load_record(folder.record("golden")), load_record(folder.record(backend))
    agreement = []
    for number, (name, index) in enumerate(zip(shown["names"], shown["indices"], strict=True)):
        image, sample = images[number], trained.dataset[index]
        _write(image, folder.drawing(name, "input"))
        floats = predict(trained.model, image, trained.tasks)
        row = {}
        for task, program in bundle.tasks.items():
            results = {
                "integer": _result(program, integer.raw[task][number], image),
                "accelerator": _result(program, accelerator.raw[task][number], image),
            }
            maps = {"truth": sample[task], "float": decode(task, floats[task])}
            maps |= {form: result.values for form, result in results.items()}
            kind, palette = results["integer"].kind, results["integer"].palette
            limit = depth_limit(maps["truth"]) if kind == "scalar" else None
            for form in FORMS:
                drawn = draw_values(kind, maps[form], palette=palette, limit=limit, predicted=form != "truth")
                _write(drawn, folder.drawing(name, task, form))
            unit = "m" if kind == "scalar" and trained.dataset.depth_kind == "metric" else ""
            agreed = _agreement(kind, maps["float"], maps["integer"])
            row[task] = {"limit": limit, "unit": unit, **agreed}
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


def _agreement(kind: str, floats: np.ndarray, integers: np.ndarray) -> Values:
    """For classes the share of equal pixels, else the mean absolute difference."""
    if kind == "classes":
        return {"same": float(np.mean(floats == integers))}
    return {"difference": float(np.mean(np.abs(floats - integers)))}


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
