# SPDX-License-Identifier: Apache-2.0
"""``edge-moe compile``, ``inspect``, ``estimate`` and ``run``: what the command line prints."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edge_moe.compiler.accelerator import load_accelerator
from edge_moe.compiler.compile import CompileReport, compile_bundle
from edge_moe.compiler.estimate import Estimate, estimate_images, estimate_table, estimate_task
from edge_moe.compiler.inspect import inspect_bundle
from edge_moe.compiler.interpreter import run_program, task_output
from edge_moe.compiler.opening import open_bundle, task_of
from edge_moe.config import ModelConfig, from_dict
from edge_moe.errors import EdgeMoEError
from edge_moe.files import replacing
from edge_moe.golden.operators import upsample_sums
from edge_moe_host.bundle import Bundle
from edge_moe_host.csim import open_csim

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
    bundle: Path, images: Sequence[Path], out: Path, task: str | None = None, backend: str = "interpreter"
) -> str:
    """Run pictures through a bundle and draw each task's map; the files written.

    ``backend``: ``interpreter``, or ``csim``, the C simulation that ``make -C hls csim`` builds.
    """
    from edge_moe.data.images import iter_frames
    from edge_moe.data.sample import resize_image

    opened = open_bundle(bundle)
    execute = _executor(opened, backend)
    names = [task] if task else list(opened.tasks)
    lines = []
    for source in images:
        for frame_name, frame in iter_frames(source):
            for name in names:
                height, width, _ = task_of(opened, name).entry.image
                raw = execute(name, resize_image(frame, (height, width)))
                path = out / f"{Path(frame_name).stem}.{name}.png"
                _draw(opened, name, raw, path)
                lines.append(str(path))
    return "\n".join(lines)


def _executor(bundle: Bundle, backend: str) -> Callable[[str, np.ndarray], np.ndarray]:
    """(task, uint8 [H, W, 3]) -> int16 [h*w, C]."""
    if backend == "interpreter":
        return lambda task, image: run_program(bundle, task, image)
    csim = open_csim(bundle)  # its errors are BundleErrors, each one sentence too
    return lambda task, image: csim.run(bundle, task, image).raw


def task_values(bundle: Bundle, task: str, raw: np.ndarray) -> np.ndarray:
    """What a raw result [h*w, C] means: float32 [C, H, W], the model's output at the image's size."""
    out = task_of(bundle, task).entry.output
    sums = upsample_sums(raw[None], out.height, out.width, out.factor)[0]
    return (sums * (out.scale / (2 * out.factor) ** 2)).transpose(2, 0, 1).astype(np.float32)


def _draw(bundle: Bundle, task: str, raw: np.ndarray, path: Path) -> None:
    from PIL import Image

    from edge_moe.eval.visualize import decode, draw

    entry = task_of(bundle, task).entry
    if entry.output.kind == "classes":
        values = task_output(bundle, task, raw[None])[0]
    else:
        values = decode(task, task_values(bundle, task, raw))
    palette = np.array([style.colour for style in entry.classes], np.uint8) if entry.classes else None
    with replacing(path) as temporary:
        Image.fromarray(draw(task, values, palette=palette)).save(temporary)


def read_pictures(bundle: Bundle, task: str, paths: Sequence[Path]) -> np.ndarray:
    """uint8 [n, H, W, 3]: pictures, folders of them, or frames of videos, at the size that the task takes."""
    from edge_moe.data.images import iter_frames
    from edge_moe.data.sample import resize_image

    height, width, _ = task_of(bundle, task).entry.image
    pictures = [resize_image(frame, (height, width)) for path in paths for _, frame in iter_frames(path)]
    if not pictures:
        raise EdgeMoEError("there are no pictures: give at least one.")
    return np.stack(pictures)
