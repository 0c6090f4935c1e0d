# SPDX-License-Identifier: Apache-2.0
"""The vendor's tool flow without the vendor: make targets and Tcl run against stubs that record and check.

The stubs know the commands, options and the part that the scripts may use, and refuse all others; files must
exist. What only the tools can say (that they accept the C++, and timing) is not tested here.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_moe.accelerator import load_accelerator, load_board
from edge_moe.codegen import generate
from edge_moe.testing.checkout import ROOT
from edge_moe.testing.vendor_tools import (
    Workplace,
    one_sentence,
    stub_headers,
    synthesis_command,
    workplace,
    write_verilog,
)
from edge_moe.vendor import interface as shown
from edge_moe.vendor import tcl as vendor
from edge_moe.vendor.interface import TOP, Interface, accelerator_interface
from edge_moe_host.contract import registers
from edge_moe_host.errors import EdgeMoEError

PART = "xczu7ev-ffvc1156-2-e"
HLS_STEPS = ("csynth", "rtl", "cosim", "export", "report")


@pytest.fixture(scope="module")
def interface() -> Interface:
    return accelerator_interface(load_accelerator("zcu104"), load_board("zcu104"))


@pytest.fixture(scope="module")
def headers(interface: Interface, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated headers of the accelerator."""
    folder = tmp_path_factory.mktemp("generated")
    generate("zcu104", folder)
    return folder


def variables(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^    variable (\w+) \{(.*)\}$", path.read_text(), re.MULTILINE))


# ------------------------------------------------------------------ generated files


def test_generated_files_name_what_exists(interface: Interface, headers: Path, tmp_path: Path) -> None:
    paths = vendor.generate(vendor.design("zcu104", TOP, ROOT / "hls", headers), tmp_path)
    assert sorted(path.name for path in paths) == ["hls_config.cfg", "interface.json", "vendor.tcl"]
    values = variables(tmp_path / "vendor.tcl")
    config = load_accelerator("zcu104")
    assert values["part"] == PART
    assert values["clock_mhz"] == str(config.clock_mhz) == "300"
    assert float(values["clock_ns"]) == 3.333
    assert values["config_hash"] == config.hash()
    assert values["top"] == TOP
    masters = re.findall(r"\{m_axi_gmem_(\w+) (\d)\}", values["masters"])
    assert masters == [("program", "3"), ("tables", "3"), ("weights0", "0"), ("weights1", "1"),
                       ("weights2", "2"), ("image", "3"), ("output", "3")]  # fmt: skip
    for path in (values["source"], values["test_bench"]):
        assert Path(path).is_file(), path
    folders = re.findall(r"-I(\S+)", values["flags"])
    assert len(folders) == 2
    assert all(Path(folder).is_dir() for folder in folders)
    description = json.loads((tmp_path / "interface.json").read_text())
    assert [register["name"] for register in description["registers"]] == list(registers.REGISTERS)
    assert description["config_hash"] == config.hash()
    assert len(description["masters"]) == 7


def test_every_operator_can_be_chosen(headers: Path, tmp_path: Path) -> None:
    known = vendor.tops(ROOT / "hls")
    assert {TOP, "softmax", "gelu", "layernorm", "attention", "linear", "experts", "conv3x3"} <= known.keys()
    for name, path in known.items():
        made = vendor.design("zcu104", name, ROOT / "hls", headers)
        assert (made.interface.top, made.source) == (name, path)
    with pytest.raises(EdgeMoEError, match=r"there is no operator 'softmix' .* known are attention, "):
        vendor.design("zcu104", "softmix", ROOT / "hls", headers)
    words = ["--top", "gelu", "--hls", str(ROOT / "hls"), "--generated", str(headers), "--out", str(tmp_path)]
    assert vendor.main(words) == 0
    assert "tb.file" not in (tmp_path / "hls_config.cfg").read_text()
    assert vendor.main(["--accelerator", "none", *words]) == 2


@pytest.mark.parametrize("sign", [" ", "$", "[", "{", ";", ",", '"'])
def test_paths_that_the_tools_would_split_are_refused(headers: Path, tmp_path: Path, sign: str) -> None:
    folder = tmp_path / f"a{sign}b"
    folder.mkdir()
    with pytest.raises(EdgeMoEError, match=r"move the project"):
        vendor.design("zcu104", TOP, ROOT / "hls", folder)
    with pytest.raises(EdgeMoEError, match=r"move the project"):
        vendor.design("zcu104", TOP, ROOT / "hls", headers, recording=folder)


# ------------------------------------------------------------------ C++ as the tool reads it


def pragmas(text: str) -> list[dict[str, str]]:
    """Interface pragmas as dictionaries."""
    found = re.findall(r"^#pragma HLS interface (.*)$", text, re.MULTILINE)
    return [dict(re.findall(r"(\w+) = (\S+)", line)) for line in found]


def test_the_top_has_the_interface_that_is_described(interface: Interface, headers: Path) -> None:
    source = vendor.tops(ROOT / "hls")[TOP]
    run = subprocess.run(
        synthesis_command(source, headers, "-E"), capture_output=True, text=True, timeout=60, check=True
    )
    found = pragmas(run.stdout)
    masters = {p["port"]: p["bundle"] for p in found if p["mode"] == "m_axi"}
    assert masters == {master.argument: master.bundle for master in interface.masters}
    assert all(p["offset"] == "slave" for p in found if p["mode"] == "m_axi")
    arguments = [n for n in registers.REGISTERS if n not in shown_control() and not n.endswith("_ctrl")]
    # base addresses too are assigned by name: left to the tool they would get a port of their own
    lite = [p["port"] for p in found if p["mode"] == "s_axilite"]
    assert sorted(lite) == sorted([*arguments, "return"])
    assert {p["bundle"] for p in found if p["mode"] == "s_axilite"} == {shown.CONTROL}
    assert [p["port"] for p in found if p["mode"] == "ap_ctrl_hs"] == ["return"]
    # offsets follow the order of the arguments
    signature = re.search(rf"\b{TOP}\(([^)]*)\)\s*\{{", run.stdout)
    assert signature
    order = [re.findall(r"\w+", argument)[-1] for argument in signature[1].split(",")]
    assert order == arguments


def shown_control() -> set[str]:
    return {register.name for register in registers.CONTROL}


@pytest.mark.parametrize(
    ("accelerator", "sources"), [("zcu104", "src"), ("zcu104_large", "src"), ("zcu104", "ops")]
)
def test_the_text_that_is_synthesised_compiles(tmp_path: Path, accelerator: str, sources: str) -> None:
    """Under __SYNTHESIS__, types, streams and ports differ from those in C simulation."""
    headers = tmp_path / "generated"
    generate(accelerator, headers)
    paths = sorted({path for path in vendor.tops(ROOT / "hls").values() if path.parent.name == sources})
    assert paths
    unit = tmp_path / "unit.cpp"
    unit.write_text("".join(f'#include "{path}"\n' for path in paths))
    run = subprocess.run(
        synthesis_command(unit, headers, "-fsyntax-only", accelerator=accelerator),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[:4000]


# ------------------------------------------------------------------ make targets


@pytest.mark.parametrize("target", ["csynth", "rtl", "cosim", "export", "report"])
def test_without_the_tool_one_sentence(tmp_path: Path, target: str) -> None:
    place = Workplace(tmp_path)
    text = one_sentence(place.make("hls", target))
    assert text.startswith(
        "Vitis HLS was not found on PATH (vitis_hls, or v++ with vitis-run): install AMD Vitis"
    )
    assert not (place.hls / "vendor").exists()


def test_a_tool_that_is_none_is_refused(tmp_path: Path) -> None:
    place = Workplace(tmp_path, "vitis_hls")
    assert one_sentence(place.make("hls", "csynth", "HLS_TOOL=vivado_hls")).endswith(
        "neither vitis_hls nor v++"
    )
    assert "was not found" in one_sentence(place.make("hls", "csynth", "HLS_TOOL=v++"))
    assert not (place.hls / "vendor").exists()


def test_a_wrong_operator_is_refused_before_anything_is_synthesised(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    run = place.make("hls", "csynth", "OP=softmix")
    assert run.stderr.startswith("error: there is no operator 'softmix'")
    assert "was not found" not in run.stdout
    assert one_sentence(place.make("hls", "cosim", "OP=softmax")).startswith("operators have no test bench")
    assert not (place.hls / "vendor").exists()


def run_all(place: Workplace, *words: str) -> None:
    for step in HLS_STEPS:
        run = place.make("hls", step, *words)
        assert run.returncode == 0, step + run.stdout + run.stderr


def check_results(place: Workplace, interface: Interface) -> None:
    """Every step left its files."""
    out = place.hls / "vendor" / TOP
    names = {f"{TOP}.v", f"{TOP}_control_s_axi.v", f"{TOP}_fifo.v", f"{TOP}_table.dat"}
    assert {path.name for path in (out / "rtl").iterdir()} == names
    assert (out / "csynth" / "csynth.xml").is_file()
    assert (out / "cosim" / "cosim.rpt").is_file()
    assert (out / "ip" / "component.xml").is_file()
    report = json.loads((out / "report" / "report.json").read_text())
    assert report["synthesis"]["top"] == TOP
    assert not list(out.glob(".*"))


def test_vitis_hls(interface: Interface, tmp_path: Path) -> None:
    place = workplace(tmp_path, interface, "vitis_hls")
    run_all(place)
    check_results(place, interface)
    log = place.commands()
    names = [entry["command"] for entry in log]
    assert names == [
        "open_project", "set_top", "add_files", "open_solution", "set_part", "create_clock",
        "config_interface", "csynth_design",
        "open_project", "set_top", "open_solution", "add_files", "cosim_design",
        "open_project", "set_top", "open_solution", "export_design",
    ]  # fmt: skip
    by_name: dict[str, list[Any]] = {}
    for entry in log:
        by_name.setdefault(str(entry["command"]), []).append(entry)
    assert [entry["objects"] for entry in by_name["set_top"]] == [[TOP]] * 3
    assert by_name["set_part"][0]["objects"] == [PART]
    assert float(by_name["create_clock"][0]["options"]["-period"]) == interface.clock_ns
    assert by_name["open_solution"][0]["options"]["-flow_target"] == "vivado"
    sources, bench = by_name["add_files"]
    assert sources["objects"] == [str(vendor.tops(ROOT / "hls")[TOP])]
    assert bench["objects"] == [str(ROOT / "hls" / "tb" / f"{TOP}_tb.cpp")]
    assert "-tb" in bench["options"]
    assert bench["options"]["-cflags"] == sources["options"]["-cflags"]
    exported = by_name["export_design"][0]["options"]
    assert ":".join(exported[f"-{p}"] for p in ("vendor", "library", "ipname", "version")) == interface.vlnv
    # no step runs twice, not even if a file's time changes
    (ROOT / "hls" / "tcl" / "csynth.tcl").touch()
    for step in ("csynth", "export", "report"):
        assert place.make("hls", step).returncode == 0
    assert place.commands() == []


def test_unified_command_line(interface: Interface, tmp_path: Path) -> None:
    place = workplace(tmp_path, interface, "v++", "vitis-run")
    run_all(place)
    check_results(place, interface)
    log = place.commands()
    assert [entry["command"] for entry in log] == ["csynth", "cosim", "package"]
    config: Any = log[0]["options"]
    assert config["part"] == [PART]
    assert config["clock"] == ["3.333ns"]
    assert config["syn.top"] == [TOP]
    assert config["syn.file"] == [str(vendor.tops(ROOT / "hls")[TOP])]
    assert config["package.output.format"] == ["ip_catalog"]
    assert "cosim.argv" not in config


def test_both_command_lines_get_the_same_design(interface: Interface, tmp_path: Path) -> None:
    place = workplace(tmp_path, interface, "vitis_hls", "v++", "vitis-run")
    assert place.make("hls", "csynth").returncode == 0
    tcl = {str(entry["command"]): entry for entry in place.commands()}
    assert place.make("hls", "csynth", "HLS_TOOL=v++", "-B").returncode == 0
    config: Any = place.commands("csynth")[0]["options"]
    options: Any = tcl["add_files"]["options"]
    assert config["syn.cflags"] == [options["-cflags"]]
    assert config["syn.file"] == tcl["add_files"]["objects"]
    assert config["syn.top"] == tcl["set_top"]["objects"]
    period: Any = tcl["create_clock"]["options"]
    assert config["clock"] == [period["-period"] + "ns"]


def test_operators(interface: Interface, tmp_path: Path) -> None:
    place = workplace(tmp_path, interface, "vitis_hls", operator="softmax")
    for step in ("csynth", "rtl", "export"):
        run = place.make("hls", step, "OP=softmax")
        assert run.returncode == 0, run.stdout + run.stderr
    assert (place.hls / "vendor" / "softmax" / "rtl" / "softmax.v").is_file()
    log = place.commands("set_top", "add_files")
    assert log[0]["objects"] == ["softmax"]
    assert log[1]["objects"] == [str(ROOT / "hls" / "ops" / "softmax.cpp")]
    run = place.make("hls", "cosim", "OP=softmax")
    assert "operators have no test bench" in run.stdout
    assert run.returncode != 0
    run = place.make("hls", "csynth", "OP=softmix")
    assert "there is no operator 'softmix'" in run.stderr
    assert not (place.hls / "vendor" / "softmix" / "csynth").exists()


def test_what_fails_leaves_the_last_results(interface: Interface, tmp_path: Path) -> None:
    place = workplace(tmp_path, interface, "vitis_hls")
    out = place.hls / "vendor" / TOP
    run = place.make("hls", "csynth", VENDOR_FAILS="1")
    assert run.returncode != 0
    assert "vitis_hls: synthesis failed" in run.stderr
    assert "left no report" not in run.stdout  # the tool itself has said that it failed
    assert not (out / "csynth").exists()
    assert place.make("hls", "csynth").returncode == 0
    before = (out / "csynth" / "csynth.xml").read_bytes()
    run = place.make("hls", "csynth", "-B", VENDOR_FAILS="1")
    assert run.returncode != 0
    assert (out / "csynth" / "csynth.xml").read_bytes() == before
    assert (out / "csynth" / "verilog" / f"{TOP}.v").is_file()
    assert place.make("hls", "csynth").returncode == 0
    (place.bin / "vitis_hls").unlink()
    for step in ("export", "cosim"):
        assert "Vitis HLS was not found" in one_sentence(place.make("hls", step))
    assert place.make("hls", "report").returncode == 0


def test_verilog_from_elsewhere_is_checked_without_the_tool(interface: Interface, tmp_path: Path) -> None:
    place = Workplace(tmp_path / "place")
    write_verilog(tmp_path / "rtl", interface)
    assert place.make("hls", "rtl", f"VERILOG={tmp_path / 'rtl'}").returncode == 0
    kept = place.hls / "vendor" / TOP / "rtl" / f"{TOP}.v"
    assert kept.read_text() == (tmp_path / "rtl" / f"{TOP}.v").read_text()
    (tmp_path / "rtl" / f"{TOP}_fifo.v").unlink()
    run = place.make("hls", "rtl", f"VERILOG={tmp_path / 'rtl'}")
    assert "that no file defines" in run.stderr
    assert (kept.parent / f"{TOP}_fifo.v").is_file()


# ------------------------------------------------------------------ test bench


def test_the_test_bench_passes_and_can_fail(headers: Path, tmp_path: Path) -> None:
    """The first phase of cosimulation by g++, with a stand-in for the tool's port: the design equals what was
    recorded; a wrong byte and a damaged program are noticed."""
    unit, bench, recording = tmp_path / "unit.cpp", tmp_path / "bench", tmp_path / "recording"
    made = vendor.design("zcu104", TOP, ROOT / "hls", headers)
    unit.write_text(f'#include "{made.source}"\n#include "{made.test_bench}"\n')
    flags = [*made.flags.split(), "-O1", *stub_headers()]
    subprocess.run(["g++", *flags, str(unit), "-o", str(bench)], check=True, timeout=240)
    recorder = [sys.executable, str(ROOT / "hls" / "tb" / "record.py"), str(recording)]
    subprocess.run(recorder, check=True, timeout=60)

    def run() -> subprocess.CompletedProcess[str]:
        words = [str(bench), str(recording)]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    passed, expected, program = run(), recording / "expected.bin", recording / "program.bin"
    assert passed.stdout.startswith("2048 bytes compared, 0 differ; status 1, error 0"), passed.stderr
    assert expected.stat().st_size == 2048
    assert passed.returncode == 0
    data = expected.read_bytes()
    expected.write_bytes(data[:16] + bytes([data[16] ^ 1]) + data[17:])
    failed = run()
    assert "1 differ" in failed.stdout
    assert failed.returncode == 1
    expected.write_bytes(data)
    program.write_bytes(program.read_bytes()[:-64])
    failed = run()
    assert "status 2, error 1" in failed.stdout
    assert failed.returncode == 1
    expected.unlink()
    assert "cannot read" in run().stderr
