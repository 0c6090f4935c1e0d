# SPDX-License-Identifier: Apache-2.0
"""The inventory of arrays, streams, ports and multipliers equals the C++; totals follow from stated rules."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_moe import cli
from edge_moe.accelerator import AcceleratorConfig, load_accelerator, load_board
from edge_moe.codegen import generate
from edge_moe.estimate.inventory import inventory
from edge_moe.estimate.resources import (
    ESTIMATED,
    Inventory,
    Master,
    Multipliers,
    Storage,
    Stream,
    Table,
    dsp_cost,
    memory_cost,
    require_fit,
    scratch_memory,
    table,
    weight_fifo,
)
from edge_moe.settings import packaged_names
from edge_moe.testing import hls_probe, hls_source
from edge_moe.testing.checkout import ROOT
from edge_moe.vendor import reports
from edge_moe.vendor import tcl as vendor
from edge_moe.vendor.interface import TOP
from edge_moe_host.errors import EdgeMoEError

PRESETS = tuple(packaged_names("accelerators"))
# Numbers that divide nothing: sizes are rounded up in every place.
ODD = {
    "scratch_bytes": 64 * 1021,
    "fifo_bytes": 128 * 77,
    "accumulator_rows": 334,
    "max_tokens": 131,
    "max_width": 200,
    "max_channels": 459,
    "max_head_dim": 80,
    "max_experts": 37,
    "max_top_k": 3,
    "max_image_width": 301,
    "max_patch_size": 14,
}
# Functions that read a table, by the beginning of their signatures.
READERS = {
    "exp2": "numerator(",
    "gelu": "gelu(int16_t)",
    "reciprocal": "reciprocal(",
    "rsqrt": "reciprocal_sqrt(",
}
# Structures that hold arrays: slices, planes and tiles, counters and windows, all of them registers.
REGISTERS = {
    "Lanes", "WeightTile", "Plane", "Record", "Regions", "QueueCounters", "RoutingRow", "Window",
    "RouteState", "Rows",
}  # fmt: skip
FEW = 4  # elements of an array that the tool turns into registers by itself

needs_cpp = pytest.mark.skipif(bool(hls_source.missing_tool()), reason=hls_source.missing_tool())


@dataclass(frozen=True)
class Cpp:
    """A configuration, the C++ as synthesis sees it, and the probe's measurements of it."""

    config: AcceleratorConfig
    listed: Inventory
    source: hls_source.Source
    functions: list[hls_source.Function]
    arrays: list[hls_source.Array]
    streams: list[tuple[str, str]]
    masters: dict[str, dict[str, str]]
    said: hls_probe.Said


def _read(config_path: str, out: Path) -> Cpp:
    config, ultraram = load_accelerator(config_path), load_board(config_path).ultraram
    generate(config_path, out)
    memories = {"SCRATCH": scratch_memory(ultraram), "FIFO": weight_fifo(config, ultraram)}
    source = hls_source.read_source(
        out, [f"-DEDGE_MOE_{name}_MEMORY={memory.value}" for name, memory in memories.items()]
    )
    functions = hls_source.reachable(source, TOP)
    arrays = [array for function in functions for array in hls_source.arrays(source, function)]
    streams = [pair for function in functions for pair in hls_source.streams(function)]
    masters = {
        pragma.options["port"]: pragma.options
        for function in functions
        for pragma in function.pragmas
        if pragma.kind == "interface" and pragma.options["mode"] == "m_axi"
    }
    wanted = [
        value
        for options in masters.values()
        for key, value in options.items()
        if key.startswith(("num_", "max_"))
    ]
    kinds = sorted({kind for kind, _ in streams})
    said = hls_probe.ask(source, arrays, kinds, sorted(set(wanted)), out)
    return Cpp(config, inventory(config, ultraram), source, functions, arrays, streams, masters, said)


@pytest.fixture(scope="module", params=[*(name for name in PRESETS if name != "zcu106"), "odd"])
def cpp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cpp:
    out = tmp_path_factory.mktemp("resources")
    if request.param != "odd":
        return _read(request.param, out)
    values = dataclasses.asdict(load_accelerator("zcu104")) | ODD
    path = out / "odd.toml"
    lines = ['board = "zcu104"\n', *(f"{name} = {value}\n" for name, value in values.items())]
    path.write_text("".join(lines))
    return _read(str(path), out)


def _pragmas(cpp: Cpp, function: str, variable: str, kind: str) -> list[dict[str, str]]:
    return [
        pragma.options
        for found in cpp.source.functions[function]
        for pragma in found.pragmas
        if pragma.kind == kind and pragma.options.get("variable") == variable
    ]


def _memory(cpp: Cpp, array: hls_source.Array) -> tuple[int, int, Storage, int] | None:
    """Words of a bank, bits, storage and banks in the C++; None for registers."""
    bits, extents = cpp.said.arrays[array.function, array.name]
    bound = _pragmas(cpp, array.function, array.name, "bind_storage")
    apart = _pragmas(cpp, array.function, array.name, "array_partition")
    assert all(options["type"] == "complete" for options in apart)
    dimensions = {int(options["dim"]) for options in apart}
    words = banks = 1
    for place, extent in enumerate(extents, start=1):
        words, banks = (words, banks * extent) if place in dimensions else (words * extent, banks)
    if 0 in dimensions or (not bound and not apart and words <= FEW):
        return None
    assert all(options["type"] == "ram_s2p" for options in bound)
    return words, bits, Storage(bound[0]["impl"]) if bound else Storage.AUTO, banks


@needs_cpp
def test_every_array_is_listed_as_it_is(cpp: Cpp) -> None:
    found = {(array.function, array.name): _memory(cpp, array) for array in cpp.arrays}
    assert len(found) == len(cpp.arrays)  # no name twice in a function
    memories = {key: memory for key, memory in found.items() if memory is not None}
    listed = {(m.function, m.name): (m.words, m.bits, m.storage, m.banks) for m in cpp.listed.memories}
    assert listed == memories
    assert len(memories) >= 20


@needs_cpp
def test_no_memory_hides_in_a_structure(cpp: Cpp) -> None:
    used = "\n".join(function.body for function in cpp.functions)
    structures = {
        name
        for name in hls_source.structures_with_arrays(cpp.source)
        if re.search(rf"\b{name}\b|Slice", used)
    }
    unused = {name for name in structures if name != "Lanes" and not re.search(rf"\b{name}\b", used)}
    assert structures - unused == REGISTERS


@needs_cpp
def test_every_stream_is_listed_as_it_is(cpp: Cpp) -> None:
    found = {}
    for kind, name in cpp.streams:
        bound = _pragmas(cpp, TOP, name, "bind_storage")
        assert all(options["type"] == "fifo" for options in bound)
        found[name] = (*cpp.said.streams[kind], Storage(bound[0]["impl"]) if bound else Storage.AUTO)
    assert len(found) == len(cpp.streams) >= 15
    assert {s.name: (s.depth, s.bits, s.storage) for s in cpp.listed.streams} == found


@needs_cpp
def test_every_memory_port_is_listed_as_it_is(cpp: Cpp) -> None:
    transfer = cpp.said.streams["TransferChannel"][1]  # the type that all ports have
    found = {}
    for name, options in cpp.masters.items():
        reads, writes = (
            (
                cpp.said.numbers[options[f"num_{way}_outstanding"]],
                cpp.said.numbers[options[f"max_{way}_burst_length"]],
            )
            for way in ("read", "write")
        )
        assert min(reads, writes) == (1, 2)  # the least claim about an unused array
        found[name] = (transfer, *max(reads, writes), writes > reads)
    assert {m.name: (m.bits, m.requests, m.burst, m.writes) for m in cpp.listed.masters} == found
    assert len(found) == 7


@needs_cpp
def test_the_loops_have_the_listed_multipliers(cpp: Cpp) -> None:
    """The most products of each width in one iteration of a pipelined loop, counted at run time."""
    listed = {(m.function, m.a, m.b): m.count for m in cpp.listed.multipliers if not m.control}
    assert cpp.said.products() == listed
    assert listed["compute", 27, 8] == cpp.config.tile_in * cpp.config.tile_out


@needs_cpp
def test_the_tables_have_the_listed_readers(cpp: Cpp) -> None:
    reading = {
        (function.name, name)
        for function in cpp.functions
        for name in re.findall(r"tables::(\w+)\[", function.body)
    }
    assert reading == {(signature.partition("(")[0], name) for name, signature in READERS.items()}
    found = {
        (loop, name): n for name, reader in READERS.items() for loop, n in cpp.said.readers(reader).items()
    }
    assert {(t.function, t.name): t.readers for t in cpp.listed.tables} == found


@needs_cpp
def test_every_other_product_is_listed(cpp: Cpp) -> None:
    copies = hls_source.instances(cpp.source, TOP)
    found: dict[str, int] = {}
    for function in cpp.functions:
        products = hls_source.products(function)
        if products and function.name != "product":  # counted where it runs
            found[function.name] = found.get(function.name, 0) + copies[function.name] * len(products)
    listed = {m.function: m.count for m in cpp.listed.multipliers if m.control}
    assert listed == found
    # a product in lanes is either no multiplier or product<a, b>
    real = {m.function for m in cpp.listed.multipliers if m.control and m.a > 0}
    for function in cpp.functions:
        for body in hls_source.unrolled(function):
            assert not (hls_source.products(body) and function.name in real), function.name
            assert not real & set(hls_source.callees(cpp.source, body)), function.name


def test_the_scanner_sees_products() -> None:
    def products(body: str) -> list[str]:
        return hls_source.products(hls_source.Function("f", body))

    assert products("x = a * b; y = 2 * a * N; z = 2 * a.c[i] * f(3 * d); ") == [
        "a * b",
        "2 * a.c[i] * f(3 * d)",
    ]
    assert products("return (a + 1) * static_cast<int>(b) ;") == ["(a+1) * static_cast<int>(b)"]
    assert products("const T* p = q; v = config::width * a; w = isa::tile * tap::DEPTH;") == []
    assert products("x = (a + BITS) * (N - 1); y = (lanes * 2) * tiles ;") == ["(lanes * 2) * tiles"]


@pytest.mark.parametrize(
    ("a", "b", "result", "cost"),
    [
        (27, 18, None, 1), (18, 27, None, 1), (27, 8, None, 1), (28, 18, None, 2), (27, 19, None, 2),
        (32, 16, None, 2), (42, 12, None, 2), (26, 26, None, 2), (32, 32, None, 4), (32, 32, 32, 3),
        (32, 32, 43, 3), (32, 32, 44, 4), (4, 40, None, 0), (53, 18, None, 2), (54, 18, None, 3),
        (27, 35, None, 2), (27, 36, None, 3),
    ],
)  # fmt: skip
def test_dsp(a: int, b: int, result: int | None, cost: int) -> None:
    assert dsp_cost(a, b, result) == cost


@pytest.mark.parametrize(
    ("storage", "words", "bits", "cost"),
    [
        (Storage.URAM, 4096, 72, {"URAM": 1}),
        (Storage.URAM, 4097, 73, {"URAM": 4}),
        (Storage.BRAM, 512, 36, {"BRAM_18K": 1}),
        (Storage.BRAM, 513, 36, {"BRAM_18K": 2}),
        (Storage.BRAM, 1024, 18, {"BRAM_18K": 1}),
        (Storage.BRAM, 16384, 1, {"BRAM_18K": 1}),
        (Storage.BRAM, 16, 37, {"BRAM_18K": 2}),
        (Storage.AUTO, 64, 16, {}),
        (Storage.AUTO, 64, 17, {"BRAM_18K": 1}),
        (Storage.LUTRAM, 4096, 72, {}),
    ],
)
def test_memories(storage: Storage, words: int, bits: int, cost: dict[str, int]) -> None:
    assert memory_cost(storage, words, bits) == cost


def test_tables_streams_and_ports() -> None:
    assert Table("f", "t", 1024, 18, 1).cost == Table("f", "t", 1024, 18, 2).cost == {"BRAM_18K": 1}
    assert Table("f", "t", 1024, 18, 3).cost == {"BRAM_18K": 2}
    assert Table("f", "t", 512, 36, 2).cost == {"BRAM_18K": 2}  # two readers leave 18 bits each
    assert Table("f", "t", 64, 16, 64).cost == {}
    assert Stream("s", 2, 4096).cost == Stream("s", 16, 64).cost == {}
    assert Stream("s", 17, 64).cost == {"BRAM_18K": 2}
    assert Master("m", 128, 2, 256).cost == {"BRAM_18K": 4}
    assert Master("m", 32, 1, 512).cost == {"BRAM_18K": 1}
    assert Master("m", 34, 1, 512).cost == {"BRAM_18K": 2}  # three bits come with the data
    assert Master("m", 32, 1, 512, writes=True).cost == {"BRAM_18K": 1}
    assert Master("m", 64, 1, 512, writes=True).cost == {"BRAM_18K": 2}
    assert Master("m", 72, 1, 512, writes=True).cost == {"BRAM_18K": 3}
    assert Multipliers("f", 32, 16, 5).cost == {"DSP": 10}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit(name: str) -> None:
    board = load_board(name)
    listed = inventory(load_accelerator(name), board.ultraram)
    require_fit(listed, name, board)
    totals = listed.totals()
    assert tuple(totals) == ESTIMATED
    assert all(totals[resource] <= board.resources[resource] for resource in ESTIMATED)
    assert [resource for resource in ESTIMATED if not totals[resource]] == ["URAM"] * (not board.ultraram)
    for resource in ESTIMATED:
        assert totals[resource] == sum(item.cost.get(resource, 0) for item in listed)
    text = table(listed, name, board)
    assert "not synthesised" in text
    assert f"| DSP | {board.resources['DSP']:,} | {totals['DSP']:,} (" in text
    if not board.ultraram:
        assert "| URAM | 0 | 0 |" in text


def test_boards_of_one_accelerator_share_its_bundles() -> None:
    assert load_accelerator("zcu102") == load_accelerator("zcu104") == load_accelerator("zcu106")
    assert load_board("zcu104").part == load_board("zcu106").part != load_board("zcu102").part


def test_a_part_without_ultraram_has_its_memories_in_block_ram(tmp_path: Path) -> None:
    config = load_accelerator("zcu102")
    assert not any("URAM" in item.cost for item in inventory(config, ultraram=False))
    made = vendor.design("zcu102", TOP, hls_source.HLS, tmp_path)
    assert "-DEDGE_MOE_SCRATCH_MEMORY=bram -DEDGE_MOE_FIFO_MEMORY=bram" in made.flags
    assert (made.interface.board.part, made.interface.config_hash) == ("xczu9eg-ffvb1156-2-e", config.hash())
    with pytest.raises(EdgeMoEError, match=r"does not fit xczu9eg.* URAM of 0, 61 too many"):
        require_fit(inventory(config), "zcu102", load_board("zcu102"))


def test_the_page_of_results_has_the_totals() -> None:
    page = (ROOT / "docs" / "results" / "hardware.md").read_text(encoding="utf-8")
    for name in PRESETS:
        board = load_board(name)
        totals = inventory(load_accelerator(name), board.ultraram).totals()
        cells = [f"{totals[resource]:,} of {board.resources[resource]:,}" for resource in ESTIMATED]
        assert f"| `{name}` | " + " | ".join(cells) + " |" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"scratch_bytes": 16 << 20},
            r"URAM of 96, \d+ too many; most of them, 256, are for 'even' of execute",
        ),
        ({"accumulator_rows": 16384}, r"BRAM_18K of 624, \d+ too many; most of them, \d+, are for 'sums0'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, int], message: str) -> None:
    config = dataclasses.replace(load_accelerator("zcu104"), **change)
    with pytest.raises(EdgeMoEError, match=message):
        require_fit(inventory(config), "mine.toml", load_board("zcu104"))


def test_exactly_full_fits() -> None:
    listed = inventory(load_accelerator("zcu104"))
    totals = listed.totals()
    board = load_board("zcu104")
    full = dict(board.resources) | totals
    require_fit(listed, "x", dataclasses.replace(board, resources=full))
    for resource in ESTIMATED:
        smaller = dataclasses.replace(board, resources=full | {resource: totals[resource] - 1})
        with pytest.raises(EdgeMoEError, match=f"{resource} of [0-9,]+, 1 too many"):
            require_fit(listed, "x", smaller)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "estimate.json"
    assert cli.main(["resources", "--accelerator", "zcu104_large", "--json", str(out)]) == 0
    totals = inventory(load_accelerator("zcu104_large")).totals()
    printed = capsys.readouterr().out
    available = load_board("zcu104_large").resources
    for resource in ESTIMATED:
        assert f"| {resource} | {available[resource]:,} | {totals[resource]:,} (" in printed
    assert reports.read_estimate(out) == totals


@pytest.fixture
def too_big(tmp_path: Path) -> Path:
    values = dataclasses.asdict(load_accelerator("zcu104")) | {"scratch_bytes": 16 << 20}
    path = tmp_path / "big.toml"
    lines = ['board = "zcu104"\n', *(f"{name} = {value}\n" for name, value in values.items())]
    path.write_text("".join(lines))
    return path


def test_synthesis_refuses_what_does_not_fit(too_big: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgeMoEError, match="does not fit xczu7ev"):
        vendor.design(str(too_big), TOP, hls_source.HLS, tmp_path)
    assert vendor.design("zcu104", TOP, hls_source.HLS, tmp_path).fifo_memory == "uram"


def test_the_command_refuses_what_does_not_fit(
    too_big: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "estimate.json"
    assert cli.main(["resources", "--accelerator", str(too_big), "--json", str(out)]) == 2
    captured = capsys.readouterr()
    assert "big.toml' does not fit xczu7ev" in captured.err
    assert captured.err.count("\n") == 1
    assert "| URAM | 96 | " in captured.out  # the table still shows the use
    assert reports.read_estimate(out)["URAM"] > load_board("zcu104").resources["URAM"]
