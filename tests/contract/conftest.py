# SPDX-License-Identifier: Apache-2.0
"""The bundle that this folder's tests read and damage."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_moe.testing.samples import Sample


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for 8 x 16 pixels; without the model package, the one from tests/board/make_bundles.py."""
    if find_spec("torch") is None:
        return Sample("contract").path
    from edge_moe.testing.bundles import small_bundle

    return small_bundle(tmp_path_factory.mktemp("contract"), patch_size=4, image_size=(8, 16)).path
