# SPDX-License-Identifier: Apache-2.0
"""Benchmark: one frame in C simulation on one thread, compared with golden in NumPy; and its cycles on the
chip, counted by the simulated loops and by the estimator."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_moe.accelerator import AcceleratorConfig, load_accelerator
from edge_moe.codegen.csim import build_library
from edge_moe.compiler.bundle import compile_bundle
from edge_moe.config import load_preset
from edge_moe.estimate.cycles import estimate_images
from edge_moe.export.graph import path_graph
from edge_moe.places import CHECKOUT, HLS, make_text
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe_host.backends.csim_library import Csim, library_path
from edge_moe_host.config import to_dict
from edge_moe_host.contract.bundle import Bundle, load_bundle
from edge_moe_host.errors import EdgeMoEError

CALIBRATION = 4  # images


@dataclass(frozen=True)
class CsimTime:
    """Processor time of a frame, median; ``ratio`` is to golden's.

    ``cycles``: of the loops in C simulation. ``estimated_loops``: the estimator's count of them for the same
    image. ``estimated``: its cycles with the waits for memory.
    """

    model: str
    task: str
    milliseconds: float
    ratio: float
    cycles: int
    estimated_loops: int
    estimated: float


def build_csim(accelerator: str = "zcu104") -> Csim:
    """The C simulation of an accelerator, compiled when it is not up to date; EdgeMoEError otherwise."""
    if CHECKOUT is None:
        return Csim(build_library(to_dict(load_accelerator(accelerator))))
    command = [
        "make",
        "-C",
        str(HLS),
        "csim",
        f"ACCELERATOR={accelerator}",
        f"PYTHON={make_text(sys.executable)}",
    ]
    try:
        run = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise EdgeMoEError(f"cannot run make for the C simulation: {error.strerror}.") from None
    if run.returncode:
        lines = (run.stderr or run.stdout).strip().splitlines()
        raise EdgeMoEError(f"the C simulation could not be built: {lines[0] if lines else 'make failed'}.")
    return Csim(library_path(load_accelerator(accelerator).hash()))


def compile_network(
    network: IntegerNetwork, task: str, folder: Path, accelerator: AcceleratorConfig
) -> Bundle:
    """The bundle of one task of an integer network, in FOLDER/bundle."""
    source = folder / f"{task}.onnx"
    source.write_bytes(path_graph(network.path(task), task).SerializeToString())
    compile_bundle([source], accelerator, folder / "bundle")
    return load_bundle(folder / "bundle")


def benchmark_csim(
    model: str, network: IntegerNetwork, image: np.ndarray, task: str | None = None, repeats: int = 5
) -> CsimTime:
    """Time ``task`` (default: the network's first) on one uint8 image [H, W, 3], image to head.

    Raises EdgeMoEError when the simulation cannot be built or differs from golden.
    """
    task = task or network.tasks[0]
    csim = build_csim()
    with tempfile.TemporaryDirectory() as folder:
        bundle = compile_network(network, task, Path(folder), load_accelerator("zcu104"))
        run = csim.run(bundle, task, image)
        if not np.array_equal(run.raw, run_network(network, image[None], task).raw[0]):
            raise EdgeMoEError(f"task '{task}' of {model} differs between C simulation and golden.")
        estimate = estimate_images(bundle, task, image[None])[0]
        simulated, golden = [], []
        for _ in range(repeats):
            simulated.append(_seconds(lambda: csim.run(bundle, task, image)))
            golden.append(_seconds(lambda: run_network(network, image[None], task)))
    own = statistics.median(simulated)
    ratio = own / statistics.median(golden)
    return CsimTime(model, task, 1e3 * own, ratio, run.cycles, estimate.loops, estimate.cycles)


def _seconds(frame: Callable[[], object]) -> float:
    start = time.process_time()
    frame()
    return time.process_time() - start


def benchmark_csim_models(pretrained: Path) -> list[CsimTime]:
    """``mini`` with random weights, and a checkpoint's model; both are quantised now, on scenes."""
    import torch

    from edge_moe.checkpoint import load_model
    from edge_moe.export.source import validation_images
    from edge_moe.nn import M3ViT
    from edge_moe.quant.options import QuantOptions
    from edge_moe.quant.quantise import quantise_model

    torch.manual_seed(0)
    preset = load_preset("mini")
    checkpoint, own_preset, _ = load_model(pretrained)
    options = QuantOptions(images=CALIBRATION, rounding="nearest")  # accuracy is not the subject
    rows = []
    for name, model, its in (
        ("mini", M3ViT(preset.model).eval(), preset),
        ("m3vit_tiny", checkpoint, own_preset),
    ):
        network, _ = quantise_model(model, its, "scenes", options, progress=False)
        _, images = validation_images(its.model, "scenes", 1)
        rows.append(benchmark_csim(name, network, images[0]))
    return rows


def csim_table(rows: Sequence[CsimTime]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "One frame in C simulation, image to head, one thread. Cycles on the chip are modelled: the loops as",
        "written, and with what they wait for memory. C simulation has no time: how many weights of experts",
        "without tokens were read before the gate was done, which are then dropped, may differ.",
        "",
        "| model | task | time against golden in NumPy | ms | loops in C simulation | loops, estimated "
        "| cycles, estimated |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.model} | {r.task} | {r.ratio:.2f} | {r.milliseconds:.0f} | {r.cycles:,} "
        f"| {r.estimated_loops:,} | {r.estimated:,.0f} |"
        for r in rows
    ]
    return "\n".join(lines)
