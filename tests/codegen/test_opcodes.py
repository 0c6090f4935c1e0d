# SPDX-License-Identifier: Apache-2.0
"""The table of the opcodes: its expressions in Python and in C++, its rules and their messages."""

import ast
import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_moe.accelerator import load_accelerator
from edge_moe.codegen import generate
from edge_moe.codegen.opcodes_header import Bounds, check_bounds, cpp
from edge_moe.testing.checkout import ROOT
from edge_moe.testing.damage import raw_words
from edge_moe_host.contract import expressions, isa, opcodes
from edge_moe_host.contract.isa import Instruction, Opcode
from edge_moe_host.contract.opcodes import OPCODES

# Every kind of node; a to d are 16 bits and at least 1, n may be 0; e is a condition
TEXTS = {
    "a + b * 3": "a + b * 3",
    "(a + b) * 3": "(a + b) * 3",
    "(a + 7) // 8 + a % b": "(a + 7) / 8 + a % b",
    "a // (b * c)": "a / (b * c)",
    "a * b * c * d": "a * b * c * d",
    "a * b == 4 * c": "a * b == 4 * c",
    "a % (b + 1) * (c + 2) // 5": "a % (b + 1) * (c + 2) / 5",
    "a + (b + c)": "a + (b + c)",
    "65535 + a - n": "65535 + a - n",
    "a == b or (a < b and not e)": "a == b || (a < b && !e)",
    "(a == b or a < b) and c != d": "(a == b || a < b) && c != d",
    "(a <= b) == (c > d)": "(a <= b) == (c > d)",
    "tiles(a + TILE) + pairs(b)": "tiles(a + isa::tile) + pairs(b)",
    "linear_planes(tiles(a), gate_tiles(b), 8)": "linear_planes(tiles(a), gate_tiles(b), 8)",
    "linear_planes(a, b, c)": "linear_planes(a, b, c)",
}
REFUSED = [
    "a ** b", "a / b", "-a", "~a", "a << 2", "a & b", "1.5", "True", "'a'", "a < b < c", "a if b else c",
    "a.b", "a[0]", "f(x=1)", "a.f(1)", "(a, b)", "lambda: 1", "a := 1", "[a for a in b]", "f(*a)", "a is b",
    "a +", "", "not a == b",
]  # fmt: skip


NAMES = {**{name: Bounds(1, 65535) for name in "abcd"}, "n": Bounds(0, 65535), "e": Bounds(0, 1)}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_of_the_subset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no expression"):
        expressions.parse(text)
    if text not in ("", "a := 1"):
        with pytest.raises((ValueError, SyntaxError)):
            expressions.message(f"a = {{{text}}}", {})


def test_messages_say_numbers_as_they_are() -> None:
    for text in ("{rows:3}", "{rows!r}"):
        with pytest.raises(ValueError, match="says how a number is written"):
            expressions.message(text, {"rows": 1})


def test_messages_have_their_values() -> None:
    scope = opcodes.Scope(height=4, width=5, rows=7)
    assert expressions.message("rows = {rows} of {pixels}, {tiles(pixels) + 1}", scope) == "rows = 7 of 20, 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a - b", "a part may be -65534"),
        ("a - (b - b // b)", "a part may be -65534"),
        ("a * b * c * d * 2", "a part may be 3689"),
        ("a // n", "division or modulo by zero"),
        ("a % (n * b)", "modulo by zero"),
        ("a < b and c % n == 0", "modulo by zero"),
        ("f + 1", "the name 'f' is unknown"),
        ("f(a)", "the name 'f' is unknown"),
        ("tiles(a, b)", "takes 1 positional argument"),
        ("tiles(n - a)", "a part may be -65535"),
    ],
)
def test_what_cpp_could_not_hold_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be computed in C\\+\\+: .*{message}"):
        check_bounds(text, NAMES)


def test_the_whole_has_a_limit() -> None:
    check_bounds("a * 2", NAMES, 2 * 65535 + 1)
    with pytest.raises(ValueError, match="it may be 131070"):
        check_bounds("a * 2", NAMES, 2 * 65535)


NUMBERS = [text for text in TEXTS if not isinstance(expressions.parse(text), ast.BoolOp | ast.Compare)]


@pytest.mark.parametrize("text", NUMBERS)
def test_bounds_contain_every_value(text: str) -> None:
    rng = np.random.default_rng(0)
    assert len(NUMBERS) >= 10
    for _ in range(200):
        names = {}
        for name, bounds in NAMES.items():
            names[name] = tuple(sorted(int(v) for v in rng.integers(bounds.low, bounds.high + 1, size=2)))
        whole = expressions.value(text, opcodes.Scope({n: Bounds(*ends) for n, ends in names.items()}))
        points = [{n: int(rng.integers(low, high + 1)) for n, (low, high) in names.items()}]
        points += [{n: ends[end] for n, ends in names.items()} for end in (0, 1)]
        for point in points:
            assert whole.low <= expressions.value(text, opcodes.Scope(point)) <= whole.high


def run_cpp(folder: Path, source: str, data: str = "") -> list[int]:
    generate("zcu104", folder)
    (folder / "program.cpp").write_text(source)
    command = ["g++", "-std=c++14", "-Wall", "-Wextra", "-Werror", "-Wno-unused-label", f"-I{folder}",
               f"-I{ROOT / 'hls' / 'include'}", "-fsanitize=undefined", "-fno-sanitize-recover=all",
               "program.cpp", "-o", "program"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    run = subprocess.run(
        [str(folder / "program")], input=data, capture_output=True, text=True, check=True, timeout=60
    )
    return [int(word) for word in run.stdout.split()]


def test_expressions_mean_the_same_in_cpp(tmp_path: Path) -> None:
    for text, form in TEXTS.items():
        check_bounds(text, NAMES)
        assert cpp(text) == form
    rng = np.random.default_rng(0)
    values = rng.integers(1, 65536, size=(200, 6))
    values[:20] = rng.choice([1, 65535], size=(20, 6))
    values[:, 5] %= 2
    source = (
        '#include <cstdio>\n#include "edge_moe_opcodes.hpp"\nusing namespace edge_moe;\n'
        "using namespace edge_moe::isa;\nint main() {\nint v[6];\n"
        'while (std::scanf("%d %d %d %d %d %d", v, v + 1, v + 2, v + 3, v + 4, v + 5) == 6) {\n'
        "const uint64_t a = v[0], b = v[1], c = v[2], d = v[3], n = v[4], e = v[5];\n"
        + "".join(f'std::printf("%llu\\n", 0ull + ({cpp(text)}));\n' for text in TEXTS)
        + "} }"
    )  # fmt: skip
    found = run_cpp(tmp_path, source, "\n".join(" ".join(map(str, row)) for row in values))
    expected = [
        int(expressions.value(text, opcodes.Scope(zip("abcdne", map(int, row), strict=True))))
        for row in values
        for text in TEXTS
    ]
    assert found == expected
    assert len(found) == 200 * len(TEXTS)


# The table


def test_every_field_has_one_declaration_and_every_section_one_opcode() -> None:
    for opcode, declared in OPCODES.items():
        own = [operand.name for operand in declared.operands]
        places = {rows.field for rows in declared.rows} | {"weight_offset", "weight_beats"}
        assert len(set(own)) == len(own), opcode
        assert not places & set(own), opcode
    assert len(set(opcodes.SECTION_KINDS)) == len(opcodes.SECTION_KINDS)


RULES = """
#include <cstdio>
#include "edge_moe_opcodes.hpp"
// words of instructions in; whether ranges and shape hold, and where they do planes and regions out
int main() {
  using namespace edge_moe;
  uint32_t words[isa::record_words];
  for (;;) {
    for (uint32_t& word : words) {
      if (std::scanf("%u", &word) != 1) return 0;
    }
    const isa::Instruction i = isa::decode_instruction(words);
    const bool ranges = isa::ranges_hold(i);
    const bool shape = ranges && isa::shape_holds(i);
    const isa::Regions r = shape ? isa::regions_of(i) : isa::Regions();
    std::printf("%d %d %u\\n", ranges, shape, shape ? isa::weight_planes(i) : 0);
    for (const isa::Region& region : r.region) std::printf("%u %u\\n", region.address, region.beats);
  }
}
"""


def plausible(rng: np.random.Generator, opcode: Opcode) -> Instruction:
    """Numbers that usually fit each other, and sometimes any that the fields can hold."""
    values: dict[str, int] = {"opcode": int(opcode)}
    width, height, patch = (int(n) for n in rng.integers(1, 9, size=3))
    epilogue = int(rng.integers(4)) if opcode is Opcode.LINEAR else 0
    usual = {
        "epilogue": epilogue,
        "rows": width * int(rng.integers(1, 5)),
        "row_start": width * int(rng.integers(3)),
        "keys": 64,
        "heads": int(rng.integers(1, 4)),
        "height": height,
        "width": width,
        "patch": patch,
        "shift": 20,
        "shift2": 20,
        "weight_bits": int(rng.integers(2, 9)),
        "top_k": 2,
        "experts": int(rng.integers(1, 33)),
        "multiplier": 3,
        "epsilon": 1,
        "hidden_channels": int(rng.integers(1, 200)),
        "in_channels": int(rng.integers(1, 200)),
        "out_channels": int(rng.integers(1, 200)),
    }
    if opcode is Opcode.PATCHES:
        usual |= {"height": height * patch, "width": width * patch, "rows": height * width}
        usual["out_channels"] = 3 * patch * patch
    if opcode is Opcode.ATTENTION:
        usual["out_channels"] = 32 * usual["heads"] * int(rng.integers(1, 3))
        usual["in_channels"] = 3 * usual["out_channels"]
    if opcode is Opcode.EXPERTS:
        usual["out_channels"] = usual["in_channels"]
    if opcode is Opcode.UPSAMPLE2X:
        usual["rows"] = 4 * height * width
    for field in isa.fields(Instruction):
        if field.name in opcodes.operands(opcode, epilogue):
            anything = int(rng.choice([field.minimum, field.maximum, rng.integers(0, field.maximum + 1)]))
            wild, near = rng.random(2) < (0.02, 0.05) if field.name != "epilogue" else (False, False)
            value = anything if wild else usual.get(field.name, 64 * int(rng.integers(100))) + int(near)
            values[field.name] = min(value, field.maximum)
    return Instruction(**values)


def test_cpp_has_the_same_rules(tmp_path: Path) -> None:
    """Instructions that nearly fit, in every opcode and epilogue; hostile values overflow nothing."""
    limits = dataclasses.asdict(load_accelerator("zcu104"))
    rng = np.random.default_rng(0)
    instructions = [plausible(rng, opcode) for opcode in Opcode for _ in range(300)]
    data = "\n".join(" ".join(map(str, raw_words(i))) for i in instructions)
    rows = np.array(run_cpp(tmp_path, RULES, data)).reshape(len(instructions), -1)
    seen = {opcode: [0, 0, 0] for opcode in Opcode}
    for instruction, (ranges, shape, planes, *places) in zip(instructions, rows.tolist(), strict=True):
        opcode = Opcode(instruction.opcode)
        within = all(
            low <= getattr(instruction, name) <= (limits[high] if isinstance(high, str) else high)
            for name, low, high in opcodes.ranges(OPCODES[opcode], instruction.epilogue)
        )
        fits = within and not list(opcodes.broken_rules(instruction, limits))
        assert (ranges, shape) == (within, fits), instruction
        seen[opcode][within + fits] += 1
        if fits:
            assert 2 * planes == opcodes.weight_beats(instruction), instruction
            regions = [(region.address, region.size // 64) for region in opcodes.regions(instruction)]
            assert [*zip(places[::2], places[1::2], strict=True)][: len(regions)] == regions, instruction
            assert not any(places[2 * len(regions) :]), instruction
    for opcode, (out_of_range, misshapen, right) in seen.items():
        assert right > 40, opcode
        assert out_of_range > 0 or opcode is Opcode.END, opcode
        assert misshapen > 5 or not OPCODES[opcode].rules, opcode


BROKEN = [
    (Opcode.PATCHES, {"height": 30}, "an image of 30x32 has no whole patches of 16x16"),
    (Opcode.PATCHES, {"rows": 3}, "rows = 3, but an image of 16x32 has 2 patches of 16x16"),
    (Opcode.PATCHES, {"out_channels": 3}, "out_channels = 3, but a patch of 16x16 has 768 bytes"),
    (Opcode.ATTENTION, {"heads": 3}, "out_channels = 64 is not a multiple of 32 for each of heads = 3"),
    (Opcode.ATTENTION, {"out_channels": 0}, "out_channels = 0 is not a multiple of 32 for each of heads = 2"),
    (
        Opcode.ATTENTION,
        {"heads": 1, "out_channels": 128},
        "a head has 128 channels, but the accelerator's max_head_dim = 64",
    ),
    (
        Opcode.ATTENTION,
        {"in_channels": 64},
        "in_channels = 64, but q, k and v of out_channels = 64 have 192",
    ),
    (Opcode.ATTENTION, {"row_start": 1}, "row_start = 1 and rows = 8 reach beyond keys = 8"),
    (
        Opcode.ATTENTION,
        {"heads": 1, "rows": 1025, "keys": 1025},
        "rows = 1025 of 64 channels a head need 2050 accumulator rows, but the accelerator's "
        "accumulator_rows = 2048",
    ),
    (Opcode.GATE, {"top_k": 5}, "top_k = 5 exceeds experts = 4"),
    (
        Opcode.GATE,
        {"rows": 2047, "experts": 17},
        "rows = 2047 and experts = 17 need 2048 pairs of accumulator rows, but the accelerator's "
        "accumulator_rows = 2048",
    ),
    (Opcode.EXPERTS, {"top_k": 5}, "top_k = 5 exceeds experts = 4"),
    (Opcode.EXPERTS, {"out_channels": 8}, "in_channels = 64 and out_channels = 8 must be equal"),
    (
        Opcode.CONV3X3,
        {"height": 2000},
        "a map of 2000x4 has 8000 pixels, but the accelerator's max_map_rows = 4096",
    ),
    (
        Opcode.CONV3X3,
        {"row_start": 16},
        "row_start = 16 and rows = 8 reach beyond the 20 pixels of a map of 5x4",
    ),
    (Opcode.CONV3X3, {"row_start": 5}, "row_start = 5 and rows = 8 are not whole lines of a map 4 wide"),
    (Opcode.CONV3X3, {"rows": 5}, "row_start = 8 and rows = 5 are not whole lines of a map 4 wide"),
    (Opcode.UPSAMPLE2X, {"rows": 8}, "rows = 8, but twice the size of a map of 5x4 has 80 pixels"),
]
RIGHT = {
    Opcode.PATCHES: {"rows": 2, "out_channels": 768, "height": 16, "width": 32, "patch": 16},
    Opcode.ATTENTION: {"rows": 8, "keys": 8, "heads": 2, "in_channels": 192, "out_channels": 64},
    Opcode.GATE: {"rows": 8, "in_channels": 64, "experts": 4, "top_k": 2},
    Opcode.EXPERTS: {"in_channels": 64, "out_channels": 64, "experts": 4, "top_k": 2},
    Opcode.CONV3X3: {"rows": 8, "row_start": 8, "height": 5, "width": 4},
    Opcode.UPSAMPLE2X: {"rows": 80, "height": 5, "width": 4},
}


@pytest.mark.parametrize(("opcode", "fields", "message"), BROKEN)
def test_a_rule_says_the_values_that_break_it(opcode: Opcode, fields: dict[str, int], message: str) -> None:
    limits = dataclasses.asdict(load_accelerator("zcu104"))
    right = Instruction(opcode=opcode, **RIGHT[opcode])
    assert list(opcodes.broken_rules(right, limits)) == []
    assert message in opcodes.broken_rules(dataclasses.replace(right, **fields), limits)


def test_every_rule_is_broken_by_one_of_them() -> None:
    limits = dataclasses.asdict(load_accelerator("zcu104"))
    broken = set()
    for opcode, fields, _ in BROKEN:
        instruction = Instruction(opcode=opcode, **{**RIGHT[opcode], **fields})
        scope = opcodes.Scope({**limits, **vars(instruction)})
        broken |= {(opcode, rule) for rule in OPCODES[opcode].rules if not expressions.value(rule, scope)}
    assert broken == {(opcode, rule) for opcode in Opcode for rule in OPCODES[opcode].rules}
