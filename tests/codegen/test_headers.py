# SPDX-License-Identifier: Apache-2.0
"""Generated C++ headers: their values, as compiled, equal the Python that they come from."""

import dataclasses
import json
import re
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from edge_moe.accelerator import load_accelerator, load_board
from edge_moe.codegen import __main__ as command
from edge_moe.codegen import config_header, generate, isa_header, tables_header
from edge_moe.codegen.design import require_buildable
from edge_moe.estimate.inventory import inventory
from edge_moe.quant import network
from edge_moe.testing.checkout import ROOT
from edge_moe_host.config import to_dict
from edge_moe_host.contract import encoding, isa, layout
from edge_moe_host.contract.opcodes import operands
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden import arithmetic, operators

ACCELERATORS = ("zcu104", "zcu104_large")


def run_cpp(folder, source, *arguments, data=""):
    """Compile a program against the headers in ``folder`` and return its output, split."""
    (folder / "program.cpp").write_text(source)
    compiler = ["g++", "-std=c++14", "-Wall", "-Wextra", "-Werror", "-Wno-unused-label", f"-I{folder}",
                "program.cpp", "-o", "program"]  # fmt: skip
    subprocess.run(compiler, cwd=folder, check=True, timeout=120)
    program = [str(folder / "program"), *arguments]
    return subprocess.run(
        program, input=data, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_configuration(accelerator, tmp_path):
    config = load_accelerator(accelerator)
    generate(accelerator, tmp_path)
    values = dataclasses.asdict(config)
    prints = "".join(f'std::printf("%d\\n", edge_moe::config::{name});' for name in values)
    printed = run_cpp(
        tmp_path,
        '#include <cstdio>\n#include "edge_moe_config.hpp"\nint main() {' + prints
        + 'std::printf("%016llx", static_cast<unsigned long long>(edge_moe::config::hash)); }',
    )  # fmt: skip
    assert printed == [*(str(value) for value in values.values()), config.hash()]


def test_tables(tmp_path):
    generate("zcu104", tmp_path)
    names = {"exp2": "EXP2", "reciprocal": "RECIPROCAL", "rsqrt": "RSQRT", "gelu": "GELU"}
    loops = "".join(
        f'for (int value : edge_moe::tables::{name}) std::printf("%d\\n", value);' for name in names
    )
    printed = run_cpp(
        tmp_path, '#include <cstdio>\n#include "edge_moe_tables.hpp"\nint main() {' + loops + "}"
    )
    expected = np.concatenate([getattr(arithmetic, table) for table in names.values()])
    assert np.array_equal(np.array(printed, dtype=np.int64), expected)
    assert len(printed) == 256 + 1024 + 1536 + 1024


def decoder(record, function):
    names = [field.name for field in isa.fields(record)]
    prints = "".join(f'std::printf("%lld ", static_cast<long long>(r.{name}));' for name in names)
    return (
        '#include <cstdio>\n#include "edge_moe_isa.hpp"\nusing namespace edge_moe;\nint main() {'
        "uint32_t words[isa::record_words];"
        "for (;;) { for (uint32_t& word : words) if (std::scanf(\"%u\", &word) != 1) return 0;"
        f"const isa::{record.__name__} r = isa::decode_{function}(words);"
        + prints
        + 'std::printf("%d ", isa::checksum(words) == words[isa::checksum_word]);'
        + ('std::printf("%d ", isa::uses_only(words, isa::instruction_bits[r.opcode])'
           "+ 2 * isa::uses_only(words, isa::linear_gelu_bits));" if record is isa.Instruction else
           'std::printf("%d ", isa::uses_only(words, isa::expert_entry_bits));')
        + "}}"
    )  # fmt: skip


def random_instruction(rng, opcode, epilogue, extreme=None):
    names = operands(opcode, epilogue)
    values = {
        field.name: int(rng.integers(field.minimum, field.maximum, endpoint=True))
        if extreme is None
        else getattr(field, extreme)
        for field in isa.fields(isa.Instruction)
        if field.name in names
    }
    values |= {"opcode": int(opcode)} | ({"epilogue": int(epilogue)} if "epilogue" in names else {})
    return isa.Instruction(**values)


def words_of(records):
    return [np.frombuffer(encoding.encode(record), "<u4") for record in records]


def as_text(words):
    return "\n".join(" ".join(str(word) for word in row) for row in words)


def test_instructions_are_decoded_as_the_host_does(tmp_path):
    generate("zcu104", tmp_path)
    rng = np.random.default_rng(0)
    records = [
        random_instruction(rng, opcode, epilogue, extreme)
        for opcode in isa.Opcode
        for epilogue in isa.Epilogue
        for extreme in (None, None, None, "minimum", "maximum")
    ]
    printed = run_cpp(tmp_path, decoder(isa.Instruction, "instruction"), data=as_text(words_of(records)))
    rows = np.array(printed, dtype=np.int64).reshape(len(records), -1)
    expected = np.array([dataclasses.astuple(record) for record in records])
    assert np.array_equal(rows[:, :-2], expected)
    assert rows[:, :-2].size == len(records) * len(isa.fields(isa.Instruction)) == 220 * 27
    assert rows[:, -2].all()
    gelu = np.array([r.opcode == isa.Opcode.LINEAR and r.epilogue == isa.Epilogue.GELU for r in records])
    assert (rows[~gelu, -1] & 1).all()
    assert (rows[gelu, -1] & 2).all()
    sets_gelu = gelu & np.array([any((r.shift2, r.multiplier, r.zero_point)) for r in records])
    assert not (rows[sets_gelu, -1] & 1).any()  # GELU's fields are an excess without it
    assert sets_gelu.sum() == 5


@pytest.mark.parametrize(
    ("kind", "function", "skipped"),
    [(isa.Instruction, "instruction", 8), (isa.ExpertEntry, "expert_entry", 0)],
)
def test_damaged_words_are_seen(kind, function, skipped, tmp_path):
    """Flip each bit of a record: the checksum differs, and a bit without meaning is an excess. Those of the
    opcode are skipped: they select another mask."""
    generate("zcu104", tmp_path)
    rng = np.random.default_rng(1)
    record = random_instruction(rng, isa.Opcode.LAYERNORM, isa.Epilogue.REQUANTISE)
    read = {"opcode", *operands(isa.Opcode.LAYERNORM)}
    if kind is isa.ExpertEntry:
        record = isa.ExpertEntry(*(int(rng.integers(f.minimum, f.maximum)) for f in isa.fields(kind)))
        read = {field.name for field in isa.fields(kind)}
    (words,) = words_of([record])
    damaged = [words.copy() for _ in range(32 * 15)]
    for bit, row in enumerate(damaged):
        row[bit // 32] ^= np.uint32(1 << bit % 32)
    printed = run_cpp(tmp_path, decoder(kind, function), data=as_text(damaged[skipped:]))
    rows = np.array(printed, dtype=np.int64).reshape(len(damaged) - skipped, -1)
    assert not rows[:, -2].any()
    allowed = np.zeros((15, 32), dtype=bool)
    for field in isa.fields(kind):
        if field.name in read:
            allowed[field.word, field.low : field.low + field.width] = True
    assert np.array_equal(rows[:, -1] & 1, allowed.ravel()[skipped:])


def test_expert_entries_are_decoded_as_the_host_does(tmp_path):
    generate("zcu104", tmp_path)
    rng = np.random.default_rng(2)
    fields = isa.fields(isa.ExpertEntry)
    records = [
        isa.ExpertEntry(*(int(rng.integers(f.minimum, f.maximum, endpoint=True)) for f in fields))
        for _ in range(40)
    ]
    records += [isa.ExpertEntry(*(getattr(f, end) for f in fields)) for end in ("minimum", "maximum")]
    printed = run_cpp(tmp_path, decoder(isa.ExpertEntry, "expert_entry"), data=as_text(words_of(records)))
    rows = np.array(printed, dtype=np.int64).reshape(len(records), -1)
    assert np.array_equal(rows[:, :-2], [dataclasses.astuple(record) for record in records])
    assert rows.size == 42 * 11
    assert rows[:, -2:].all()


def test_opcodes_and_epilogues_are_those_of_the_specification(tmp_path):
    """SPEC.md, section 9, against the compiled values of the generated names."""
    text = (ROOT / "docs" / "SPEC.md").read_text(encoding="utf-8")
    opcodes = re.findall(r"^\| (\d+) ([A-Z][A-Z0-9]+) \|", text, re.MULTILINE)
    sentence = re.search(r"^The epilogues of LINEAR: (.*?)\.\s", text, re.MULTILINE | re.DOTALL)[1]
    epilogues = re.findall(r"(?:^|;\s)(\d) (\w+)", sentence)
    assert (len(opcodes), len(epilogues)) == (len(isa.Opcode), len(isa.Epilogue)) == (11, 4)
    stated = [("Opcode", *row) for row in opcodes] + [("Epilogue", *row) for row in epilogues]
    prints = "".join(
        f'std::printf("%d\\n", static_cast<int>(edge_moe::isa::{kind}::{name.upper()}));'
        for kind, _, name in stated
    )
    generate("zcu104", tmp_path)
    printed = run_cpp(tmp_path, '#include <cstdio>\n#include "edge_moe_isa.hpp"\nint main() {' + prints + "}")
    assert printed == [value for _, value, _ in stated]
    assert [getattr(isa, kind)[name.upper()] for kind, _, name in stated] == [int(n) for _, n, _ in stated]


def test_constants_are_those_of_layout_and_golden():
    found = dict(re.findall(r"constexpr int (\w+) = (\d+);", isa_header() + tables_header()))
    expected = {
        "plane_bytes": layout.PLANE,
        "gate_experts": layout.GATE_EXPERTS,
        "route_bytes": layout.ROUTE_BYTES,
        "output_alignment": layout.OUTPUT_ALIGNMENT,
        "shift_limit": layout.SHIFT_LIMIT,
        "opcode_count": max(isa.Opcode) + 1,
        "key_block": operators.KEY_BLOCK,
        "xhat_fraction": operators.XHAT_FRACTION,
        "exponent_limit": operators.EXPONENT_LIMIT,
        "gelu_limit": arithmetic.GELU_LIMIT,
        "token_limit": network.TOKEN_LIMIT,
    }
    assert {name: int(found[name]) for name in expected} == expected


def test_a_header_is_the_same_each_time():
    config = load_accelerator("zcu104")
    assert config_header(config) == config_header(config)
    assert config_header(config) != config_header(load_accelerator("zcu104_large"))
    assert tables_header() == tables_header()
    assert max(len(line) for line in tables_header().splitlines()) <= 110


HEADERS = [
    "edge_moe_config.hpp",
    "edge_moe_design.hpp",
    "edge_moe_isa.hpp",
    "edge_moe_opcodes.hpp",
    "edge_moe_tables.hpp",
]


def test_generate_writes_headers_and_the_board(tmp_path):
    paths = generate("zcu104", tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [*HEADERS, "edge_moe_board.json"]
    assert all(path.read_text().startswith("// SPDX-License-Identifier: Apache-2.0") for path in paths[:-1])
    assert json.loads(paths[-1].read_text()) == to_dict(load_board("zcu104"))
    assert sorted((tmp_path / "new" / "folder").iterdir()) == sorted(paths)


ACCELERATORS = resources.files("edge_moe") / "accelerators"


def test_an_accelerator_without_a_board_has_headers_alone(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text((ACCELERATORS / "zcu104.toml").read_text().replace("board =", "# board ="))
    assert [path.name for path in generate(str(mine), tmp_path / "out")] == HEADERS
    with pytest.raises(EdgeMoEError, match=r"mine\.toml' names no board: add a line such as board = "):
        load_board(str(mine))


@pytest.mark.parametrize(
    ("board", "message"),
    [
        ('"zcu999"', "unknown board 'zcu999': known are zcu102, zcu104, zcu106"),
        ("3", "board = 3 is not a table"),
    ],
)
def test_accelerators_with_a_wrong_board(board, message, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(
        (ACCELERATORS / "zcu104.toml").read_text().replace('board = "zcu104"', f"board = {board}")
    )
    with pytest.raises(EdgeMoEError, match=message):
        load_board(str(mine))
    assert load_accelerator(str(mine)) == load_accelerator("zcu104")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('part = "xczu7ev-ffvc1156-2-e"', "", "key 'board.part' is missing"),
        ("0xA0000000", "0x10", "board.control_address = 16 is not allowed: a multiple of control_bytes"),
        ("weights0 = 0", "weights9 = 0", "board.hp_ports = .* is not allowed: it must name program, "),
        ("URAM = 96", "URAM = -1", "board.URAM = -1 is not allowed: it must be at least 0"),
        ("DSP = 1728", "DSP = 0", "board.DSP = 0 is not allowed: it must be at least 1"),
        ("pl_ps_irq0", "irq", "board.interrupt = 'irq' is not allowed: pl_ps_irq0 or pl_ps_irq1"),
        ("weights2 = 2", "weights2 = 4", "board.hp_ports.weights2 = 4 is not allowed: ports are 0 to 3"),
        ("LUT = 230400", 'LUT = "many"', "board.resources.LUT = 'many' has the wrong type"),
    ],
)
def test_boards_that_are_wrong(before, after, message, tmp_path):
    text = (ACCELERATORS / "boards" / "zcu104.toml").read_text()
    assert before in text
    (tmp_path / "board.toml").write_text(text.replace(before, after))
    mine = tmp_path / "mine.toml"
    accelerator = (ACCELERATORS / "zcu104.toml").read_text()
    mine.write_text(accelerator.replace('board = "zcu104"', f'board = "{tmp_path / "board.toml"}"'))
    with pytest.raises(EdgeMoEError, match=message):
        load_board(str(mine))


def test_files_that_an_accelerator_names_are_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "boards").mkdir()
    packaged = resources.files("edge_moe").joinpath("accelerators", "boards", "zcu106.toml").read_text()
    (tmp_path / "boards" / "mine.toml").write_text(packaged)
    (tmp_path / "first.toml").write_text('base = "zcu104"\nboard = "boards/mine.toml"\n')
    (tmp_path / "boards" / "second.toml").write_text('base = "../first.toml"\n')
    monkeypatch.chdir(tmp_path / "boards")
    for name in (tmp_path / "first.toml", "../first.toml", "second.toml", "../boards/second.toml"):
        assert load_board(str(name)) == load_board("zcu106")
    (tmp_path / "first.toml").write_text('base = "boards/second.toml"\n')
    with pytest.raises(EdgeMoEError, match="name another accelerator"):
        load_board("second.toml")


def test_an_accelerator_based_on_another(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text('base = "zcu104_large"\nmax_tokens = 1024\nboard = "zcu102"\n')
    assert load_accelerator(str(mine)) == dataclasses.replace(
        load_accelerator("zcu104_large"), max_tokens=1024
    )
    assert load_board(str(mine)) == load_board("zcu102")
    other = tmp_path / "other.toml"
    other.write_text(f'base = "{mine}"\nclock_mhz = 200\n')
    assert load_accelerator(str(other)) == dataclasses.replace(load_accelerator(str(mine)), clock_mhz=200)
    assert load_board(str(other)) == load_board("zcu102")
    for base, message in (
        (f'"{other}"', r"other\.toml' has base = '.*other\.toml': name another accelerator"),
        ("3", r"other\.toml' has base = 3: name another accelerator"),
        ('"zcu999"', "unknown accelerator 'zcu999': known are zcu102, "),
    ):
        other.write_text(f"base = {base}\n")
        with pytest.raises(EdgeMoEError, match=message):
            load_accelerator(str(other))
    other.write_text(f'base = "{mine}"\n')
    mine.write_text(f'base = "{other}"\n')
    with pytest.raises(EdgeMoEError, match=r"mine\.toml' has base = .*other\.toml': name another"):
        load_accelerator(str(other))


def test_unknown_accelerator(tmp_path, capsys):
    with pytest.raises(EdgeMoEError, match="unknown accelerator 'nothing'"):
        generate("nothing", tmp_path)
    assert command.main(["--accelerator", "nothing", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: unknown accelerator 'nothing'")
    assert not list(tmp_path.iterdir())


def test_command_needs_no_torch(tmp_path):
    code = (
        "import sys; from edge_moe.codegen.__main__ import main; "
        f"status = main(['--accelerator', 'zcu104', '--out', {str(tmp_path)!r}]); "
        "sys.exit(status or 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.split()) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"io_bytes_per_cycle": 64}, "io_bytes_per_cycle = 64 cannot be built: a port has 16 bytes"),
        ({"memory_bytes_per_cycle": 64}, "memory_bytes_per_cycle = 64 cannot be built: .* 3 ports, 48 bytes"),
        ({"memory_latency": 513}, "memory_latency = 513 cannot be built: bursts cover 512"),
        ({"max_experts": 65}, "max_experts = 65 cannot be built: at most 64"),
        ({"max_patch_size": 53}, "max_patch_size = 53 cannot be built: at most 52"),
        ({"pipeline_cycles": 31}, "pipeline_cycles = 31 cannot be built: at least 32"),
        ({"max_map_rows": 2**19 + 1}, "max_map_rows = 524289 cannot be built: at most 524288"),
        ({"accumulator_rows": 2**22 + 2}, "accumulator_rows = 4194306 cannot be built: at most 4194304"),
        ({"max_image_width": 2**16}, "max_image_width = 65536 cannot be built: at most 65535"),
        ({"max_channels": 2**16}, "max_channels = 65536 cannot be built: at most 65535"),
    ],
)
def test_configuration_that_cpp_cannot_have(changes, message):
    good = load_accelerator("zcu104_large")
    most = {"memory_latency": 512, "max_experts": 64, "max_patch_size": 52, "pipeline_cycles": 32}
    require_buildable(dataclasses.replace(good, **most, accumulator_rows=2**22, max_channels=65535))
    with pytest.raises(EdgeMoEError, match=message):
        require_buildable(dataclasses.replace(good, **changes))
    with pytest.raises(EdgeMoEError, match=message):
        inventory(dataclasses.replace(good, **changes))
