# SPDX-License-Identifier: Apache-2.0
"""What runs the benches of sim/: it fails when a bench fails, compares too little or leaves a case out."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_moe.accelerator import load_accelerator
from edge_moe.codegen import generate_package, sv_package
from edge_moe.testing.checkout import ROOT, TESTS
from edge_moe.vendor.interface import Port
from edge_moe.vendor.ports import parse_module
from edge_moe_host.contract.registers import REGISTERS
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden import arithmetic
from rtl import prove, synth, yosys
from sim import compile_once, declaration, hls_verilog, run, tb
from sim.declaration import Operator

SIM, RTL = ROOT / "sim", ROOT / "rtl"
STAND_INS = TESTS / "sim" / "verilog"


# ------------------------------------------------------------------ the package


def localparams(text):
    """Integers and tables of a package, read back from its text."""
    scalars = dict(re.findall(r"localparam int (\w+) = ('h[0-9A-F]+|-?\d+);", text))
    tables = {
        name: [int(entry) for entry in re.findall(r"\d+'d(\d+)", body)][::-1]
        for name, body in re.findall(r"localparam logic \[\d+:0\] (\w+) = \{(.*?)\};", text, re.DOTALL)
    }
    return {n: int(v.replace("'h", "0x"), 0) for n, v in scalars.items()}, tables


def test_package_holds_configuration_tables_and_registers():
    config = load_accelerator("zcu104_large")
    text = sv_package(config)
    scalars, tables = localparams(text)
    assert {name: scalars[name.upper()] for name in vars(config)} == vars(config)
    for name in ("EXP2", "RECIPROCAL", "RSQRT", "GELU"):
        assert tables[name] == getattr(arithmetic, name).tolist()
        assert scalars[f"{name}_ENTRIES"] == len(tables[name])
        assert max(tables[name]).bit_length() == scalars[f"{name}_WIDTH"]
    for register in REGISTERS.values():
        assert scalars[f"REG_{register.name.upper()}"] == register.offset
    masks = dict(re.findall(r"logic \[REG_WORDS-1:0\] REG_(\w+)_WORDS = 59'h([0-9A-F]+);", text))
    bits = {name: [n for n in range(64) if int(mask, 16) >> n & 1] for name, mask in masks.items()}
    addresses = [word for offset in range(0x10, 0x64, 12) for word in (offset // 4, offset // 4 + 1)]
    assert bits == {
        "ARGUMENT": [*addresses, *(offset // 4 for offset in range(0x64, 0x8C, 8))],
        "FLAG": [offset // 4 for offset in (0x94, 0xA8, 0xB8, 0xC8, 0xD8, 0xE8)],
    }
    assert f"64'h{config.hash()};" in text
    assert len(re.findall(r"localparam \w+(?: \[\d+:0\])? (\w+)", text)) == len(
        set(re.findall(r"localparam \w+(?: \[\d+:0\])? (\w+)", text))
    )


# ------------------------------------------------------------------ what benches declare


def test_every_module_is_simulated_by_itself_or_in_another():
    text = {path.stem: path.read_text() for path in RTL.glob("*.sv")}
    simulated, pending = set(), declaration.known()
    while pending:
        name = pending.pop()
        simulated.add(name)
        used = {other for other in text if re.search(rf"^\s*{other}\s+(#\(|u_\w+)", text[name], re.MULTILINE)}
        pending += used - simulated
    assert simulated == set(text)


def test_benches_declare_operators():
    operators = declaration.choose([])
    assert [operator.name for operator in operators] == declaration.known()
    assert len(operators) >= 22
    for operator in operators:
        assert operator.source.is_file()
        assert operator.least > 1
        assert {} in operator.variants
        assert operator.illegal or not re.search(r"\$fatal", operator.source.read_text())


def test_kernels_exist():
    defined = set()
    for path in (ROOT / "hls" / "ops").glob("*.cpp"):
        defined |= set(re.findall(r'extern "C" \w+ (\w+)\(', path.read_text()))
    operators = declaration.choose([])
    assert sum(len(operator.kernels) for operator in operators) >= 17
    for operator in operators:
        assert set(operator.kernels) <= defined, operator.name


def test_unknown_operator():
    with pytest.raises(EdgeMoEError, match="no operator 'softmx': known are "):
        declaration.choose(["softmx"])
    assert run.main(["softmx"]) == 2


# ------------------------------------------------------------------ verdicts


RESULTS = """<testsuites><testsuite>
<testcase name="a"><properties/></testcase>
<testcase name="b"><properties/>{failure}</testcase>
</testsuite></testsuites>"""


def outcome(tmp_path, operator, records, failure="", results=RESULTS, parameters=None):
    """The verdict on a simulation's files."""
    (tmp_path / "results.xml").write_text(results.format(failure=failure))
    (tmp_path / "record.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    made = run.Outcome(operator, parameters or {})
    run._read(made, tmp_path / "results.xml", tmp_path / "record.jsonl", tmp_path)
    return made


VALUES = [{"key": "values", "value": 60}, {"key": "values", "value": 40}, {"key": "values_hls", "value": 7}]


def test_good_simulation(tmp_path):
    made = outcome(tmp_path, Operator("x", kernels=("x",), least=100), VALUES)
    assert (made.failed, made.passed, made.values, made.values_hls) == ([], 2, 100, 7)


@pytest.mark.parametrize("failure", ["<failure/>", "<error/>"])
def test_failed_bench_is_named(tmp_path, failure):
    made = outcome(tmp_path, Operator("x"), VALUES, failure)
    assert made.passed == 1
    assert made.failed == [f"test b: see {tmp_path / 'sim.log'}"]


def test_too_few_values_fail(tmp_path):
    operator = Operator("x", kernels=("x",), least=101)
    made = outcome(tmp_path, operator, VALUES[:2])
    assert made.failed == ["100 values compared, 101 must be", "no value was compared with the HLS kernel"]
    # with other parameters there may be fewer
    assert not outcome(tmp_path, operator, VALUES, parameters={"LANES": 3}).failed


@pytest.mark.parametrize("results", ["<testsuites/>", "<testsuites><testcase", ""])
def test_simulation_without_tests_fails(tmp_path, results):
    made = outcome(tmp_path, Operator("x"), VALUES, results=results)
    assert made.failed == [f"no test ran: see {tmp_path / 'sim.log'}"]


def test_report_says_what_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "BUILD", tmp_path)
    good, bad = run.Outcome(Operator("x"), {}, passed=3), run.Outcome(Operator("y"), {"LANES": 3})
    bad.failed.append("test b: see log")
    assert run.report([good]) == 0
    assert run.report([good, bad]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == ["y [LANES=3]: test b: see log", "3 passed, 1 failed"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [entry["failed"] for entry in summary] == [[], ["test b: see log"]]


# ------------------------------------------------------------------ what a bench asserts


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Keys and values that a bench has recorded until now."""
    path = tmp_path / "record.jsonl"
    path.touch()
    monkeypatch.setenv("EDGE_MOE_SIM_RECORD", str(path))
    return lambda: [tuple(json.loads(line).values()) for line in path.read_text().splitlines()]


def test_values_that_differ_fail(recorded):
    right = np.arange(6, dtype=np.uint8).reshape(2, 3)
    wrong = right.copy()
    wrong[1, 1:] = 255  # -1 as int8 has the same bits, and is another value
    with pytest.raises(AssertionError, match=r"y: 2 of 6 values differ from golden, first at \(1, 1\): 4 in"):
        tb.equal("y", right, wrong)
    with pytest.raises(AssertionError, match="differ from golden"):
        tb.equal("y", wrong, wrong.astype(np.int8))
    with pytest.raises(AssertionError, match="values differ from the HLS kernel"):
        tb.equal("y", right, right, wrong)
    with pytest.raises(AssertionError, match=r"y: \(2, 3\) against \(1, 3\) of golden"):
        tb.equal("y", right, right[:1])
    assert recorded() == []
    tb.equal("y", right, right.astype(np.int32))
    tb.equal("y", right, right, right)
    assert recorded() == [("values", 6), ("values", 6), ("values_hls", 6)]


@pytest.mark.parametrize(("cycles", "within"), [(9, False), (10, True), (12, True), (13, False)])
def test_cycles_are_those_of_the_model_and_the_latency(recorded, cycles, within):
    if within:
        tb.measured("y", cycles, 10, 2)
    else:
        with pytest.raises(AssertionError, match=f"y: {cycles} cycles, the model says 10 and 2 of latency"):
            tb.measured("y", cycles, 10, 2)
    assert recorded() == [("cycles", {"what": "y", "cycles": cycles, "model": 10, "latency": 2})]


def test_case_that_did_not_occur_fails():
    tb.cover("ties", True)
    with pytest.raises(AssertionError, match="not covered: ties"):
        tb.cover("ties", False)


class Channel:
    """A driver of cocotbext.axi as a pause sees it; one that sends has something to send, or nothing."""

    def __init__(self, valid, ready, pending=None):
        self.valid, self.ready = SimpleNamespace(value=valid), SimpleNamespace(value=ready)
        if pending is not None:
            self.send, self.idle = None, lambda: not pending


@pytest.mark.parametrize(
    ("channel", "held_back"),
    [
        (Channel(valid=0, ready=1, pending=True), True),
        (Channel(valid=0, ready=1, pending=False), False),
        (Channel(valid=1, ready=1, pending=True), False),
        (Channel(valid=1, ready=0), True),
        (Channel(valid=0, ready=0), False),
        (Channel(valid=1, ready=1), False),
    ],
)
def test_pauses_count_when_they_hold_something_back(channel, held_back):
    bench = tb.TB.__new__(tb.TB)
    bench.rng, bench._paused = np.random.default_rng(0), {}
    with pytest.raises(AssertionError, match="not covered: any stalls"):
        bench.cover_stalls()
    pauses = bench._pauses("x", channel, 0.5)
    assert {next(pauses) for _ in range(50)} == {False, True}
    if held_back:
        bench.cover_stalls()
    else:
        with pytest.raises(AssertionError, match="not covered: a stall of x"):
            bench.cover_stalls()


# ------------------------------------------------------------------ objects that are kept


@pytest.fixture
def compile_common(tmp_path, monkeypatch):
    """Compile INCLUDE/verilated.cpp with a compiler that copies; the number of times that it ran."""
    monkeypatch.chdir(tmp_path)
    include, compiler = tmp_path / "include", tmp_path / "c++"
    include.mkdir()
    (include / "verilated.cpp").write_text("source 1\n")
    (include / "verilated_config.h").write_text('#define VERILATOR_VERSION "5.48"\n')
    compiler.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then cat version; else echo run >> runs; cp "$4" "$3"; fi\n'
    )
    compiler.chmod(0o755)
    (tmp_path / "version").write_text("12.2\n")

    def compiled():
        source = include / "verilated.cpp"
        command = [str(compiler), "-c", "-o", "verilated.o", str(source)]
        monkeypatch.setattr(sys, "argv", ["compile_once.py", str(tmp_path / "kept"), *command])
        assert compile_once.main() == 0
        assert (tmp_path / "verilated.o").read_text() == source.read_text()
        return len((tmp_path / "runs").read_text().split())

    return compiled


def test_object_is_kept(compile_common):
    assert [compile_common(), compile_common()] == [1, 1]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("include/verilated.cpp", "source 2\n"),
        ("include/verilated_config.h", '#define VERILATOR_VERSION "5.49"\n'),
        ("version", "13.1\n"),
    ],
    ids=["source", "Verilator's version", "compiler's version"],
)
def test_object_of_other_sources_or_tools_is_compiled_anew(compile_common, tmp_path, file, text):
    assert compile_common() == 1
    (tmp_path / file).write_text(text)
    assert [compile_common(), compile_common()] == [2, 2]


# ------------------------------------------------------------------ kernels as Verilog


def test_kernels_of_a_folder():
    found = hls_verilog.kernels_in(STAND_INS, ["gelu", "requantise", "residual_add"])
    assert list(found) == ["requantise", "residual_add"]
    assert hls_verilog._arguments(found["requantise"]) == [
        "a", "m", "out_r", "rows", "channels", "n", "low", "high", "z",
    ]  # fmt: skip


def test_incomplete_verilog_is_refused(tmp_path):
    text = (STAND_INS / "requantise.v").read_text()
    (tmp_path / "requantise.v").write_text(text.replace("ap_ready", "ap_steady"))
    with pytest.raises(EdgeMoEError, match="port 'ap_ready' is missing"):
        hls_verilog.kernels_in(tmp_path, ["requantise"])


def test_folder_without_kernels(tmp_path, capsys):
    assert run.main(["requantise", "--hls", str(tmp_path)]) == 2
    assert "no Verilog of these operators' kernels" in capsys.readouterr().err


def test_copied_modules_have_names_of_their_own(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "gelu.v").write_text(
        "module gelu (ap_clk);\ninput ap_clk;\nreg gelu_state;\ngelu_rom #(.gelu(1)) u_gelu (.clk(ap_clk));\n"
        "endmodule\n"
    )
    (source / "gelu_rom.v").write_text(
        'module gelu_rom (clk);\ninput clk;\ninitial $readmemh("./gelu_rom.dat", x);\nendmodule\n'
    )
    (source / "gelu_rom.dat").write_text("00\n")
    paths = hls_verilog.copy_verilog(source, target)
    assert {path.name for path in paths} == {"hls_gelu.v", "hls_gelu_rom.v"}
    text = (target / "hls_gelu.v").read_text()
    assert "module hls_gelu (" in text
    assert "reg gelu_state;" in text
    assert "hls_gelu_rom #(.gelu(1)) u_gelu (" in text
    assert '"./gelu_rom.dat"' in (target / "hls_gelu_rom.v").read_text()
    assert (target / "gelu_rom.dat").read_text() == "00\n"
    written = paths[0].stat().st_mtime_ns
    hls_verilog.copy_verilog(source, target)
    assert paths[0].stat().st_mtime_ns == written  # nothing is compiled again


def test_wrapper_has_both_interfaces(tmp_path):
    module = parse_module(STAND_INS / "residual_add.v", "residual_add")
    ports = [Port("clk", "input"), Port("m_axis_y_tdata", "output", 16)]
    text = hls_verilog.write_wrapper(
        tmp_path / "bench_x.sv", "x", ports, {"residual_add": module}
    ).read_text()
    assert "output wire [15:0] m_axis_y_tdata" in text
    assert "input wire [511:0] hls_residual_add_residual_q0" in text
    assert "hls_residual_add u_hls_residual_add (.ap_clk(clk), .ap_rst(hls_residual_add_ap_rst)," in text


# ------------------------------------------------------------------ resources and proofs


def test_cells_are_counted_through_the_hierarchy():
    modules = {
        "\\top": {"num_cells_by_type": {"$paramod\\lane": 3, "FDRE": 2, "RAMB18E2": 1}},
        "$paramod\\lane": {"num_cells_by_type": {"\\leaf": 2, "LUT6": 5, "DSP48E2": 1}},
        "\\leaf": {
            "num_cells_by_type": {"CARRY4": 1, "CARRY8": 1, "LUT2": 1, "SRL16E": 1, "RAM32M": 1, "URAM288": 1}
        },
    }
    cells = synth.count_cells(modules, "top")
    assert cells["DSP48E2"] == 3
    found = synth.Mapped("top", cells, 0.0).resources
    assert found == {
        "LUT": 3 * (2 * (1 + 1 + 4) + 5), "FF": 2, "CARRY": 9, "DSP48E2": 3, "BRAM36": 0.5, "URAM288": 6,
    }  # fmt: skip


def test_unknown_cell_is_an_error():
    with pytest.raises(EdgeMoEError, match=r"mapped 'top' to 2 cells 'MYSTERY'"):
        _ = synth.Mapped("top", {"MYSTERY": 2}, 0.0).resources


def test_synthesis_says_why_not(monkeypatch, tmp_path):
    monkeypatch.setattr(synth, "OUT", ROOT / "build" / "test_synth")
    (ROOT / "build" / "test_synth").mkdir(parents=True, exist_ok=True)
    package = generate_package("zcu104", ROOT / "build" / "test_synth")[0]
    with pytest.raises(EdgeMoEError, match=r"yosys did not map 'no_such_module': .*no_such_module"):
        synth.synthesise(Operator("no_such_module"), package)
    shutil.rmtree(ROOT / "build" / "test_synth")


def test_compute_unit_takes_one_multiplier_for_two_products():
    """32 x 32 weights and two tokens on 1,024 DSP48E2, and no other multiplier."""
    out = Path("build") / "rtl" / "multipliers"
    package = generate_package("zcu104", ROOT / out)[0]
    script = (
        f"{yosys.read('compute_unit', package)}; "
        "synth_xilinx -family xcup -noiopad -top compute_unit -run begin:map_memory; "
        f"tee -q -o {out / 'stat.json'} stat -json"
    )
    yosys.run(script).check_returncode()
    modules = json.loads((ROOT / out / "stat.json").read_text())["modules"]
    cells = synth.count_cells(modules, "compute_unit")
    assert cells["DSP48E2"] == 1024
    assert not {"$mul", "$__mul", "$macc"} & set(cells)


@pytest.mark.parametrize(
    ("name", "memory", "bits"),
    [("fifo", "URAM288", 43 * 288 * 1024), ("accumulators", "BRAM36", 57 * 36 * 1024)],
)
def test_memories_are_no_flip_flops(name, memory, bits, monkeypatch):
    out = ROOT / "build" / "rtl" / "memories"
    monkeypatch.setattr(synth, "OUT", out)
    package = generate_package("zcu104", out)[0]
    found = synth.synthesise(Operator(name), package).resources
    size = {"URAM288": 288 * 1024, "BRAM36": 36 * 1024}
    assert sum(size[kind] * found[kind] for kind in size) == size[memory] * found[memory] == bits
    assert found["FF"] < bits / 100


def test_every_proof_has_a_negative_twin():
    found = prove.proofs([])
    assert {path.stem for path, _ in found} == {path.stem for path in prove.FORMAL.glob("*.sby")}
    for path in {path for path, _ in found}:
        verdicts = {task.startswith("fails") for task in prove.tasks(path)}
        assert verdicts == {True, False}, f"{path.name} needs a proof and a task that is refuted"


def test_unknown_proof(capsys):
    assert prove.main(["fifos"]) == 2
    assert "no proof 'fifos'" in capsys.readouterr().err


# ------------------------------------------------------------------ a whole run


def test_wrong_kernel_in_verilog_is_found(tmp_path):
    text = (STAND_INS / "residual_add.v").read_text()
    wrong = text.replace("17'sd32767) ? 16'h7fff", "17'sd32767) ? 16'h7ffe")
    assert wrong != text
    (tmp_path / "residual_add.v").write_text(wrong)
    command = [sys.executable, "-m", "sim.run", "residual_add", "--hls", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    log = (ROOT / "build" / "sim" / "residual_add-hls" / "sim.log").read_text()
    assert "differ from the HLS kernel" in log
