# SPDX-License-Identifier: Apache-2.0
"""``edge-moe quantise``: from a float checkpoint to a file that holds its integer network."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edge_moe.checkpoint import load_model
from edge_moe.config import Preset
from edge_moe.data import TaskDataset, open_dataset
from edge_moe.data.sample import IMAGE, resize_image
from edge_moe.eval import evaluate as evaluation
from edge_moe.eval.report import format_value
from edge_moe.eval.run import chosen_tasks, open_validation
from edge_moe.nn import M3ViT
from edge_moe.quant.build import build_network
from edge_moe.quant.calibrate import calibrate
from edge_moe.quant.fake import FakeQuantiser
from edge_moe.quant.integer_model import IntegerModel
from edge_moe.quant.network import IntegerNetwork
from edge_moe.quant.options import MAX_BITS, QuantOptions
from edge_moe.quant.prune import drop_table, task_path, weight_bits
from edge_moe.quant.report import layer_report, snr_table
from edge_moe.quant.storage import SUFFIX, is_network, load_network, save_network
from edge_moe.quant.widths import choose_bits, mean_bits
from edge_moe.tasks import TASKS
from edge_moe_host.errors import EdgeMoEError

Extra = dict[str, Any]

REPORT_IMAGES = 4


def quantise_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    data: str | None = None,
    options: QuantOptions | None = None,
    evaluate: bool = False,
    report: bool = False,
    limit: int | None = None,
    progress: bool = True,
) -> str:
    """Write the integer network of ``checkpoint`` to ``out`` (``*.int.npz``); returns a summary.

    ``data`` defaults to the checkpoint's training data: its training split is used for calibration, and
    with ``evaluate`` the first ``limit`` images of its validation split measure both forms of the model
    (that of the training data where ``data`` has no labels).
    With ``report`` the summary has the signal-to-noise ratio of every intermediate. Raises EdgeMoEError
    for bad input of any kind; the file is written before anything is measured.
    """
    if not is_network(out):
        raise EdgeMoEError(f"'{out}' is no name for an integer network: it must end in '{SUFFIX}'.")
    model, preset, network, extra = _quantised(checkpoint, data, options, progress)
    save_network(network, out, extra)
    parts = [_summary(network, extra, model, out)]
    if extra["options"]["drop_unused_experts"] and network.config.moe_blocks:
        parts.append(drop_table(network, extra))
    if evaluate:
        parts.append(accuracy_table(model, network, extra, preset, labelled_data(extra), limit, progress))
    if report:
        dataset = open_calibration(preset, extra["data"])
        images = np.stack(list(calibration_images(dataset, preset, REPORT_IMAGES, progress=False)))
        parts.append(snr_table(layer_report(model, network, extra["scales"], images)))
    return "\n\n".join(parts)


def quantise_model(
    model: M3ViT,
    preset: Preset,
    data: str,
    options: QuantOptions,
    *,
    tuned: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> tuple[IntegerNetwork, Extra]:
    """Post-training quantisation on the training split of ``data``.

    ``tuned``: grids on which the model was fine-tuned (``quantisation`` of its checkpoint); they are
    used unchanged, without observer and bias correction, and options for widths are an error. The
    second result is extra data: ``scales`` (:mod:`edge_moe.quant.scales`), ``usage`` (task -> int64
    [MoE blocks, experts]), ``options``, ``data``, ``images`` (number used for calibration), ``tuned``
    (whether scales come from fine-tuning).
    """
    if tuned is not None and (options.expert_bits != MAX_BITS or options.average_expert_bits is not None):
        raise EdgeMoEError("this checkpoint was fine-tuned with widths of its own: ask for no expert bits.")
    dataset = open_calibration(preset, data)
    calibration = calibrate(model, calibration_images(dataset, preset, options.images, progress), options)
    if tuned is not None:
        grids = FakeQuantiser.from_plain(tuned)
        scales = dict(grids.scales)
        network = build_network(model, scales, options, expert_bits=grids.expert_bits)
    else:
        scales, bits, average = calibration.scales, None, options.average_expert_bits
        if average is not None and model.cfg.moe_blocks:
            bits = choose_bits(model, scales, calibration, average)
        network = build_network(model, scales, options, calibration, bits)
    extra = {
        "scales": scales,
        "usage": dict(calibration.usage),
        "options": dataclasses.asdict(options),
        "data": data,
        "images": len(calibration.images),
        "tuned": tuned is not None,
    }
    return network, extra


def obtain_network(
    path: Path,
    *,
    tasks: Sequence[str] | None = None,
    data: str | None = None,
    options: QuantOptions | None = None,
    progress: bool = True,
) -> tuple[IntegerNetwork, Extra]:
    """(network, extra) of a ``.int.npz`` file, or of a float checkpoint, quantised now.

    ``data`` calibrates a checkpoint and defaults to its training data; ``data`` and ``options`` have no
    meaning for a file that holds integers. Raises EdgeMoEError for bad input of any kind; a task of ``tasks``
    that the checkpoint does not have is an error before it is calibrated.
    """
    return load_network(path) if is_network(path) else _quantised(path, data, options, progress, tasks)[2:]


def _quantised(
    path: Path,
    data: str | None,
    options: QuantOptions | None,
    progress: bool,
    tasks: Sequence[str] | None = None,
) -> tuple[M3ViT, Preset, IntegerNetwork, Extra]:
    model, preset, meta = load_model(path)
    chosen_tasks(path, preset, tasks)
    spec = data or str(meta["data"])
    if not spec:
        raise EdgeMoEError(f"'{path}' does not say what it was trained on: give --data SPEC to calibrate.")
    options, tuned = options or QuantOptions(), meta["quantisation"]
    network, extra = quantise_model(model, preset, spec, options, tuned=tuned, progress=progress)
    return model, preset, network, {**extra, "trained_on": str(meta["data"])}


def labelled_data(extra: Extra) -> str:
    """What calibrated a network; if those are pictures without labels, what it was trained on, if known."""
    data = str(extra["data"])
    return str(extra.get("trained_on") or data) if data.startswith("images:") else data


def open_calibration(preset: Preset, data: str) -> TaskDataset:
    """Training split of ``data`` with the labels of all tasks, or pictures without labels."""
    model, train = preset.model, preset.train
    size, counts = model.image_size, (train.train_images, train.val_images)
    return open_dataset(data, "train", dict(model.tasks), size, *counts, unlabelled=True)


def calibration_images(
    dataset: TaskDataset, preset: Preset, count: int, progress: bool = True
) -> Iterator[np.ndarray]:
    """uint8 [H, W, 3] of the model's size: pictures spread evenly over the split."""
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    for index in tqdm(chosen, desc="calibrate", unit="img", disable=not progress or None):
        yield resize_image(dataset[int(index)][IMAGE], preset.model.image_size)


def accuracy_table(
    model: M3ViT,
    network: IntegerNetwork,
    extra: Extra,
    preset: Preset,
    data: str,
    limit: int | None = None,
    progress: bool = True,
) -> str:
    """Markdown: the headline metric of every task on the validation split, in float and in integers.

    If the quantisation was to drop unused experts, integers are measured with and without them.
    """
    titles = ["float", "integer"]
    if extra["options"]["drop_unused_experts"]:
        titles.append("without unused experts")
    lines = [f"| task | metric | {' | '.join(titles)} |", f"|---|---|{'---:|' * len(titles)}"]
    images = 0
    for task in network.tasks:
        forms = [model, IntegerModel(network.path(task)), IntegerModel(task_path(network, task, extra))]
        dataset, name, values = open_validation(preset, data, [task]), TASKS[task].headline, []
        for form in forms[: len(titles)]:
            result = evaluation.evaluate(form, dataset, [task], limit=limit, progress=progress)
            values.append(result.metrics[task][name])
            images = result.images
        cells = [format_value(task, name, values[0])]
        cells += [f"{format_value(task, name, v)} ({_change(v, values[0])})" for v in values[1:]]
        lines.append(f"| {task} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\n{images} images of the validation split of {data}; changes are relative."


def _change(value: float, reference: float) -> str:
    return f"{100 * (value / reference - 1):+.2f} %" if reference else "float: 0"


def _summary(network: IntegerNetwork, extra: Extra, model: M3ViT, out: Path) -> str:
    origin = "grids of fine-tuning" if extra["tuned"] else f"observer {extra['options']['observer']}"
    floats = sum(parameter.numel() for parameter in model.parameters()) * 4 / 1e6
    bits = network.expert_bits
    experts = f", experts {mean_bits(bits):.2f} bits on average" if bits else ""
    return (
        f"{out}: weights {weight_bits(network) / 8e6:.2f} MB (float32: {floats:.2f} MB){experts}; "
        f"calibrated on {extra['images']} images of {extra['data']}, {origin}."
    )
