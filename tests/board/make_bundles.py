# SPDX-License-Identifier: Apache-2.0
"""Bundles, pictures and golden results for the tests of the board, which run where edge_moe is not installed.

    .venv/bin/python tests/board/make_bundles.py

writes into build/board_bundles/ a bundle and ``golden.npz`` for each network (``images`` and each task's raw
``values``), and ``interface.json``, which describes what the block design connects.
"""

import dataclasses
import json
import shutil

import numpy as np

from edge_moe.accelerator import load_accelerator, load_board
from edge_moe.config import load_preset
from edge_moe.quant.network import run_network
from edge_moe.testing.bundles import compile_network, small_config
from edge_moe.testing.networks import random_images, random_network
from edge_moe.testing.samples import BUNDLES
from edge_moe.vendor.interface import accelerator_interface
from edge_moe_host.files import write_text

IMAGES = 4


def main() -> None:
    """Make all files that do not exist yet, or that are older than their sources."""
    BUNDLES.mkdir(parents=True, exist_ok=True)
    accelerator = load_accelerator("zcu104")
    other = dataclasses.replace(accelerator, max_tokens=280)
    write_bundle("small", small_config(), accelerator)
    write_bundle("other", small_config(), other)
    write_bundle("contract", small_config(patch_size=4, image_size=(8, 16)), accelerator)
    write_bundle("mini", load_preset("mini").model, accelerator)
    board = load_board("zcu104")
    shown = accelerator_interface(accelerator, board)
    plain = {
        "vlnv": shown.vlnv,
        "hash": accelerator.hash(),
        "control_address": board.control_address,
        "control_bytes": board.control_bytes,
        "masters": [master.bundle for master in shown.masters],
    }
    write_text(BUNDLES / "interface.json", json.dumps(plain, indent=1) + "\n")
    print(BUNDLES)


def write_bundle(name, config, accelerator) -> None:
    """A random network's bundle, pictures, and golden's results for them."""
    folder = BUNDLES / name
    shutil.rmtree(folder, ignore_errors=True)
    network = random_network(config, seed=6)
    compile_network(network, folder, accelerator=accelerator)
    images = random_images(config, IMAGES, seed=7)
    values = {task: run_network(network, images, task).raw for task in network.tasks}
    np.savez(folder / "golden.npz", images=images, **values)


if __name__ == "__main__":
    main()
