# SPDX-License-Identifier: Apache-2.0
"""``edge-moe compile``, ``inspect``, ``estimate`` and ``run``: what the command line prints."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe.compiler.accelerator import load_accelerator
from edge_moe.compiler.compile import CompileReport, compile_bundle
from edge_moe.compiler.estimate import Estimate, estimate_images, estimate_table, estimate_task
from edge_moe.compiler.inspect import inspect_bundle
from edge_moe.compiler.opening import open_bundle, task_of
from edge_moe.config import ModelConfig, from_dict
from edge_moe.errors import EdgeMoEError
from edge_moe.files import replacing
from edge_moe_host.accelerator import Accelerator, TaskCounters
from edge_moe_host.bundle import Bundle
from edge_moe_host.images import frames, resize_image

# Pictures, onnxruntime and matplotlib are imported by the functions that need them.


def compile_command(
    paths: Sequence[Path],
    accelerator: str,
    out: Path,
    images: Sequence[Path] = (),
    *,
    data: str | None = None,
    verify_images: int = 2,
    verify: bool = True,
) -> str:
    """Compile path.onnx files into a bundle that equals them on pictures.

    These are ``images``, or the first ``verify_images`` validation images of ``data``, or two random ones.
    """
    counts: list[str] = []

    def check(folder: Path) -> None:
        from edge_moe.compiler.verify import verify_bundle

        done = verify_bundle(folder, paths, _pictures(open_bundle(folder), images, data, verify_images))
        counts.append(
            f"verified: {done.values:,} values of {done.tensors} tensors on {done.images} pictures equal "
            "onnxruntime's"
        )

    report = compile_bundle(paths, load_accelerator(accelerator), out, check if verify else lambda _: None)
    return "\n".join([_summary(report), *(counts or ["not verified"])])


def _pictures(bundle: Bundle, images: Sequence[Path], data: str | None, count: int) -> np.ndarray | None:
    if images:
        return read_pictures(bundle, next(iter(bundle.tasks)), images)
    if data is None:
        return None
    from edge_moe.export.source import validation_images

    config: ModelConfig = from_dict(ModelConfig, bundle.manifest.model.config)
    return validation_images(config, data, count)[1]


def _summary(report: CompileReport) -> str:
    lines = [
        f"{report.out}: {report.total_bytes / 1e6:.2f} MB, of which {report.shared_bytes / 1e6:.2f} MB of "
        "weights serve every task"
        if len(report.tasks) > 1
        else f"{report.out}: {report.total_bytes / 1e6:.2f} MB"
    ]
    for task in report.tasks:
        peak, least = report.scratch[task]
        lines.append(
            f"task {task}: {report.instructions[task]} instructions, scratch peak {peak:,} bytes "
            f"(at least {least:,} are needed)"
        )
    return "\n".join(lines)


def inspect_command(bundle: Path, task: str | None = None) -> str:
    """Contents and programs of a bundle."""
    return inspect_bundle(bundle, task)


def estimate_command(
    bundle: Path, task: str | None = None, images: Sequence[Path] = (), plot: Path | None = None
) -> str:
    """Modelled cycles and traffic of each task: experts evenly used, or as the given pictures use them."""
    opened = open_bundle(bundle)
    texts, drawn = [], []
    for name in [task] if task else list(opened.tasks):
        if images:
            estimates = estimate_images(opened, name, read_pictures(opened, name, images))
            shown = sorted(estimates, key=lambda estimate: estimate.cycles)[len(estimates) // 2]
            texts.append(estimate_table(shown) + "\n" + _spread(estimates))
        else:
            shown = estimate_task(opened, name)
            texts.append(estimate_table(shown) + "\nexperts evenly used")
        drawn.append(shown)
    if plot is not None:
        from edge_moe.compiler.plot import plot_estimates

        plot_estimates(drawn, plot)
        texts.append(str(plot))
    return "\n\n".join(texts)


def _spread(estimates: Sequence[Estimate]) -> str:
    cycles = [estimate.cycles for estimate in estimates]
    return (
        f"experts as measured on {len(cycles)} pictures: {min(cycles):,.0f} to {max(cycles):,.0f} cycles, "
        f"mean {sum(cycles) / len(cycles):,.0f}; the table shows the median picture"
    )


def run_command(
    bundle: str | Path | Bundle,
    images: Sequence[Path],
    out: Path,
    task: str | None = None,
    backend: str = "golden",
    *,
    overlay: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Run pictures through a bundle and draw each task's map at the picture's size; yields each file written.

    ``overlay`` draws it over the picture. ``options`` are the backend's. The last lines say what the device
    took. Raises EdgeMoEHostError for bad input.
    """
    from PIL import Image

    with Accelerator.open(backend, bundle, **(options or {})) as accelerator:
        names = accelerator.tasks if task is None else (task,)
        for name in names:
            accelerator.image_size(name)  # an unknown task is an error before any picture is read
        written: set[str] = set()
        for source in images:
            for number, frame in enumerate(frames(source)):
                stem = frame.name
                if stem in written:  # the same name in another folder
                    stem = f"{source.stem}_{number}_{stem}"
                written.add(stem)
                for name, result in accelerator.run_tasks(frame.image, names).items():
                    path = out / f"{stem}.{name}.png"
                    with replacing(path) as temporary:
                        Image.fromarray(result.draw(frame.image if overlay else None)).save(temporary)
                    yield str(path)
        yield from _device_lines(backend, accelerator.counters())


def _device_lines(backend: str, counters: Mapping[str, TaskCounters]) -> Iterator[str]:
    for task, total in counters.items():
        if total.frames:
            cycles = f", {total.cycles / total.frames:,.0f} cycles" if total.cycles else ""
            mean = total.milliseconds / total.frames
            frames = "1 frame" if total.frames == 1 else f"{total.frames} frames"
            yield f"{task} on {backend}: {frames}, mean {mean:.1f} ms{cycles}"


def read_pictures(bundle: Bundle, task: str, paths: Sequence[Path]) -> np.ndarray:
    """uint8 [n, H, W, 3]: pictures, folders of them, or frames of videos, at the size that the task takes."""
    height, width, _ = task_of(bundle, task).entry.image
    pictures = [resize_image(frame.image, (height, width)) for path in paths for frame in frames(path)]
    if not pictures:
        raise EdgeMoEError("there are no pictures: give at least one.")
    return np.stack(pictures)
