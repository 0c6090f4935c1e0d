# SPDX-License-Identifier: Apache-2.0
"""The integer reference: what every bit of the accelerator means, in NumPy."""

from edge_moe.golden.network import (
    Block,
    Head,
    IntegerNetwork,
    NetworkOutput,
    Trace,
    check_network,
    run_network,
)
from edge_moe.golden.operators import FFN, Attention, Gate, LayerNorm, Linear

__all__ = [
    "FFN",
    "Attention",
    "Block",
    "Gate",
    "Head",
    "IntegerNetwork",
    "LayerNorm",
    "Linear",
    "NetworkOutput",
    "Trace",
    "check_network",
    "run_network",
]
