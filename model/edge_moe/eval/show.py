# SPDX-License-Identifier: Apache-2.0
"""``edge-moe show``: pictures of every task's prediction, for any picture, folder, video or data set."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from edge_moe.config import Preset
from edge_moe.data.transforms import evaluation_resize
from edge_moe.eval.evaluate import resize_prediction
from edge_moe.eval.run import load_for_inference, open_validation
from edge_moe.eval.visualize import panel
from edge_moe.nn import M3ViT
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import replacing
from edge_moe_host.runtime.images import frames, unused_name

_LOG = logging.getLogger(__name__)


def show_dataset(
    checkpoint: Path, data: str, count: int, out: Path, tasks: Sequence[str] | None, device: str
) -> Iterator[Path]:
    """Pictures of ``count`` validation images, spread over the split, next to their ground truth.

    Yields each file as it is written.
    """
    if count < 1:
        raise EdgeMoEError(f"count = {count} is not allowed: show at least 1 picture.")
    model, preset, chosen, trained_on = load_for_inference(checkpoint, tasks, device)
    dataset = open_validation(preset, data, chosen, unlabelled=True)
    names, palette = dataset.class_names, dataset.palette
    if not dataset.tasks:
        names, palette = _class_style(preset, trained_on, chosen)
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)):
        sample = dataset[int(index)]
        name = dataset.image_id(int(index))
        picture = panel(
            sample["image"],
            predict(model, sample["image"], chosen),
            {task: sample[task] for task in chosen} if dataset.tasks else None,
            class_names=names,
            palette=palette,
            title=name,
            depth_kind=dataset.depth_kind,
        )
        yield _write(picture, out / f"{name}.png")


def show_images(
    checkpoint: Path, images: Sequence[Path], out: Path, tasks: Sequence[str] | None, every: int, device: str
) -> Iterator[Path]:
    """Pictures for image files, folders of images and video files; yields each file as it is written.

    Predictions are drawn at the picture's own size. Every ``every``-th frame of a video is used.
    """
    if every < 1:
        raise EdgeMoEError(f"every = {every} is not allowed: it must be at least 1.")
    model, preset, chosen, trained_on = load_for_inference(checkpoint, tasks, device)
    names, palette = _class_style(preset, trained_on, chosen)
    used: set[str] = set()
    for source in images:
        for number, frame in enumerate(frames(source)):
            if number % every:
                continue
            predictions = predict(model, frame.image, chosen)
            picture = panel(frame.image, predictions, class_names=names, palette=palette, title=frame.name)
            path = out / f"{unused_name(frame.name, source, used)}.png"
            at = source.resolve()
            if path.exists() and path.resolve() in (at, at / path.name):
                raise EdgeMoEError(f"'{path}' would be replaced: choose another --out.")
            yield _write(picture, path)


def predict(model: M3ViT, image: np.ndarray, tasks: Sequence[str]) -> dict[str, np.ndarray]:
    """Raw outputs float32 [C, H, W] at the size of ``image``, uint8 [H, W, 3] RGB."""
    resized = evaluation_resize({"image": image}, model.cfg.image_size)["image"]
    batch = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))[None]
    with torch.inference_mode():
        output = model(batch.to(model.pos_embed.device), list(tasks))
    height, width = image.shape[:2]
    return {task: resize_prediction(y[0], (height, width)) for task, y in output.predictions.items()}


def _class_style(
    preset: Preset, data: str, tasks: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, np.ndarray]]:
    """Class names and colours of the model's training data, if that is available."""
    try:
        dataset = open_validation(preset, data, tasks)
    except EdgeMoEError:
        reason = f"'{data}' is not available" if data else "the checkpoint names no data set"
        _LOG.info("%s: classes are drawn by number.", reason)
        return {}, {}
    return dataset.class_names, dataset.palette


def _write(picture: np.ndarray, path: Path) -> Path:
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary)
    return path
