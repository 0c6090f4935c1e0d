# SPDX-License-Identifier: Apache-2.0
"""The table of the opcodes against SPEC.md, sections 8 to 10. C++ and Python both follow the table, so their
agreement does not show that an entry is right."""

import re

import pytest

from edge_moe.testing.checkout import ROOT
from edge_moe_host.contract import layout, opcodes
from edge_moe_host.contract.isa import Epilogue, Instruction, Opcode
from edge_moe_host.contract.opcodes import ENTRY, LIMITS, OPCODES

SPEC = (ROOT / "docs" / "SPEC.md").read_text(encoding="utf-8")
ROWS, TOKENS = ("rows", 1, "accumulator_rows"), ("rows", 1, "max_tokens")
PLANES, SHIFT, SHIFT2 = ("weight_bits", 2, 8), ("shift", 1, 47), ("shift2", 1, 47)
MULTIPLIER = ("multiplier", 0, 32767)
# section 10: each limit is of these fields
RANGES = {
    Opcode.END: set(),
    Opcode.LOAD: {TOKENS, ("out_channels", 1, "max_width")},
    Opcode.PATCHES: {
        TOKENS, ("out_channels", 1, "max_channels"), ("patch", 1, "max_patch_size"),
        ("height", 1, "max_image_height"), ("width", 1, "max_image_width"),
    },
    Opcode.LINEAR: {
        ROWS, ("in_channels", 1, "max_channels"), ("out_channels", 1, "max_channels"), PLANES, SHIFT,
    },
    Opcode.LAYERNORM: {TOKENS, ("in_channels", 1, "max_width"), ("shift", 1, 31), ("epsilon", 1, 2**32 - 1)},
    Opcode.ATTENTION: {
        TOKENS, ("keys", 1, "max_tokens"), ("heads", 1, "max_heads"), ("in_channels", 1, "max_channels"),
        SHIFT, SHIFT2,
    },
    Opcode.GATE: {
        TOKENS, ("in_channels", 1, "max_width"), ("experts", 1, "max_experts"), ("top_k", 1, "max_top_k"),
        MULTIPLIER, SHIFT,
    },
    Opcode.EXPERTS: {
        TOKENS, ("in_channels", 1, "max_width"), ("out_channels", 1, "max_width"),
        ("hidden_channels", 1, "max_channels"), ("experts", 1, "max_experts"), ("top_k", 1, "max_top_k"),
    },
    Opcode.CONV3X3: {
        ROWS, ("in_channels", 1, "max_conv_channels"), ("out_channels", 1, "max_conv_channels"),
        ("height", 1, "max_map_rows"), ("width", 1, "accumulator_rows"), PLANES, SHIFT,
    },
    Opcode.UPSAMPLE2X: {
        ("rows", 1, "max_map_rows"), ("in_channels", 1, "max_conv_channels"), ("height", 1, "max_map_rows"),
        ("width", 1, "max_map_rows"),
    },
    Opcode.STORE: {("rows", 1, "max_map_rows"), ("in_channels", 1, "max_channels")},
}  # fmt: skip
ADDRESSES = {"src", "dst", "routing", "hidden", "weight_offset", "weight_beats"}


@pytest.mark.parametrize("opcode", Opcode)
def test_fields_have_the_limits_of_the_specification(opcode: Opcode) -> None:
    assert set(opcodes.ranges(OPCODES[opcode])) == RANGES[opcode]
    assert set(opcodes.ranges(OPCODES[Opcode.LINEAR], Epilogue.GELU)) == RANGES[Opcode.LINEAR] | {
        SHIFT2,
        MULTIPLIER,
    }


def test_entries_have_the_limits_of_the_specification() -> None:
    shifts = {(name, 1, 47) for name in ("shift1", "shift2", "gelu_shift")}
    planes = {(name, 2, 8) for name in ("bits1", "bits2")}
    assert set(opcodes.ranges(ENTRY)) == shifts | planes | {("gelu_multiplier", 0, 32767)}


def test_limits_are_those_that_the_specification_lists() -> None:
    listed = re.findall(r"^\| (max_[^|]*|accumulator_rows|scratch_bytes) \|", SPEC, re.MULTILINE)
    names = {name for cell in listed for name in re.findall(r"[a-z]+(?:_[a-z]+)+", cell)}
    assert names == set(LIMITS)
    used = {limit for ranges in RANGES.values() for *_, limit in ranges if isinstance(limit, str)}
    assert set(LIMITS) - used == {"max_head_dim", "max_instructions", "scratch_bytes"}


# opcode, fields, bytes of each region, and whether it is read and written
REGIONS = [
    (Opcode.LOAD, {"rows": 9, "out_channels": 40}, [("dst", 9 * 128, False, True)]),
    (Opcode.PATCHES, {"rows": 9, "out_channels": 48}, [("dst", 10 * 64, False, True)]),
    *(
        (
            Opcode.LINEAR,
            {"rows": 9, "in_channels": 40, "out_channels": 100, "epilogue": epilogue},
            [
                ("src", 10 * 64, True, False),
                (
                    "dst",
                    9 * 256 if epilogue >= Epilogue.RESIDUAL else 10 * 128,
                    epilogue == Epilogue.RESIDUAL,
                    True,
                ),
            ],
        )
        for epilogue in Epilogue
    ),
    (
        Opcode.LAYERNORM,
        {"rows": 9, "in_channels": 40},
        [("src", 9 * 128, True, False), ("dst", 640, False, True)],
    ),
    (
        Opcode.ATTENTION,
        {"rows": 3, "row_start": 2, "keys": 9, "heads": 1, "in_channels": 96, "out_channels": 32},
        [("src", 10 * 96, True, False), ("dst", 4 * 32, False, True)],
    ),
    (
        Opcode.GATE,
        {"rows": 9, "in_channels": 40, "experts": 17, "top_k": 2},
        [("src", 640, True, False), ("dst", 10 * 32, False, True)],
    ),
    (
        Opcode.EXPERTS,
        {"rows": 9, "in_channels": 40, "out_channels": 40, "hidden_channels": 100, "experts": 3, "top_k": 2},
        [
            ("src", 640, True, False),
            ("routing", 10 * 32, True, False),
            ("dst", 9 * 128, True, True),
            ("hidden", 10 * 128, False, False),
        ],
    ),
    (
        Opcode.CONV3X3,
        {"rows": 3, "row_start": 3, "height": 3, "width": 3, "in_channels": 40, "out_channels": 8},
        [("src", 10 * 64, True, False), ("dst", 4 * 32, False, True)],
    ),
    (
        Opcode.UPSAMPLE2X,
        {"rows": 36, "height": 3, "width": 3, "in_channels": 40},
        [("src", 10 * 64, True, False), ("dst", 36 * 64, False, True)],
    ),
    (Opcode.STORE, {"rows": 9, "in_channels": 40}, [("src", 9 * 128, True, False)]),
]


@pytest.mark.parametrize(("opcode", "fields", "expected"), REGIONS)
def test_regions_by_hand(
    opcode: Opcode, fields: dict[str, int], expected: list[tuple[str, int, bool, bool]]
) -> None:
    instruction = Instruction(opcode=opcode, **fields)
    found = [(r.field, r.size, bool(r.reads), r.writes) for r in opcodes.regions(instruction)]
    assert found == expected
    read = set(opcodes.operands(opcode)) - ADDRESSES
    assert set(fields) <= read | {"epilogue"}


# opcode, fields, planes: section 9
WEIGHTS = [
    (Opcode.LOAD, {"rows": 9, "out_channels": 40}, 9),
    (Opcode.LOAD, {"rows": 3, "out_channels": 32}, 2),
    (Opcode.LINEAR, {"in_channels": 40, "out_channels": 100, "weight_bits": 5}, 4 + 2 + 4 * 2 * 5),
    (Opcode.LAYERNORM, {"in_channels": 70}, 3 + 2),
    (Opcode.ATTENTION, {"out_channels": 96}, 3 + 2),
    (Opcode.GATE, {"in_channels": 40, "experts": 17}, 2 + 1 + 2 * 2 * 8),
    (Opcode.EXPERTS, {"experts": 3}, 2),
    (Opcode.CONV3X3, {"in_channels": 40, "out_channels": 40, "weight_bits": 3}, 2 + 1 + 2 * 9 * 2 * 3),
    *((opcode, {}, 0) for opcode in (Opcode.END, Opcode.PATCHES, Opcode.UPSAMPLE2X, Opcode.STORE)),
]


@pytest.mark.parametrize(("opcode", "fields", "planes"), WEIGHTS)
def test_weights_by_hand(opcode: Opcode, fields: dict[str, int], planes: int) -> None:
    assert opcodes.weight_beats(Instruction(opcode=opcode, **fields)) * layout.BEAT == 128 * planes


def test_sections_by_opcode() -> None:
    kinds = {opcode: declared.weights.section for opcode, declared in OPCODES.items() if declared.weights}
    assert kinds == {
        Opcode.LOAD: "rows", Opcode.LINEAR: "linear", Opcode.LAYERNORM: "norm", Opcode.ATTENTION: "attention",
        Opcode.GATE: "gate", Opcode.EXPERTS: "table", Opcode.CONV3X3: "conv",
    }  # fmt: skip
    listed = re.findall(
        r"^\| (\w+) \|", SPEC.split("| weight block | contents |")[1].split("\n\n")[0], re.MULTILINE
    )
    assert set(listed) == {*kinds.values(), "expert"} == set(opcodes.SECTION_KINDS)
