# SPDX-License-Identifier: Apache-2.0
"""Golden's tables and the fixed points of its operators as C++ constants."""

from edge_moe.codegen.cpp import constant, header, table
from edge_moe_host.contract import layout
from edge_moe_host.golden import arithmetic, operators

CONSTANTS = {
    "exp2_bits": arithmetic.EXP2_BITS,
    "exp2_one": arithmetic.EXP2_ONE,
    "mantissa_bits": arithmetic.MANTISSA_BITS,
    "gelu_fraction": arithmetic.GELU_FRACTION,
    "gelu_step_bits": arithmetic.GELU_STEP_BITS,
    "gelu_limit": arithmetic.GELU_LIMIT,
    "key_block": operators.KEY_BLOCK,
    "pixel_offset": operators.PIXEL_OFFSET,
    "xhat_fraction": operators.XHAT_FRACTION,
    "average_fraction": operators.AVERAGE_FRACTION,
    "sum_fraction": operators.SUM_FRACTION,
    "score_fraction": operators.SCORE_FRACTION,
    "exponent_limit": operators.EXPONENT_LIMIT,
    "token_limit": layout.TOKEN_LIMIT,
    "top_k_limit": layout.MAX_TOP_K,
}
TABLES = {
    "exp2": (arithmetic.EXP2, "2**(-i/256) in Q15"),
    "reciprocal": (arithmetic.RECIPROCAL, "1/x in Q15, x in [1, 2)"),
    "rsqrt": (arithmetic.RSQRT, "1/sqrt(x) in Q15, x in [1, 4)"),
    "gelu": (arithmetic.GELU, "delta(a) = a (1 - Phi(a)) in Q10, a in [0, 4)"),
}


def tables_header() -> str:
    """Text of edge_moe_tables.hpp."""
    body = [constant(name, value) for name, value in CONSTANTS.items()]
    for name, (values, doc) in TABLES.items():
        body += ["", *table(name, values, doc)]
    return header(
        "EDGE_MOE_TABLES_HPP", "Tables and fixed points. SPEC.md, sections 3 and 4.", "tables", body
    )
