# SPDX-License-Identifier: Apache-2.0
"""What the guides' examples name."""

from pathlib import Path

import pytest
from PIL import Image

from edge_moe.compiler.bundle import compile_bundle
from edge_moe.export.path import build_path_model
from edge_moe.testing.bundles import small_accelerator, small_config
from edge_moe.testing.networks import random_images, random_network


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two tasks, the graphs that it was compiled from, and pictures."""
    folder = tmp_path_factory.mktemp("guides")
    network = random_network(small_config())
    paths = []
    for task in network.tasks:
        paths.append(folder / "export" / task / "path.onnx")
        paths[-1].parent.mkdir(parents=True)
        paths[-1].write_bytes(build_path_model(network.path(task), task).SerializeToString())
    compile_bundle(paths, small_accelerator(), folder / "bundle")
    (folder / "frames").mkdir()
    for index, image in enumerate(random_images(network.config, 3)):
        Image.fromarray(image).save(folder / "frames" / f"{index}.png")
    Image.fromarray(random_images(network.config, 1)[0]).resize((50, 40)).save(folder / "photo.jpg")
    return folder
