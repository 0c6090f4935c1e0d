# SPDX-License-Identifier: Apache-2.0
"""The demo's report: one HTML file that contains everything, made from the demo's results and pictures alone.

report.html.j2 has the page's text, markup and style. This file prepares what the page shows.
"""

import base64
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edge_moe.demo.backends import BOARD, NAMES, TITLES
from edge_moe.demo.folder import Folder
from edge_moe.demo.pictures import FORMS
from edge_moe.demo.published import PUBLISHED, own_rows
from edge_moe.eval.report import format_value
from edge_moe.settings import packaged_names
from edge_moe.tasks import TASKS
from edge_moe.train.folder import CURVES
from edge_moe_host.files import write_text

TEMPLATE = "report.html.j2"
_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_SUMMED = ("cycles", "loops", "counted", "waited", "macs", "weight_bytes", "io_bytes")

Values = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """``source``: the file itself as a data URL. ``caption``: plain text."""

    source: str
    caption: str


@dataclass(frozen=True)
class Kind:
    """All instructions of one kind: their sums, and their share of the frame's cycles."""

    title: str
    count: int
    share: float
    bar: float  # share of the largest kind's
    total: Values


@dataclass(frozen=True)
class Frame:
    """A task's frame on the accelerator."""

    task: str
    estimate: Values
    kinds: list[Kind]
    total: Kind
    plot: Picture


def write_report(path: Path, folder: Folder, results: Values) -> None:
    """Write the page; ``results`` is the content of results.json."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["form"] = _form
    write_text(path, environment.get_template(TEMPLATE).render(page_data(folder, results)))


def page_data(folder: Folder, results: Values) -> Values:
    """The template's values."""
    tasks, routing = results["model"]["tasks"], results["drawn"]["routing"]
    usage = results["metrics"]["integer"]["usage"]
    seconds: dict[str, float] = results["seconds"]
    bundle, checkpoint = (
        shlex.quote(text) for text in (f"{results['folder']}/bundle", results["checkpoint"])
    )
    return {
        "results": results,
        "tasks": tasks,
        "bundle": bundle,
        "checkpoint": checkpoint,
        "curves": _curves(Path(results["checkpoint"]).parent / CURVES),
        "format_value": _with_unit(results),
        "next": _next(results, bundle, checkpoint),
        "compared_backends": [NAMES[name] for name in results["compared"]],
        "compared_values": sum(sum(by_task.values()) for by_task in results["compared"].values()),
        "titles": {NAMES[name]: TITLES[name] for name in results["backends"]},
        "names": NAMES,
        "board": BOARD,
        "headlines": {task: TASKS[task].headline for task in tasks},
        "forms": _forms(folder, results),
        "usage": [
            _picture(folder.usage(task), f"{task}: share of the tokens that each expert gets")
            for task in usage
        ],
        "first_choices": [
            _picture(folder.drawing(routing["picture"], task, f"block{block}"), f"{task}, block {block}")
            for task in tasks
            for block in routing["blocks"][task]
        ],
        "frames": [_frame(folder, task, results["estimate"][task]) for task in tasks],
        "accelerators": [*own_rows(results["published"]), *PUBLISHED],
        "seconds": seconds,
        "longest": max(*seconds.values(), 0.1),
    }


def _form(value: float | None, spec: str) -> str:
    """Format a number as Python does; an empty text for None."""
    return "" if value is None else format(value, spec)


def _picture(path: Path, caption: str) -> Picture:
    data = base64.b64encode(path.read_bytes()).decode()
    return Picture(f"data:{_TYPES[path.suffix]};base64,{data}", caption)


def _curves(path: Path) -> Picture | None:
    """The picture that training left beside the checkpoint."""
    return (
        _picture(path, "training loss, validation metrics, learning rate and gradient norm over epochs")
        if path.is_file()
        else None
    )


def _next(results: Values, bundle: str, checkpoint: str) -> list[tuple[str, str]]:
    """Purpose and command."""
    name = results["model"]["name"]
    on = f"edge-moe train {name} --data {results['data']} --init {checkpoint} --out runs/{name}"
    return [
        ("run the model on a picture of yours", f"edge-moe run {bundle} photo.jpg --overlay --out pictures"),
        ("see the packaged, larger model on it", "edge-moe run --pretrained photo.jpg --out pictures"),
        ("read the program of a task", f"edge-moe inspect {bundle} --task {results['model']['tasks'][0]}"),
        *([("train on, for better results", on)] if name in packaged_names("presets") else []),
        (
            "train on Cityscapes; docs/data.md: yours",
            "edge-moe train mini --data cityscapes:DIR --out runs/city",
        ),
        ("see what the accelerator needs of the FPGA", "edge-moe resources --accelerator zcu104"),
        ("build the bitstream, with Vivado", "make -C board/zcu104 bitstream"),
    ]


def _with_unit(results: Values) -> Callable[[str, str, float], str]:
    """As format_value; errors of depth in metres say so."""
    unit = next((row["depth"]["unit"] for row in results["drawn"]["forms"] if "depth" in row), "")

    def format_with_unit(task: str, name: str, value: float) -> str:
        metres = f" {unit}".rstrip() if task == "depth" and name in ("rmse", "absErr") else ""
        return format_value(task, name, value) + metres

    return format_with_unit


def _forms(folder: Folder, results: Values) -> list[tuple[Picture, list[Picture]]]:
    """For each picture the input, and every form of every task."""
    titles = {"truth": "ground truth", "float": "float32, PyTorch", "integer": "integer, every backend"}
    shown = []
    for name, agreement in zip(results["pictures"]["names"], results["drawn"]["forms"], strict=True):
        drawings = []
        for task in results["model"]["tasks"]:
            for form in FORMS:
                title = titles.get(form) or _difference(agreement[task])
                drawings.append(_picture(folder.drawing(name, task, form), f"{task}: {title}"))
        shown.append((_picture(folder.drawing(name, "input"), f"input, {name}"), drawings))
    return shown


def _difference(agreement: Values) -> str:
    """Caption of the map of differences."""
    if "same" in agreement:
        return f"difference, {100 * agreement['same']:.2f}\N{NO-BREAK SPACE}% equal"
    return "difference, " + ", ".join(
        f"{name} {agreement[key]:.3g}\N{NO-BREAK SPACE}{agreement['unit']}".rstrip()
        for name, key in (("mean", "difference"), ("most", "most"))
    )


def _frame(folder: Folder, task: str, estimate: Values) -> Frame:
    by_title: dict[str, list[Values]] = {}
    for instruction in estimate["instructions"]:
        by_title.setdefault(instruction["title"], []).append(instruction)
    largest = max(sum(i["cycles"] for i in group) for group in by_title.values())

    def kind(title: str, group: list[Values]) -> Kind:
        total = {key: sum(i[key] for i in group) for key in _SUMMED}
        cycles = total["cycles"]
        return Kind(title, len(group), cycles / estimate["cycles"], cycles / largest, total)

    plot = f"{task}: when each instruction runs, and products per cycle against products per byte of weights"
    return Frame(
        task,
        estimate,
        [kind(title, group) for title, group in by_title.items()],
        kind("all", estimate["instructions"]),
        _picture(folder.roofline(task), plot),
    )
