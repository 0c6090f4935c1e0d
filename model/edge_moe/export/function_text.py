# SPDX-License-Identifier: Apache-2.0
"""Turns the text of model-local functions into FunctionProtos.

The text is ONNX's own textual form without its header. ``$NAME`` is replaced by a number or a table of
the golden model (so that nothing is written down twice) or, in a Cast, by an element type.
"""

import itertools
import re
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, parser

from edge_moe.export.graph import DOMAIN, ONNX_OPSET
from edge_moe_host.golden import arithmetic, operators

HEADER = f'<domain: "{DOMAIN}", opset_import: ["": {ONNX_OPSET}, "{DOMAIN}": 1]>\n'


def _table(values: np.ndarray) -> str:
    return f"int64[{len(values)}] {{{', '.join(map(str, values.tolist()))}}}"


def _names() -> Mapping[str, str]:
    types = {
        name: TensorProto.DataType.Value(name)
        for name in ("INT8", "UINT8", "INT16", "INT32", "INT64", "UINT64")
    }
    numbers = {
        "INT8_MIN": arithmetic.INT8_MIN,
        "INT8_MAX": arithmetic.INT8_MAX,
        "INT8_LOW": -arithmetic.INT8_MAX,  # of activations that also serve as weights
        "INT16_MIN": arithmetic.INT16_MIN,
        "INT16_MAX": arithmetic.INT16_MAX,
        "EXP2_BITS": arithmetic.EXP2_BITS,
        "INT64_MAX": 2**63 - 1,
        "EXP2_UNIT": 1 << arithmetic.EXP2_BITS,
        "EXP2_MASK": (1 << arithmetic.EXP2_BITS) - 1,
        "MANTISSA_BITS": arithmetic.MANTISSA_BITS,
        "MANTISSA_ONE": 1 << arithmetic.MANTISSA_BITS,
        "ROOT_BITS": arithmetic.MANTISSA_BITS - 1,
        "ROOT_ONE": 1 << (arithmetic.MANTISSA_BITS - 1),
        "GELU_STEP_BITS": arithmetic.GELU_STEP_BITS,
        "GELU_END": len(arithmetic.GELU),
        "XHAT_SHIFT": 15 - operators.XHAT_FRACTION,
        "NUMERATOR_SHIFT": arithmetic.EXP2_ONE - 7,
        "AVERAGE_SHIFT": 15 - operators.SUM_FRACTION - operators.AVERAGE_FRACTION,
        "SUM_UNIT": 1 << operators.SUM_FRACTION,
        "SCORE_FRACTION": operators.SCORE_FRACTION,
        "EXPONENT_LIMIT": operators.EXPONENT_LIMIT,
        "EXPONENT_START": -(1 << (15 - arithmetic.EXP2_BITS)),
        "KEY_BLOCK": operators.KEY_BLOCK,
    }
    tables = {
        "EXP2": arithmetic.EXP2,
        "RECIPROCAL": arithmetic.RECIPROCAL,
        "RSQRT": arithmetic.RSQRT,
        "GELU": np.append(arithmetic.GELU, 0),  # the last entry serves |x| >= 4
        "POWERS": 1 << np.arange(62, dtype=np.int64),
    }
    return {
        **{name: str(value) for name, value in {**types, **numbers}.items()},
        **{f"TABLE_{name}": _table(values) for name, values in tables.items()},
    }


def parse_functions(text: str) -> list[onnx.FunctionProto]:
    """The functions of a text, separated by blank lines; comment lines before one are its doc string."""
    names = _names()
    functions = []
    for part in text.strip().split("\n\n"):
        lines = part.splitlines()
        comments = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
        body = "\n".join(lines[len(comments) :])
        filled = re.sub(r"\$([A-Z0-9_]+)", lambda match: names[match.group(1)], body)
        function = parser.parse_function(HEADER + filled)
        function.doc_string = " ".join(line.removeprefix("# ") for line in comments)
        functions.append(function)
    return functions
