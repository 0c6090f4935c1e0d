# SPDX-License-Identifier: Apache-2.0
"""Rows and named intermediates in the bytes of a scratch memory. SPEC.md, section 8.

``scratch`` is uint8 [..., bytes] throughout; results are views of it where possible. The rows of int8 are
stored one after the other (:func:`int8`) or interleaved by pairs (:func:`int8_pairs`), by the executor.
"""

from collections.abc import Callable

import numpy as np

from edge_moe_host.contract.layout import PAIR, ROUTE_BYTES, TILE, int8_row, int16_row, pairs, tiles
from edge_moe_host.contract.manifest import Tensor
from edge_moe_host.errors import BundleError

Int8Rows = Callable[[np.ndarray, int, int, int], np.ndarray]  # int8 or int8_pairs


def raw(scratch: np.ndarray, address: int, rows: int, row_bytes: int) -> np.ndarray:
    """uint8 [..., rows, row_bytes]. BundleError beyond the memory."""
    end = address + rows * row_bytes
    if not 0 <= address <= end <= scratch.shape[-1]:
        raise BundleError(f"bytes {address} to {end} are beyond the scratch memory.")
    return scratch[..., address:end].reshape(*scratch.shape[:-1], rows, row_bytes)


def int8(scratch: np.ndarray, address: int, rows: int, channels: int) -> np.ndarray:
    """int8 [..., rows, channels] of rows stored one after the other."""
    return raw(scratch, address, rows, int8_row(channels)).view(np.int8)[..., :channels]


def int8_pairs(scratch: np.ndarray, address: int, rows: int, channels: int) -> np.ndarray:
    """int8 [..., rows, channels] of rows stored by pairs: 32 channels of one, then of the other; a copy."""
    stored = raw(scratch, address, pairs(rows), PAIR * int8_row(channels)).view(np.int8)
    grid = stored.reshape(*stored.shape[:-1], tiles(channels), PAIR, TILE).swapaxes(-3, -2)
    return grid.reshape(*stored.shape[:-2], PAIR * pairs(rows), -1)[..., :rows, :channels]


def int16(scratch: np.ndarray, address: int, rows: int, channels: int) -> np.ndarray:
    """int16 [..., rows, channels]."""
    return raw(scratch, address, rows, int16_row(channels)).view("<i2")[..., :channels]


def routing(scratch: np.ndarray, address: int, rows: int, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The experts, uint16, and the scores, int16, both [..., rows, top_k]."""
    chosen = raw(scratch, address, rows, ROUTE_BYTES)
    return chosen.view("<u2")[..., 0 : 2 * top_k : 2], chosen.view("<i2")[..., 1 : 2 * top_k : 2]


def named(tensor: Tensor, scratch: np.ndarray, int8_rows: Int8Rows, logits: list[np.ndarray]) -> np.ndarray:
    """A copy of a named intermediate, in golden's shape [..., rows, channels].

    ``logits`` int32 [..., rows, experts], of the GATE instructions since the last call that took them, which
    empties the list: they are not in the scratch memory.
    """
    if tensor.kind == "logits":
        value = np.concatenate(logits, axis=-2)
        logits.clear()
        return value
    if tensor.kind in ("expert", "score"):
        expert, score = routing(scratch, tensor.address, tensor.rows, tensor.channels)
        return expert.astype(np.int32) if tensor.kind == "expert" else score.astype(np.int16)
    groups = tensor.channels // tensor.group
    read = int8_rows if tensor.kind == "int8" else int16
    stored = read(scratch, tensor.address, tensor.rows, groups * tensor.stored)
    value = stored.reshape(*stored.shape[:-1], groups, tensor.stored)[..., : tensor.group]
    return value.reshape(*stored.shape[:-1], tensor.channels).copy()
