# SPDX-License-Identifier: Apache-2.0
"""The C++ operators in every build, for the tests of this folder."""

import pytest

from edge_moe.testing.hls_ops import VARIANTS, Operators


@pytest.fixture(scope="session", params=VARIANTS)
def ops(request: pytest.FixtureRequest) -> Operators:
    return Operators(request.param)
