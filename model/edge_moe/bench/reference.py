# SPDX-License-Identifier: Apache-2.0
"""Benchmark: one task on a CPU, as path.qdq.onnx and path.onnx in onnxruntime and as float32 in torch.

Every executor has a process of its own, whose number of threads is set before any library loads.
They take turns of a few frames, so that a slow moment of the machine affects all of them, and the median
turn of each is kept. The first frame of a turn is not counted: other executors have filled the caches.
"""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_moe.config import ModelConfig
from edge_moe.export.path import build_path_model
from edge_moe.export.qdq import build_qdq_model
from edge_moe.quant.network import IntegerNetwork
from edge_moe.tasks import TASKS
from edge_moe_host.backends.onnx import Session
from edge_moe_host.config import from_dict, to_dict
from edge_moe_host.errors import EdgeMoEError

if TYPE_CHECKING:
    from edge_moe.nn import M3ViT  # at run time, only the processes that need torch import it

TORCH, QDQ, PATH = "torch float32", "path.qdq.onnx", "path.onnx"
WARM_UP = 1  # turns that are not counted
TURN = 3  # frames of a turn that are counted
CALIBRATION, FRAMES = 4, 4  # images to quantise a checkpoint on, and to time


@dataclass(frozen=True)
class ReferenceTime:
    """Median time of one frame; ``ratio`` is to float32 in torch on the first number of threads."""

    executor: str
    threads: int
    milliseconds: float
    ratio: float


def benchmark_checkpoint(
    checkpoint: Path, task: str | None = None, threads: Sequence[int] = (1, 2), repeats: int = 9
) -> list[ReferenceTime]:
    """:func:`benchmark_reference` of a checkpoint's model, quantised now, on held-out images of its data.

    Raises EdgeMoEError for a file that is no checkpoint and an unknown task.
    """
    from edge_moe.checkpoint import load_model
    from edge_moe.export.source import validation_images
    from edge_moe.quant.options import QuantOptions
    from edge_moe.quant.quantise import obtain_network

    model, preset, _ = load_model(checkpoint)
    options = QuantOptions(images=CALIBRATION, rounding="nearest")  # accuracy is not the subject
    network, extra = obtain_network(checkpoint, options=options, progress=False)
    _, images = validation_images(preset.model, str(extra["data"]), FRAMES)
    return benchmark_reference(model, network, images, task, threads, repeats)


def benchmark_reference(
    model: "M3ViT",
    network: IntegerNetwork,
    images: np.ndarray,
    task: str | None = None,
    threads: Sequence[int] = (1, 2),
    repeats: int = 9,
) -> list[ReferenceTime]:
    """Time ``task`` (default: the network's first) on uint8 ``images`` [n, H, W, 3], one at a time.

    ``model`` is the float M3ViT that ``network`` was made from. Raises EdgeMoEError for an unknown task,
    and when an executor fails.
    """
    task = task or network.tasks[0]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        _write_inputs(folder, model, network, images, task)
        cases = [(executor, count) for count in threads for executor in (TORCH, QDQ, PATH)]
        workers = [stack.enter_context(_Worker(folder, executor, count)) for executor, count in cases]
        times: list[list[float]] = [[] for _ in cases]
        for turn in range(WARM_UP + repeats):
            for worker, series in zip(workers, times, strict=True):
                elapsed = worker.turn()
                if turn >= WARM_UP:
                    series.append(elapsed)
    medians = [statistics.median(series) for series in times]
    return [
        ReferenceTime(executor, count, 1e3 * median, median / medians[0])
        for (executor, count), median in zip(cases, medians, strict=True)
    ]


def reference_table(rows: Sequence[ReferenceTime]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "One frame on the CPU, image to task map",
        "",
        f"| executor | threads | time against {rows[0].executor}, {rows[0].threads} thread(s) | ms |",
        "|---|---:|---:|---:|",
    ]
    lines += [f"| {r.executor} | {r.threads} | {r.ratio:.2f} | {r.milliseconds:.1f} |" for r in rows]
    return "\n".join(lines)


def _write_inputs(
    folder: Path, model: "M3ViT", network: IntegerNetwork, images: np.ndarray, task: str
) -> None:
    import torch

    (folder / PATH).write_bytes(build_path_model(network, task).SerializeToString())
    (folder / QDQ).write_bytes(build_qdq_model(network, task).SerializeToString())
    state = {"config": to_dict(model.cfg), "task": task, "state": model.state_dict()}
    torch.save(state, folder / TORCH)
    np.save(folder / "images.npy", images)


class _Worker:
    """A process that runs one turn for each line it receives and answers with the seconds of a frame."""

    def __init__(self, folder: Path, executor: str, threads: int) -> None:
        self.executor, self.log = executor, folder / f"{executor}.{threads}.log"
        # A second OpenMP thread that waits by spinning would fight the first for a core.
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, "-m", __name__, str(folder), executor, str(threads)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def turn(self) -> float:
        """Mean seconds of the turn's frames."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            reason = (self.log.read_text().strip().splitlines() or ["it stopped without a message"])[-1]
            raise EdgeMoEError(f"benchmark of {self.executor} failed: {reason.rstrip('.')}.")
        return float(answer)


def _torch_frame(folder: Path, threads: int) -> Callable[[np.ndarray], object]:
    import torch

    from edge_moe.nn import build_model

    torch.set_num_threads(threads)
    stored = torch.load(folder / TORCH, weights_only=True)
    config: ModelConfig = from_dict(ModelConfig, stored["config"])
    model = build_model(config)
    model.load_state_dict(stored["state"])
    model.eval()
    classes = TASKS[stored["task"]].kind == "classes"

    def frame(image: np.ndarray) -> object:
        with torch.inference_mode():
            pixels = torch.from_numpy(image).permute(0, 3, 1, 2)
            prediction = model(pixels, tasks=[stored["task"]]).predictions[stored["task"]]
            return prediction.argmax(1) if classes else prediction

    return frame


def _serve(folder: Path, executor: str, threads: int) -> None:
    images = np.load(folder / "images.npy")
    if executor == TORCH:
        frame = _torch_frame(folder, threads)
    else:
        frame = Session((folder / executor).read_bytes(), executor, threads).run
    source = itertools.cycle(images[index : index + 1] for index in range(len(images)))
    for _ in sys.stdin:
        frame(next(source))
        start = time.perf_counter()
        for _ in range(TURN):
            frame(next(source))
        print((time.perf_counter() - start) / TURN, flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
