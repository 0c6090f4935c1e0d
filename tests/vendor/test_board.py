# SPDX-License-Identifier: Apache-2.0
"""The bitstream's make targets and block design: what Vivado is told, recorded by a stand-in."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_moe.accelerator import load_accelerator, load_board
from edge_moe.testing.checkout import ROOT
from edge_moe.testing.vendor_tools import Workplace, one_sentence, workplace
from edge_moe.vendor import interface as shown
from edge_moe.vendor.interface import Interface, accelerator_interface
from edge_moe_host.contract import registers

PART = "xczu7ev-ffvc1156-2-e"


@pytest.fixture(scope="module")
def interface() -> Interface:
    return accelerator_interface(load_accelerator("zcu104"), load_board("zcu104"))


@pytest.mark.parametrize("target", ["bitstream", "report"])
def test_without_vivado_one_sentence(tmp_path: Path, target: str) -> None:
    place = Workplace(tmp_path, "vitis_hls")
    text = one_sentence(place.make("board/zcu104", target))
    assert text.startswith("Vivado was not found ('vivado' is not on PATH): install AMD Vivado")
    assert not place.board.exists()
    assert not place.hls.exists()


@pytest.mark.parametrize("name", ["my tree", "a(b)", "a&b", "a$b", "it's"])
def test_a_path_with_a_space_is_refused(name: str, tmp_path: Path) -> None:
    """Half of it would name a folder outside of the project."""
    folder = tmp_path / name / "board" / "zcu104"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "board" / "zcu104" / "Makefile", folder)
    command = ["make", "-C", str(folder), "--no-print-directory", f"PYTHON={sys.executable}", "VIVADO=true"]
    run = subprocess.run([*command, "bitstream"], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.strip() == (
        f"the path '{folder}' has a space or another sign that make and Vivado interpret: "
        "move the project to a folder without it"
    )
    assert run.returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture(scope="module")
def bitstream(interface: Interface, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, list[Any]]:
    """A built bitstream, and what Vivado was told."""
    place = workplace(tmp_path_factory.mktemp("board"), interface, "vitis_hls", "vivado")
    run = place.make("board/zcu104", "bitstream")
    assert run.returncode == 0, run.stdout + run.stderr
    log: list[Any] = place.commands()
    start = [entry["command"] for entry in log].index("get_board_parts")
    return place, log[start:]


def named(log: list[Any], command: str) -> list[Any]:
    return [entry for entry in log if entry["command"] == command]


def test_bitstream_is_named_with_the_hash(
    bitstream: tuple[Workplace, list[Any]], interface: Interface
) -> None:
    place, _ = bitstream
    name = f"edge_moe_{interface.config_hash}"
    assert {path.name for path in place.board.glob("edge_moe_*")} == {f"{name}.bit", f"{name}.hwh"}
    assert {path.name for path in (place.board / "reports").iterdir()} == {
        "utilization.rpt", "hierarchy.rpt", "timing.rpt", "power.rpt", "run.txt",
    }  # fmt: skip
    assert "wns_ns 0.012" in (place.board / "reports" / "run.txt").read_text()


@pytest.mark.parametrize("name", ["zcu106", "zcu102"])
def test_another_board(name: str, tmp_path: Path) -> None:
    """Part, board files and interrupt are the board's, and its reports go beside its bitstream."""
    board = load_board(name)
    own = accelerator_interface(load_accelerator(name), board)
    place = workplace(tmp_path, own, "vitis_hls", "vivado")
    run = place.make("board/zcu104", "bitstream", f"ACCELERATOR={name}", VENDOR_BOARD=name)
    assert run.returncode == 0, run.stdout + run.stderr
    log = place.commands()
    assert {entry["options"]["-part"] for entry in named(log, "create_project")} == {board.part}
    parts = [e["objects"][1] for e in named(log, "set_property") if e["objects"][0] == "board_part"]
    assert parts == [f"xilinx.com:{name}:part0:1.1"]
    nets = {tuple(entry["objects"]) for entry in named(log, "connect_bd_net")}
    assert ("accelerator/interrupt", f"ps/{board.interrupt}") in nets
    assert (place.board / f"edge_moe_{own.config_hash}.bit").is_file()
    flags = next(e for e in log if e["command"] == "add_files" and "-cflags" in e["options"])["options"][
        "-cflags"
    ]
    assert f"-DEDGE_MOE_SCRATCH_MEMORY={'uram' if board.ultraram else 'bram'}" in flags


def test_part_board_and_clock(bitstream: tuple[Workplace, list[Any]]) -> None:
    _, log = bitstream
    assert named(log, "create_project")[0]["options"]["-part"] == PART
    board = [e["objects"][1] for e in named(log, "set_property") if e["objects"][0] == "board_part"]
    assert board == ["xilinx.com:zcu104:part0:1.1"]
    properties: dict[str, str] = {}
    for entry in named(log, "set_property"):
        if "-dict" in entry["options"]:
            words = entry["options"]["-dict"].split()
            properties.update(
                {f"{entry['objects'][0]}.{k}": v for k, v in zip(words[::2], words[1::2], strict=True)}
            )
    assert properties["clock.CONFIG.CLKOUT1_REQUESTED_OUT_FREQ"] == str(load_accelerator("zcu104").clock_mhz)
    for port in range(2, 6):
        assert properties[f"ps.CONFIG.PSU__USE__S_AXI_GP{port}"] == "1"
        assert properties[f"ps.CONFIG.PSU__SAXIGP{port}__DATA_WIDTH"] == "128"
    assert properties["memory0.CONFIG.NUM_SI"] == properties["memory2.CONFIG.NUM_SI"] == "1"
    assert properties["memory3.CONFIG.NUM_SI"] == "4"


def test_every_interface_of_the_accelerator_is_connected(
    bitstream: tuple[Workplace, list[Any]], interface: Interface
) -> None:
    _, log = bitstream
    pairs = [tuple(entry["objects"]) for entry in named(log, "connect_bd_intf_net")]
    path = dict(pairs)
    assert len(path) == len(pairs) == 1 + len(interface.masters) + 5
    for master in interface.masters:
        switch = path[f"accelerator/m_axi_{master.bundle}"].split("/")[0]
        assert path[f"{switch}/M00_AXI"] == f"ps/S_AXI_HP{master.hp_port}_FPD"
    assert path["ps/M_AXI_HPM0_FPD"] == "control/S00_AXI"
    assert path["control/M00_AXI"] == f"accelerator/s_axi_{shown.CONTROL}"
    # the weight ports share nothing with each other
    assert len({path[f"accelerator/m_axi_gmem_weights{i}"].split("/")[0] for i in range(3)}) == 3
    nets = {tuple(entry["objects"]) for entry in named(log, "connect_bd_net")}
    created = [entry["objects"][0] for entry in named(log, "create_bd_cell")]
    assert {pin.split("/")[0] for pair in (*nets, *pairs) for pin in pair} == set(created)
    sinks = [sink for _, sink in (*nets, *pairs)]
    assert len(sinks) == len(set(sinks))
    clocked = {sink for source, sink in nets if source == "clock/clk_out1"}
    assert clocked == {
        "accelerator/ap_clk",
        "reset/slowest_sync_clk",
        "control/aclk",
        "ps/maxihpm0_fpd_aclk",
    } | {name for n in range(4) for name in (f"memory{n}/aclk", f"ps/saxihp{n}_fpd_aclk")}
    reset = {sink for source, sink in nets if source == "reset/peripheral_aresetn"}
    assert reset == {"accelerator/ap_rst_n", "control/aresetn", *(f"memory{n}/aresetn" for n in range(4))}
    assert ("accelerator/interrupt", "ps/pl_ps_irq0") in nets
    assert ("clock/locked", "reset/dcm_locked") in nets


def test_masters_see_the_memory_and_nothing_else(
    bitstream: tuple[Workplace, list[Any]], interface: Interface
) -> None:
    _, log = bitstream
    assigned = named(log, "assign_bd_address")
    control = [entry for entry in assigned if entry["options"]["-target_address_space"] == "ps/Data"]
    assert [entry["objects"] for entry in control] == [["accelerator/s_axi_control/Reg"]]
    assert int(control[0]["options"]["-offset"], 16) == 0xA0000000
    assert int(control[0]["options"]["-range"], 16) >= registers.SIZE
    seen = {entry["options"]["-target_address_space"]: entry["objects"] for entry in assigned}
    for master in interface.masters:
        segment = f"ps/S_AXI_HP{master.hp_port}_FPD_DDR_LOW"
        assert seen[f"accelerator/Data_m_axi_{master.bundle}"] == [segment]
    excluded = named(log, "exclude_bd_addr_seg")
    assert len(excluded) == 2 * len(interface.masters)
    assert not any("DDR" in entry["objects"][0] for entry in excluded)
    assert seen.keys() == {"ps/Data", *(f"accelerator/Data_m_axi_{m.bundle}" for m in interface.masters)}
    order = [entry["command"] for entry in log]
    assert order.index("validate_bd_design") < order.index("save_bd_design") < order.index("launch_runs")


def test_board_report(bitstream: tuple[Workplace, list[Any]]) -> None:
    place, _ = bitstream
    estimate = place.folder / "estimate.json"
    estimate.write_text('{"DSP": 1080}')
    run = place.make("board/zcu104", "report", f"ESTIMATE={estimate}")
    assert run.returncode == 0, run.stdout + run.stderr
    data = json.loads((place.board / "report" / "report.json").read_text())
    assert data["resources"]["DSP"] == {
        "available": 1728, "estimated": 1080, "synthesised": 1100, "implemented": 1071,
    }  # fmt: skip
    assert data["implementation"]["wns_ns"] == 0.012
    assert place.commands() == []


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"VENDOR_SLACK": "-0.2"}, "timing is not met at 300 MHz (STATS.WNS = -0.2 ns)"),
        ({"VENDOR_NO_BOARD": "1"}, "Vivado has no files of the ZCU104"),
        ({"VENDOR_NO_IP": "1"}, "the packaged IP holds no "),
        ({"VENDOR_PROGRESS": "40%"}, "synth_1 ended with"),
    ],
)
def test_no_bitstream_where_vivado_does_not_succeed(
    bitstream: tuple[Workplace, list[Any]], tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    place, _ = bitstream
    run = place.make("board/zcu104", "bitstream", f"OUT={tmp_path / 'out'}", **environment)
    assert run.returncode != 0
    assert message in run.stderr
    assert not list((tmp_path / "out").glob("*.bit"))
    assert not (tmp_path / "out" / "reports").exists()
    place.commands()
