# SPDX-License-Identifier: Apache-2.0
"""A bundle of 16 x 32 pixels."""

from importlib.util import find_spec

import pytest

from edge_moe.testing.samples import Sample
from edge_moe_host.contract.bundle import Bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Without the model package, the one from tests/board/make_bundles.py."""
    if find_spec("torch") is None:
        return Sample("small").bundle
    from edge_moe.testing.bundles import small_bundle

    return small_bundle(tmp_path_factory.mktemp("small"))
