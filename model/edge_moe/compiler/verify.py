# SPDX-License-Identifier: Apache-2.0
"""Comparison of a compiled bundle with its path.onnx files: every intermediate must be equal."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_moe.accelerator import load_accelerator
from edge_moe.compiler.bundle import CompileReport, compile_bundle
from edge_moe.compiler.read_graph import parse_path
from edge_moe.config import ModelConfig
from edge_moe.export.path import read_path_model
from edge_moe.export.verify import require_equal, traced_model
from edge_moe_host.backends.onnx import Session
from edge_moe_host.config import from_dict
from edge_moe_host.contract.bundle import Bundle, load_bundle
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.interpreter import run_program, task_output
from edge_moe_host.golden.trace import Trace
from edge_moe_host.runtime.images import read_pictures


@dataclass(frozen=True)
class BundleCounts:
    """What was compared: ``values`` integers of ``tensors`` tensors, over all tasks and images."""

    tasks: int
    images: int
    tensors: int
    values: int


def random_pictures(height: int, width: int, count: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, height, width, 3]: coloured blocks with noise, whose routing differs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, size=(count, -(-height // 16), -(-width // 16), 3))
    blocks = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    return np.clip(blocks + rng.integers(-40, 40, size=blocks.shape), 0, 255).astype(np.uint8)


def verify_bundle(path: Path, paths: Sequence[Path], images: np.ndarray | None = None) -> BundleCounts:
    """Run the bundle and stock onnxruntime on uint8 ``images`` [n, H, W, 3] and compare every tensor.

    Without images, two random ones are taken. Raises EdgeMoEError naming the first tensor that differs.
    """
    bundle = load_bundle(path)
    tensors, values, count = 0, 0, 0
    for source in paths:
        model = read_path_model(Path(source))
        graph = parse_path(model, f"'{source}'")
        program = bundle.task(graph.task)
        if graph.config.hash() != bundle.manifest.model.hash:
            raise EdgeMoEError(f"'{source}' is of another model than bundle '{path}': compile it again.")
        height, width, _ = program.entry.image
        pictures = random_pictures(height, width, 2) if images is None else images
        if not len(pictures):
            raise EdgeMoEError("there are no images to verify a bundle on: give at least one.")
        session = Session(traced_model(model).SerializeToString(), f"'{source}'")
        for index in range(len(pictures)):
            done = _compare(bundle, graph.task, session, pictures[index : index + 1], index)
            tensors, values = tensors + done[0], values + done[1]
        count = len(pictures)
    return BundleCounts(len(paths), count, tensors, values)


def _compare(bundle: Bundle, task: str, session: Session, image: np.ndarray, number: int) -> tuple[int, int]:
    """Compare one image; returns the numbers of its tensors and values, which are all equal."""
    trace = Trace()
    raw = run_program(bundle, task, image, trace)
    trace("output", task_output(bundle, task, raw))
    title = f"the compiled program of task '{task}'"
    values = require_equal(title, "onnxruntime", trace.tensors, session.run(image), trace.tensors, number)
    return len(trace.tensors), values


def compile_verified(
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

    The pictures are ``images``, or the first ``verify_images`` validation images of ``data``, or two random.
    """
    counts: list[str] = []

    def check(folder: Path) -> None:
        done = verify_bundle(folder, paths, _pictures(load_bundle(folder), images, data, verify_images))
        counts.append(
            f"verified: {done.values:,} values of {done.tensors} tensors on {done.images} pictures equal "
            "onnxruntime's"
        )

    report = compile_bundle(paths, load_accelerator(accelerator), out, check if verify else lambda _: None)
    return "\n".join([_summary(report), *(counts or ["not verified"])])


def _pictures(bundle: Bundle, images: Sequence[Path], data: str | None, count: int) -> np.ndarray | None:
    if images:
        return read_pictures(images, next(iter(bundle.tasks.values())).entry.image[:2])
    if data is None:
        return None
    from edge_moe.export.source import validation_images

    config: ModelConfig = from_dict(ModelConfig, bundle.manifest.model.config)
    return validation_images(config, data, count)[1]


def _summary(report: CompileReport) -> str:
    lines = [
        f"{report.out}: {report.total_bytes / 1e6:.2f} MB, of which {report.shared_bytes / 1e6:.2f} MB of "
        "weights serve every task"
        if len(report.codes) > 1
        else f"{report.out}: {report.total_bytes / 1e6:.2f} MB"
    ]
    lines += [
        f"task {task}: {len(code.instructions)} instructions, scratch peak {code.scratch_bytes:,} bytes "
        f"(at least {code.live_bytes:,} are needed)"
        for task, code in report.codes.items()
    ]
    return "\n".join(lines)
