# SPDX-License-Identifier: Apache-2.0
"""Records a program with its result for the test bench of cosimulation.

``record.py OUT --accelerator zcu104`` records a network of 9 tokens with random weights, small enough for
the simulation of Verilog; ``--bundle FOLDER --task NAME`` records a task of a bundle. The bundle interpreter,
with golden's arithmetic, computes the result.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from edge_moe.accelerator import AcceleratorConfig, load_accelerator
from edge_moe.testing.bundles import compile_network, small_config
from edge_moe.testing.networks import random_network
from edge_moe_host.contract.bundle import Bundle, load_bundle
from edge_moe_host.contract.encoding import encode
from edge_moe_host.contract.layout import OUTPUT_ALIGNMENT
from edge_moe_host.errors import EdgeMoEError, one_line_errors
from edge_moe_host.golden.interpreter import run_program

SEED = 0


def small_bundle(accelerator: AcceleratorConfig, folder: Path) -> Bundle:
    """A bundle of one task with every kind of instruction."""
    network = random_network(small_config(), SEED)
    return compile_network(network, folder, ["semseg"], accelerator)[0]


def record(bundle: Bundle, task: str, out: Path) -> None:
    """Write program, weight image, a random image and the result of ``task`` into the folder ``out``."""
    program = bundle.task(task)
    height, width, _ = program.entry.image
    image = np.random.default_rng(SEED).integers(0, 256, (height, width, 3), dtype=np.uint8)
    raw = run_program(bundle, task, image)
    rows = np.zeros((len(raw), program.entry.output.row_bytes // 2), dtype="<i2")
    rows[:, : raw.shape[1]] = raw
    padding = bytes(-image.size % OUTPUT_ALIGNMENT)
    out.mkdir(parents=True, exist_ok=True)
    (out / "program.bin").write_bytes(b"".join(map(encode, program.instructions)))
    (out / "weights.bin").write_bytes(bundle.weights.tobytes())
    (out / "image.bin").write_bytes(image.tobytes() + padding)
    (out / "expected.bin").write_bytes(rows.tobytes())
    sizes = {
        "image_bytes": image.size,
        "row_bytes": program.entry.output.row_bytes,
        "used_bytes": 2 * raw.shape[1],
    }
    (out / "sizes.txt").write_text("".join(f"{name} {value}\n" for name, value in sizes.items()))


@one_line_errors
def main() -> int:
    """Record; 0, or 2 after one sentence on bad input."""
    parser = argparse.ArgumentParser(description="Record a program for the test bench of cosimulation.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--accelerator", default="zcu104", help="a name, or the path of a .toml file")
    parser.add_argument("--bundle", type=Path, help="a bundle compiled for this accelerator")
    parser.add_argument("--task", help="a task of the bundle (default: its first)")
    args = parser.parse_args()
    accelerator = load_accelerator(args.accelerator)
    with tempfile.TemporaryDirectory() as folder:
        bundle = load_bundle(args.bundle) if args.bundle else small_bundle(accelerator, Path(folder))
        if bundle.manifest.accelerator.hash != accelerator.hash():
            raise EdgeMoEError(
                f"bundle '{args.bundle}' was compiled for another accelerator than '{args.accelerator}'."
            )
        record(bundle, args.task or next(iter(bundle.manifest.tasks)), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
