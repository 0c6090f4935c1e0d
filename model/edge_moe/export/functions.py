# SPDX-License-Identifier: Apache-2.0
"""The model-local functions of ``path.onnx``: SPEC.md, section 6.

No body contains a size of the model: shapes come from the inputs, so every file has the same functions.
"""

import functools

import onnx

from edge_moe.export.arithmetic_functions import ARITHMETIC
from edge_moe.export.encoder_functions import ENCODER
from edge_moe.export.function_text import parse_functions
from edge_moe.export.head_functions import HEAD
from edge_moe.export.moe_functions import MOE


@functools.cache
def path_functions() -> tuple[onnx.FunctionProto, ...]:
    """Every function of the domain ``edge_moe``: those of nodes and those that they share."""
    texts = (ARITHMETIC, ENCODER, MOE, HEAD)
    return tuple(function for text in texts for function in parse_functions(text))
