# SPDX-License-Identifier: Apache-2.0
"""The model-local functions of ``path.onnx``, from their text in ``text/*.onnxtxt``: SPEC.md, section 6.

The text is ONNX's own textual form without its header. ``$NAME`` is replaced by a number or a table of
the golden model (so that nothing is written down twice) or, in a Cast, by an element type. No body contains
a size of the model: shapes come from the inputs, so every file has the same functions.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from importlib.resources import files

import numpy as np
import onnx
from onnx import TensorProto, parser

from edge_moe.export.graph import DOMAIN, ONNX_OPSET
from edge_moe_host.golden import arithmetic, operators

HEADER = f'<domain: "{DOMAIN}", opset_import: ["": {ONNX_OPSET}, "{DOMAIN}": 1]>\n'
TEXTS = ("arithmetic", "encoder", "moe", "head")


def _names() -> dict[str, str]:
    types = ("INT8", "UINT8", "INT16", "INT32", "INT64", "UINT64")
    numbers = {
        "INT8_LOW": -arithmetic.INT8_MAX,  # of activations that also serve as weights
        "INT64_MAX": 2**63 - 1,
        "EXP2_UNIT": 1 << arithmetic.EXP2_BITS,
        "EXP2_MASK": (1 << arithmetic.EXP2_BITS) - 1,
        "MANTISSA_ONE": 1 << arithmetic.MANTISSA_BITS,
        "ROOT_BITS": arithmetic.MANTISSA_BITS - 1,
        "ROOT_ONE": 1 << (arithmetic.MANTISSA_BITS - 1),
        "GELU_END": len(arithmetic.GELU),
        "XHAT_SHIFT": 15 - operators.XHAT_FRACTION,
        "NUMERATOR_SHIFT": arithmetic.EXP2_ONE - 7,
        "AVERAGE_SHIFT": 15 - operators.SUM_FRACTION - operators.AVERAGE_FRACTION,
        "SUM_UNIT": 1 << operators.SUM_FRACTION,
        "EXPONENT_START": -(1 << (15 - arithmetic.EXP2_BITS)),
    }
    tables = {
        "EXP2": arithmetic.EXP2,
        "RECIPROCAL": arithmetic.RECIPROCAL,
        "RSQRT": arithmetic.RSQRT,
        "GELU": np.append(arithmetic.GELU, 0),  # the last entry serves |x| >= 4
        "POWERS": 1 << np.arange(62, dtype=np.int64),
    }
    own = {**vars(arithmetic), **vars(operators)}
    return {
        **{name: str(value) for name, value in own.items() if isinstance(value, int)},
        **{name: str(value) for name, value in numbers.items()},
        **{name: str(TensorProto.DataType.Value(name)) for name in types},
        **{
            f"TABLE_{name}": f"int64[{len(values)}] {{{', '.join(map(str, values.tolist()))}}}"
            for name, values in tables.items()
        },
    }


@functools.cache
def path_functions() -> tuple[onnx.FunctionProto, ...]:
    """Every function of the domain ``edge_moe``: those of nodes and those that they share, callees first.

    Blank lines separate them. Comment lines before one are its doc string.
    """
    names, functions = _names(), []
    for text in (files(__package__).joinpath("text", f"{name}.onnxtxt").read_text("utf-8") for name in TEXTS):
        for part in text.strip().split("\n\n")[1:]:  # the first part is about the file
            lines = part.splitlines()
            comments = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
            body = "\n".join(lines[len(comments) :])
            filled = re.sub(r"\$([A-Z0-9_]+)", lambda match: names[match.group(1)], body)
            function = parser.parse_function(HEADER + filled)
            function.doc_string = " ".join(line.removeprefix("# ") for line in comments)
            functions.append(function)
    return tuple(_callees_first({function.name: function for function in functions}))


def _callees_first(functions: dict[str, onnx.FunctionProto]) -> Iterator[onnx.FunctionProto]:
    calls = {name: dict.fromkeys(_calls(function.node)) for name, function in functions.items()}
    for name in TopologicalSorter(calls).static_order():
        yield functions[name]


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Names of the functions that nodes, and the bodies of their loops, call."""
    for node in nodes:
        if node.domain == DOMAIN:
            yield node.op_type
        for attribute in node.attribute:
            yield from _calls(attribute.g.node)
