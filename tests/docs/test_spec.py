# SPDX-License-Identifier: Apache-2.0
"""The numbers that SPEC.md states, read from its text: examples, tables, limits, widths."""

import math
import re
from fractions import Fraction

import pytest

from edge_moe.quant import network
from edge_moe.testing import spec
from edge_moe.testing.checkout import ROOT
from edge_moe_host.contract import layout
from edge_moe_host.golden import arithmetic, operators

SPEC = (ROOT / "docs" / "SPEC.md").read_text(encoding="utf-8")
TABLES = ["EXP2", "RECIPROCAL", "RSQRT", "GELU"]


def examples(name):
    """(arguments, result) of every `name(...) = result`."""
    found = re.findall(rf"`{name}\(([-0-9, ]+)\) = (-?\d+)`", SPEC)
    return [([int(v) for v in arguments.split(",")], int(result)) for arguments, result in found]


def stated(pattern):
    """The integers at the only match of this pattern in SPEC.md; line breaks count as spaces."""
    found = re.findall(pattern, re.sub(r"\s+", " ", SPEC))
    assert len(found) == 1, f"{pattern} occurs {len(found)} times in SPEC.md"
    values = found[0] if isinstance(found[0], tuple) else (found[0],)
    return [int(value) for value in values]


def test_examples_of_the_rounding_shift():
    assert len(examples("rs")) >= 6
    assert sum(arguments[0] < 0 for arguments, _ in examples("rs")) >= 4
    for (v, n), result in examples("rs"):
        exact = math.floor(Fraction(v, 2**n) + Fraction(1, 2))
        assert arithmetic.rounding_shift(v, n) == spec.rs(v, n) == exact == result


def test_examples_of_requantise():
    assert len(examples("rq")) >= 3
    for arguments, result in examples("rq"):
        assert arithmetic.requantise(*arguments) == spec.rq(*arguments) == result


@pytest.mark.parametrize("name", TABLES)
def test_first_largest_and_last_values_of_the_tables(name):
    row = re.search(rf"^\| {name} \| (\d+) \|.*\| ([^|]+) \|$", SPEC, re.M)
    assert row
    values = [int(value) for value in row[2].split("…")]
    table = getattr(arithmetic, name).tolist()
    assert len(table) == int(row[1])
    assert (table[0], table[-1]) == (values[0], values[-1])
    assert min(table) >= 0
    if name == "GELU":
        assert max(table) == values[1]


def test_limits_are_those_that_the_check_and_the_operators_use():
    assert stated(r"w int16 in ±(\d+) =") == [layout.GATE_WEIGHT_LIMIT]
    assert stated(r"multiplier m in \[0, (\d+)\]") == [layout.MULTIPLIER_LIMIT]
    assert stated(r"below 2\^(\d+), so D") == [network.SPREAD_LIMIT.bit_length() - 1]
    assert stated(r"; N <= (\d+)\.") == [layout.TOKEN_LIMIT]
    assert stated(r"k <= (\d+) products") == [layout.MAX_TOP_K]
    assert stated(r"refuses what exceeds 2\^(\d+) - 1") == [layout.ACCUMULATOR_LIMIT.bit_length()]
    assert stated(r"Keys are taken in blocks of (\d+)") == [operators.KEY_BLOCK]


def test_the_product_of_requantise_has_the_stated_width():
    (bits,) = stated(r"The product needs (\d+) bits")
    products = [a * 32767 for a in (-(2**31), 2**31 - 1)]
    assert min(products) >= -(2 ** (bits - 1)) > 2 * min(products)
    assert max(products) < 2 ** (bits - 1)


def test_the_largest_numerator_of_a_block_and_with_it_the_smallest_sum():
    """A block's largest logit is 1 .. 256 below the exponent, if the block sets the exponent."""
    (smallest,) = stated(r"S is at least (\d+)·256")
    (exponent,) = stated(r"so e >= (\d+)")
    numerators = [min(127, spec.rs(spec.TABLES["EXP2"][t & 255], (t >> 8) + 8)) for t in range(1, 257)]
    assert (min(numerators), max(numerators)) == (smallest, 127)
    assert spec.reciprocal(smallest * 256)[1] == exponent
