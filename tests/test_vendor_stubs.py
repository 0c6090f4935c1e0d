# SPDX-License-Identifier: Apache-2.0
"""The stand-ins of the vendor's programs refuse what those would refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vendor_tools import STUBS, tcl_program


def run_script(tmp_path: Path, stub: str, script: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.tcl"
    path.write_text(script)
    words = ["-f", str(path)] if stub == "hls.tcl" else ["-mode", "batch", "-source", str(path)]
    environment = {
        "PATH": "/usr/bin:/bin",
        "VENDOR_LOG": str(tmp_path / "log"),
        "VENDOR_RESULTS": str(tmp_path),
    }
    return subprocess.run(
        [*tcl_program(), str(STUBS / stub), *words], env=environment, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


CELL = "create_bd_design d; create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e ps\n"


@pytest.mark.parametrize(
    ("stub", "script", "message"),
    [
        ("hls.tcl", "csynth_desing", "invalid command name"),
        ("hls.tcl", "open_project -rest p", "open_project has no option -rest"),
        ("hls.tcl", "open_project p q", "takes 1 to 1 objects"),
        ("hls.tcl", "open_project -reset p; add_files none.cpp -cflags {}", "there is no file none.cpp"),
        ("hls.tcl", "set_part xczu9eg-ffvb1156-2-e", "there is no part"),
        ("hls.tcl", "csynth_design", "no solution"),
        ("hls.tcl", "open_project p", "there is no project p"),
        ("vivado.tcl", "create_bd_cell -type ip -vlnv xilinx.com:ip:smartconect s", "there is no IP"),
        ("vivado.tcl", CELL + "get_bd_pins ps/pl_clk9", "there is no pin ps/pl_clk9"),
        ("vivado.tcl", CELL + "set_property -dict {CONFIG.PSU__USE__HP0 1} ps",
         "has no property CONFIG.PSU__USE__HP0"),
        ("vivado.tcl", CELL + "set_property -dict {CONFIG.PSU__USE__S_AXI_GP2 1} ps; validate_bd_design",
         "ps/saxihp0_fpd_aclk is not connected"),
        ("vivado.tcl", "launch_runs impl_1 -to_step write_bitstream -jobs 1", "was not saved"),
    ],
)  # fmt: skip
def test_stubs_refuse_what_the_tools_would(tmp_path: Path, stub: str, script: str, message: str) -> None:
    run = run_script(tmp_path, stub, script)
    assert run.returncode != 0
    assert message in run.stderr + run.stdout


def test_stubs_run_under_tkinter_too(tmp_path: Path) -> None:
    pytest.importorskip("tkinter")
    environment = {
        "PATH": "/usr/bin:/bin",
        "VENDOR_LOG": str(tmp_path / "log"),
        "VENDOR_RESULTS": str(tmp_path),
    }
    (tmp_path / "script.tcl").write_text("open_project -reset p\nset_top top\nexit 3\n")
    words = [str(STUBS / "tclsh.py"), str(STUBS / "hls.tcl"), "-f", str(tmp_path / "script.tcl")]
    run = subprocess.run([sys.executable, *words], env=environment, cwd=tmp_path, timeout=60, check=False)
    assert run.returncode == 3
    recorded = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert recorded[0] == {"command": "open_project", "options": {"-reset": "1"}, "objects": ["p"]}
    assert len(recorded) == 2
