# SPDX-License-Identifier: Apache-2.0
"""``edge-moe import``: foreign weights to a checkpoint file, with a report in words."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_moe.checkpoint import save_checkpoint
from edge_moe.config import ModelConfig, load_preset
from edge_moe.importers.assembly import Imported
from edge_moe.importers.edge_moe_bin import DEFAULT_PRESET, import_edge_moe_bin
from edge_moe.importers.m3vit import import_m3vit
from edge_moe.importers.vit import import_vit
from edge_moe.tasks import TASKS
from edge_moe_host.config import to_dict
from edge_moe_host.errors import EdgeMoEError, listed

# not visible in the shapes of an M3ViT checkpoint; the rest is inferred if there is no preset
_FREE_KEYS = {"model.num_heads": "num_heads", "model.top_k": "top_k", "model.image_size": "image_size"}


def import_checkpoint(
    source_format: str,
    source: Path,
    out: Path,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    tasks: Sequence[str] | None = None,
    allow_missing: bool = False,
    source_grid: tuple[int, int] | None = None,
) -> str:
    """Import ``source``, write the checkpoint ``out`` (atomically) and return the report.

    source_format: "vit", "m3vit" or "edge-moe-bin". preset: name or .toml file; overrides as for
    :func:`edge_moe.config.load_preset`. Without a preset an M3ViT model is inferred, and only
    model.num_heads, model.top_k and model.image_size may be overridden. tasks: "NAME=CHANNELS" in
    the order of the gates; "NAME" alone takes the channels of the preset or of the task itself.
    source_grid: rows and columns of the source's position embeddings, where their number does not tell.
    """
    bins = source_format == "edge-moe-bin"
    if preset is None and bins:
        preset = DEFAULT_PRESET
    if preset is None and source_format == "vit":
        raise EdgeMoEError("a ViT starts the model of a preset: give --preset NAME.")
    if allow_missing and source_format == "vit":
        raise EdgeMoEError("--allow-missing belongs to m3vit and edge-moe-bin: a ViT must be whole.")
    if source_grid is not None and bins:
        raise EdgeMoEError("--source-grid belongs to vit and m3vit.")
    base = load_preset(preset, overrides) if preset else None
    channels = None if tasks is None else _channels(tasks, dict(base.model.tasks) if base else {})
    if bins:
        imported = import_edge_moe_bin(source, preset=base, tasks=channels, allow_missing=allow_missing)
    elif base is not None and source_format == "vit":
        imported = import_vit(source, preset=base, tasks=channels, source_grid=source_grid)
    else:
        options = {} if base else _free_options(overrides)
        imported = import_m3vit(
            source,
            preset=base,
            tasks=channels,
            source_grid=source_grid,
            allow_missing=allow_missing,
            **options,
        )
    if base is not None:
        _check_overrides(overrides, base.model, imported.preset.model, source_format)
    save_checkpoint(out, {"preset": to_dict(imported.preset), "model": imported.state})
    return _report(imported, out, listed=source_format != "vit")


def _check_overrides(overrides: Sequence[str], wanted: ModelConfig, got: ModelConfig, source: str) -> None:
    """EdgeMoEError when the source's format decides a value that was set."""
    for override in overrides:
        section, _, name = override.partition("=")[0].strip().partition(".")
        field = name.partition(".")[0]
        if section == "model" and getattr(wanted, field) != (value := getattr(got, field)):
            raise EdgeMoEError(
                f"--set {override}: here {source} has model.{field} = {value!r}; leave it out."
            )


def _channels(tasks: Sequence[str], known: dict[str, int]) -> dict[str, int]:
    result: dict[str, int] = {}
    for entry in tasks:
        task, equals, number = (part.strip() for part in entry.partition("="))
        if task not in TASKS or task in result:
            raise EdgeMoEError(
                f"--task {entry}: name each task once, the known ones are {listed(TASKS, task)}."
            )
        count = (
            int(number) if number.isdecimal() else None if equals else known.get(task, TASKS[task].channels)
        )
        if count is None:
            raise EdgeMoEError(f"--task {entry}: give its number of classes, such as {task}=7.")
        result[task] = count
    return result


def _free_options(overrides: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for override in overrides:
        key, _, text = (part.strip() for part in override.partition("="))
        if key not in _FREE_KEYS:
            raise EdgeMoEError(
                f"--set {override}: without --preset the model is inferred, "
                f"and only {', '.join(_FREE_KEYS)} can be set."
            )
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text
        sides = value if isinstance(value, list) else [value]
        count = 2 if key == "model.image_size" else 1
        if len(sides) != count or not all(type(side) is int and side > 0 for side in sides):
            raise EdgeMoEError(
                f"--set {override}: {key} is "
                + ("[height, width] in pixels." if count == 2 else "a positive whole number.")
            )
        options[_FREE_KEYS[key]] = tuple(sides) if count == 2 else sides[0]
    return options


def _report(imported: Imported, out: Path, listed: bool) -> str:
    cfg = imported.preset.model
    height, width = cfg.image_size
    tasks = ", ".join(f"{task} {channels}" for task, channels in cfg.tasks.items())
    lines = [
        f"{out}: {imported.preset.name}, {cfg.routing}, {height}x{width}, "
        f"{cfg.depth} blocks of {cfg.embed_dim}, {cfg.num_heads} heads; tasks {tasks}",
        *(f"note: {note}" if listed else note for note in imported.notes),
    ]
    if imported.filled and listed:  # a ViT's notes say it shorter
        lines += [f"{len(imported.filled)} parameters were missing and are initialised:"]
        lines += [f"  {name}" for name in imported.filled]
    return "\n".join(lines)
