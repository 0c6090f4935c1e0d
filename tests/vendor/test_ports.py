# SPDX-License-Identifier: Apache-2.0
"""The check of generated Verilog: it accepts ports as described, and names those that differ."""

import dataclasses
from pathlib import Path

import pytest

from edge_moe.accelerator import load_accelerator, load_board
from edge_moe.testing.vendor_tools import write_operator, write_verilog
from edge_moe.vendor import ports
from edge_moe.vendor.interface import Interface, accelerator_interface, top_ports
from edge_moe.vendor.ports import check_operator, check_rtl, parse_module
from edge_moe_host.contract import registers
from edge_moe_host.errors import EdgeMoEError


@pytest.fixture(scope="module")
def interface() -> Interface:
    return accelerator_interface(load_accelerator("zcu104"), load_board("zcu104"))


@pytest.fixture
def rtl(interface: Interface, tmp_path: Path) -> Path:
    write_verilog(tmp_path, interface)
    return tmp_path


def refused(folder: Path, interface: Interface) -> str:
    """The sentence with which the folder is refused."""
    with pytest.raises(EdgeMoEError) as caught:
        check_rtl(folder, interface)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_verilog_as_described_passes(rtl: Path, interface: Interface) -> None:
    checked = check_rtl(rtl, interface)
    # clock, reset, interrupt; 17 signals of AXI4-Lite; of each master 45 less 12 optional ones
    assert checked.ports == 3 + 17 + 7 * 33
    assert checked.registers == len(registers.REGISTERS) == 28
    assert checked.modules == 3
    assert checked.unused == ()


def test_ports_are_parsed_with_their_widths(rtl: Path, interface: Interface) -> None:
    module = parse_module(rtl / f"{interface.top}.v", interface.top)
    expected = {name: p for name, p in top_ports(interface).items() if not name.startswith("ap_local")}
    assert list(module.ports) == list(expected)
    for name, port in expected.items():
        found = module.ports[name]
        assert (found.direction, found.bits) == (port.direction, port.bits or found.bits), name
    assert module.ports["m_axi_gmem_weights0_RDATA"].bits == 128
    assert module.ports["m_axi_gmem_output_WSTRB"].bits == 16
    assert module.ports["s_axi_control_AWADDR"].bits == 9
    adapter = parse_module(rtl / f"{interface.top}_control_s_axi.v", f"{interface.top}_control_s_axi")
    assert adapter.parameters["ADDR_PROGRAM_DATA_1"] == 0x14
    assert adapter.parameters["C_S_AXI_DATA_WIDTH"] == 32
    assert adapter.ports["WSTRB"].bits == 4
    assert adapter.ports["output_r"].direction == "output"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("GMEM_IMAGE_DATA_WIDTH = 128", "GMEM_IMAGE_DATA_WIDTH = 64",
         "port 'm_axi_gmem_image_WDATA' has 64 bits and should have 128, and 1 more"),
        ("(128 / 8)", "(128 / 16)",
         "port 'm_axi_gmem_program_WSTRB' has 8 bits and should have 16, and 6 more"),
        ("output   interrupt;", "input   interrupt;", "port 'interrupt' is an input and should be an output"),
        ("s_axi_control_", "s_axi_control_r_", "port 's_axi_control_r_AWVALID' is not in the interface"),
        ("gmem_tables", "gmem1", "port 'm_axi_gmem1_AWVALID' is not in the interface"),
        ("\n);\n\nparameter", ",\n        ap_start\n);\ninput ap_start;\nparameter",
         "port 'ap_start' is not in the interface"),
        ("        m_axi_gmem_output_WVALID,\n", "", "port 'm_axi_gmem_output_WVALID' is missing"),
        ("output   interrupt;", "", "does not say whether 'interrupt' is an input or an output"),
        ("[1:0] m_axi_gmem_image_RRESP", "[UNKNOWN:0] m_axi_gmem_image_RRESP",
         "gives 'm_axi_gmem_image_RRESP' a width that is not a number"),
        ("module edge_moe_accelerator (", "module another (", "defines no module 'edge_moe_accelerator'"),
        ("assign interrupt =", "assign interrupt = =", "is not Verilog that pyverilog can read"),
        ("edge_moe_accelerator_fifo #(", "edge_moe_accelerator_mul #(",
         "uses a module 'edge_moe_accelerator_mul' (fifo_U) that no file defines"),
    ],
)  # fmt: skip
def test_a_wrong_top_is_refused(
    rtl: Path, interface: Interface, before: str, after: str, message: str
) -> None:
    change(rtl / f"{interface.top}.v", before, after)
    assert message in refused(rtl, interface)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("ADDR_CYCLES_DATA_0 = 9'h0e4", "ADDR_CYCLES_DATA_0 = 9'h0e0",
         "ADDR_CYCLES_DATA_0 is 0xe0 and should be 0xe4"),
        ("ADDR_CONFIG_ID_DATA_1 = 9'h090,\n    ", "", "ADDR_CONFIG_ID_DATA_1 is missing and should be 0x90"),
        ("ADDR_STATUS_CTRL = 9'h0b8", "ADDR_STATUS_CTRL = 9'h0bc",
         "ADDR_STATUS_CTRL is 0xbc and should be 0xb8"),
        ("ADDR_TABLES_CTRL = 9'h024", "ADDR_TABLES_CTRL = 9'h028",
         "ADDR_TABLES_CTRL is 0x28 and should be 0x24"),
        ("ADDR_ISR = 9'h00c", "ADDR_ISR = 9'h010", "ADDR_ISR is 0x10 and should be 0x0c"),
        ("WRIDLE = 2'd0", "ADDR_MAILBOX_DATA_0 = 9'h0f4",
         "ADDR_MAILBOX_DATA_0 is 0xf4 and should be missing"),
        ("output wire [31:0] weight_beats", "output wire [15:0] weight_beats",
         "argument 'weight_beats' is output of 16 bits and should be output of 32 bits"),
        ("input  wire [31:0] version", "output wire [31:0] version",
         "argument 'version' is output of 32 bits and should be input of 32 bits"),
        ("output wire [63:0] image,", "output wire [63:0] picture,",
         "argument 'image' is missing and should be output of 64 bits"),
    ],
)  # fmt: skip
def test_a_wrong_register_map_is_refused(
    rtl: Path, interface: Interface, before: str, after: str, message: str
) -> None:
    change(rtl / f"{interface.top}_control_s_axi.v", before, after)
    assert message in refused(rtl, interface)


def test_other_registers_are_found(rtl: Path, interface: Interface) -> None:
    moved = dict(interface.registers)
    moved["cycles"] = dataclasses.replace(moved["cycles"], offset=moved["cycles"].offset + 8)
    assert "ADDR_CYCLES_DATA_0" in refused(rtl, dataclasses.replace(interface, registers=moved))
    other = dataclasses.replace(interface.masters[0], bits=256)
    masters = (other, *interface.masters[1:])
    assert "should have 256" in refused(rtl, dataclasses.replace(interface, masters=masters))


def test_incomplete_folders_are_refused(rtl: Path, interface: Interface, tmp_path: Path) -> None:
    table = rtl / f"{interface.top}_table.dat"
    table.unlink()
    assert "reads a memory's contents from" in refused(rtl, interface)
    table.write_text("00\n")
    recipe = rtl / "fpu_ip.tcl"
    recipe.write_text("create_ip\n")
    assert "asks for IP of Vivado" in refused(rtl, interface)
    recipe.unlink()
    (rtl / f"{interface.top}_control_s_axi.v").rename(rtl / "control.v")
    assert "_control_s_axi.v' is missing" in refused(rtl, interface)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there is no Verilog" in refused(empty, interface)


def test_a_tolerated_port_is_reported(rtl: Path, interface: Interface) -> None:
    path = rtl / f"{interface.top}.v"
    change(path, "\n);\n\nparameter", ",\n        ap_local_block\n);\noutput ap_local_block;\nparameter")
    assert check_rtl(rtl, interface).unused == ("ap_local_block",)
    # a comment and an attribute name modules that are not used
    change(
        path, "// power-on", '/* gone gone_U (\n.a(b)); */ (* keep = "missing missing_U (.a" *)\n// power-on'
    )
    assert check_rtl(rtl, interface).modules == 3


@pytest.mark.parametrize("text", ["`ifdef A\nx\n`else\ny\n`endif\nz", "`ifndef A\ny\n`else\nx\n`endif\nz",
                                  "`ifdef A\n`ifndef B\nx\n`endif\nx\n`endif\ny\nz"])  # fmt: skip
def test_conditional_text_is_that_without_macros(text: str) -> None:
    assert ports._active(text).split() == ["y", "z"]


@pytest.mark.parametrize(("text", "value"), [("42", 42), ("8'h2A", 42), ("'b101", 5), ("9'd1_000", 1000),
                                             ("4'sd7", 7), ("4'bxx01", None)])  # fmt: skip
def test_numbers(text: str, value: int | None) -> None:
    assert ports._number(text) == value


def test_operators_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_operator(tmp_path, "softmax")
    checked = check_operator(tmp_path, "softmax")
    assert (checked.ports, checked.modules) == (7, 1)
    assert ports.main([str(tmp_path), "--top", "softmax"]) == 0
    assert "1 modules, 7 ports" in capsys.readouterr().out
    change(tmp_path / "softmax.v", "input   ap_start;", "output   ap_start;")
    with pytest.raises(EdgeMoEError, match="port 'ap_start' is missing or another"):
        check_operator(tmp_path, "softmax")
    with pytest.raises(EdgeMoEError, match=r"gelu\.v' is missing"):
        check_operator(tmp_path, "gelu")


def test_the_command_prints_one_sentence(rtl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ports.main([str(rtl)]) == 0
    assert "3 modules, 251 ports and 28 registers" in capsys.readouterr().out
    assert ports.main([str(rtl / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: there is no Verilog")
    assert error.count("\n") == 1
    assert ports.main([str(rtl), "--accelerator", "unknown"]) == 2
