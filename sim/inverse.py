# SPDX-License-Identifier: Apache-2.0
"""What the benches of reciprocal.sv and reciprocal_sqrt.sv share: (R, k) of the module, golden and kernel."""

from collections.abc import Callable

import numpy as np

from sim.tb import TB

CALL = 4096  # values of one call of the kernel
Inverse = tuple[np.ndarray, np.ndarray]


async def inverses(
    tb: TB, values: np.ndarray, golden: Callable[[np.ndarray], Inverse], dtype: str, hls_bits: int
) -> list[Inverse | None]:
    """(R, k) of the next frame, from module, golden and the kernel that has the name of golden's function.

    ``values``: int64 [elements, lanes]. The kernel's argument has ``hls_bits`` bits in its ``dtype``; its
    result is None if a value has more.
    """
    lanes = values.shape[1]
    got = await tb.receive("r", "u1", (len(values), 3 * lanes))
    rtl = np.ascontiguousarray(got[:, : 2 * lanes]).view("<i2"), got[:, 2 * lanes :]
    if values.max() >= 1 << hls_bits:
        return [rtl, golden(values), None]
    flat = values.reshape(-1).astype(dtype)
    calls = [flat[i : i + CALL] for i in range(0, len(flat), CALL)]
    parts = [await tb.kernel("inverse", golden.__name__, call) for call in calls]
    hls = [np.concatenate(part).reshape(values.shape) for part in zip(*parts, strict=True)]
    return [rtl, golden(values), (hls[0], hls[1])]
