# SPDX-License-Identifier: Apache-2.0
"""A ``.bit`` and ``.hwh`` pair for the simulated board, like that of the block design in ``vivado/``.

The hardware handoff describes the same cells, addresses, registers and interrupt; pynq's own parser reads it.
The bitstream has a real header; its content is the hash of the accelerator's configuration. When it is
downloaded, the simulated board loads the C simulation of that accelerator.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from edge_moe_host.backends.board.driver import VLNV
from edge_moe_host.backends.csim_library import how_to_build, library_path
from edge_moe_host.contract.registers import CONTROL, MASTERS, REGISTERS, Register
from edge_moe_host.errors import BackendError

CELL = "accelerator"
MARK = b"edge-moe simulated "  # first bytes of a simulated configuration
_SYNC = bytes.fromhex("ffffffffaa995566")
_AXI = "xilinx.com:interface:aximm:1.0"
# Vitis HLS's names where they are not an argument's own, and bits of the control registers.
_RENAMED = {"ap_ctrl": "CTRL", "gie": "GIER", "ier": "IP_IER", "isr": "IP_ISR", "output": "output_r"}
_FIELDS = {
    "ap_ctrl": (("AP_START", 0, 1), ("AP_DONE", 1, 1), ("AP_IDLE", 2, 1), ("AP_READY", 3, 1),
                ("AUTO_RESTART", 7, 1), ("INTERRUPT", 9, 1)),
    "gie": (("Enable", 0, 1),),
    "ier": (("CHAN0_INT_EN", 0, 1), ("CHAN1_INT_EN", 1, 1)),
    "isr": (("CHAN0_INT_ST", 0, 1), ("CHAN1_INT_ST", 1, 1)),
}  # fmt: skip
_PS_WIDTHS = {"C_MAXIGP0_DATA_WIDTH": "32", **{f"C_SAXIGP{port}_DATA_WIDTH": "128" for port in range(2, 6)}}


@dataclass(frozen=True)
class BoardFacts:
    """Facts about the board that a design needs: some entries of the accelerator's board."""

    name: str
    part: str
    control_address: int
    control_bytes: int
    interrupt: str


def board_facts(config_hash: str) -> BoardFacts:
    """The board of an accelerator, which ``make -C hls csim`` writes beside the C simulation.

    BackendError when it is missing.
    """
    path = library_path(config_hash).with_suffix(".json")
    try:
        data = json.loads(path.read_text("utf-8"))
        return BoardFacts(**{field.name: data[field.name] for field in fields(BoardFacts)})
    except (OSError, ValueError, KeyError):
        raise BackendError(
            f"'{path}' does not describe the board of accelerator {config_hash}: name a board in the "
            f"accelerator's file; {how_to_build()}."
        ) from None


def write_design(folder: Path, config_hash: str, registers: Mapping[str, Register] = REGISTERS) -> Path:
    """Write ``edge_moe_HASH.bit`` and ``.hwh`` into ``folder``; returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"edge_moe_{config_hash}.bit"
    board = board_facts(config_hash)
    path.write_bytes(bitstream(config_hash, board))
    tree = ElementTree.ElementTree(handoff(registers, board))
    ElementTree.indent(tree)
    tree.write(path.with_suffix(".hwh"), encoding="UTF-8", xml_declaration=True)
    return path


def bitstream(config_hash: str, board: BoardFacts) -> bytes:
    """A .bit file: its header, and a configuration that names the accelerator."""

    def text(key: bytes, value: str) -> bytes:
        data = value.encode() + b"\0"
        return key + struct.pack(">H", len(data)) + data

    header = struct.pack(">H", 9) + bytes.fromhex("0ff00ff00ff00ff000") + struct.pack(">H", 1)
    header += text(b"a", "edge_moe_wrapper;UserID=0XFFFFFFFF;Version=simulated") + text(b"b", board.part)
    header += text(b"c", "2000/01/01") + text(b"d", "00:00:00")
    data = _SYNC + MARK + config_hash.encode()
    data += bytes(-len(data) % 4)
    return header + b"e" + struct.pack(">I", len(data)) + data


def configured_hash(data: bytes) -> str:
    """The hash of the accelerator in a configuration; RuntimeError for any other configuration."""
    _, mark, rest = data.partition(MARK)
    if not mark:
        raise RuntimeError("the simulated board takes only bitstreams that were made for it")
    return rest[:16].decode("ascii")


def handoff(registers: Mapping[str, Register], board: BoardFacts) -> Element:
    """The .hwh as an element tree."""
    root = Element("EDKSYSTEM", EDWVERSION="1.2", VIVADOVERSION="2022.2")
    device = board.part.partition("-")[0]
    vivado_name = f"xilinx.com:{board.name.lower()}:part0:1.1"
    SubElement(root, "SYSTEMINFO", ARCH="zynquplus", BOARD=vivado_name, DEVICE=device, NAME="edge_moe")
    SubElement(root, "EXTERNALPORTS")
    SubElement(root, "EXTERNALINTERFACES")
    modules = SubElement(root, "MODULES")
    _accelerator(modules, registers, board)
    _interconnect(modules)
    _processor(modules, board)
    return root


def _module(parent: Element, cell: str, vlnv: str, **attributes: str) -> Element:
    name, version = vlnv.split(":")[2:]
    return SubElement(parent, "MODULE", FULLNAME=f"/{cell}", INSTANCE=cell, MODTYPE=name, VLNV=vlnv,
                      HWVERSION=version, IPTYPE="PERIPHERAL", **attributes)  # fmt: skip


def _connect(ports: Element, name: str, direction: str, net: str, others: Sequence[tuple[str, str]],
             kind: str = "undef") -> None:  # fmt: skip
    port = SubElement(ports, "PORT", DIR=direction, NAME=name, SIGIS=kind, SIGNAME=net)
    connections = SubElement(port, "CONNECTIONS")
    for instance, pin in others:
        SubElement(connections, "CONNECTION", INSTANCE=instance, PORT=pin)


def _accelerator(modules: Element, registers: Mapping[str, Register], board: BoardFacts) -> None:
    module = _module(modules, CELL, VLNV)
    blocks = SubElement(module, "ADDRESSBLOCKS")
    block = SubElement(blocks, "ADDRESSBLOCK", ACCESS="read-write", INTERFACE="s_axi_control", NAME="Reg",
                       RANGE=str(board.control_bytes), USAGE="register")  # fmt: skip
    listing = SubElement(block, "REGISTERS")
    for register in registers.values():
        _register(listing, register)
    SubElement(module, "PARAMETERS")
    ports = SubElement(module, "PORTS")
    _connect(ports, "ap_clk", "I", "ps_pl_clk0", [("ps", "pl_clk0")], "clk")
    _connect(ports, "ap_rst_n", "I", "ps_pl_resetn0", [("ps", "pl_resetn0")], "rst")
    _connect(ports, "interrupt", "O", "accelerator_interrupt", [("ps", board.interrupt)], "INTERRUPT")
    buses = SubElement(module, "BUSINTERFACES")
    SubElement(buses, "BUSINTERFACE", BUSNAME="control_M00_AXI", DATAWIDTH="32", NAME="s_axi_control",
               TYPE="SLAVE", VLNV=_AXI)  # fmt: skip
    for master in MASTERS:
        SubElement(buses, "BUSINTERFACE", BUSNAME=f"{CELL}_m_axi_gmem_{master}", DATAWIDTH="128",
                   NAME=f"m_axi_gmem_{master}", TYPE="MASTER", VLNV=_AXI)  # fmt: skip


def _register(listing: Element, register: Register) -> None:
    """One 32-bit register, or two for 64 bits, with the names that Vitis HLS chooses."""
    name = _RENAMED.get(register.name, register.name)
    words = register.bits // 32
    for word in range(words):
        entry = SubElement(listing, "REGISTER", NAME=f"{name}_{word + 1}" if words > 1 else name)
        control = register in CONTROL
        access = "read-write" if control else "write-only" if register.access == "rw" else "read-only"
        offset = str(register.offset + 4 * word)
        _properties(entry, DESCRIPTION=register.doc, ADDRESS_OFFSET=offset, SIZE="32",
                    ACCESS=access, IS_ENABLED="true", RESET_VALUE="0")  # fmt: skip
        fields = SubElement(entry, "FIELDS")
        for field, first, bits in _FIELDS.get(register.name, ((name, 0, 32),)):
            place = SubElement(fields, "FIELD", NAME=field)
            _properties(place, DESCRIPTION=register.doc, ADDRESS_OFFSET=str(first), ACCESS=access,
                        BIT_OFFSET=str(first), BIT_WIDTH=str(bits))  # fmt: skip


def _properties(parent: Element, **values: str) -> None:
    for name, value in values.items():
        SubElement(parent, "PROPERTY", NAME=name, VALUE=value)


def _interconnect(modules: Element) -> None:
    """The SmartConnect between the processor and the registers; pynq passes it by addresses."""
    module = _module(modules, "control", "xilinx.com:ip:smartconnect:1.0")
    SubElement(module, "PARAMETERS")
    SubElement(module, "PORTS")
    SubElement(module, "BUSINTERFACES")


def _processor(modules: Element, board: BoardFacts) -> None:
    module = _module(modules, "ps", "xilinx.com:ip:zynq_ultra_ps_e:3.4", IS_PL="FALSE")
    parameters = SubElement(module, "PARAMETERS")
    values = dict(_PS_WIDTHS)
    for clock in range(4):
        prefix = f"PSU__CRL_APB__PL{clock}_REF_CTRL__"
        values |= {f"PSU__FPGA_PL{clock}_ENABLE": str(int(clock == 0)), f"{prefix}DIVISOR0": "15",
                   f"{prefix}DIVISOR1": "1", f"{prefix}SRCSEL": "IOPLL",
                   f"{prefix}ACT_FREQMHZ": "99.999001"}  # fmt: skip
    for name, value in values.items():
        SubElement(parameters, "PARAMETER", NAME=name, VALUE=value)
    ports = SubElement(module, "PORTS")
    _connect(ports, "pl_clk0", "O", "ps_pl_clk0", [(CELL, "ap_clk")], "clk")
    _connect(ports, "pl_resetn0", "O", "ps_pl_resetn0", [(CELL, "ap_rst_n")], "rst")
    _connect(ports, board.interrupt, "I", "accelerator_interrupt", [(CELL, "interrupt")], "INTERRUPT")
    buses = SubElement(module, "BUSINTERFACES")
    SubElement(buses, "BUSINTERFACE", BUSNAME="ps_M_AXI_HPM0_FPD", DATAWIDTH="32", NAME="M_AXI_HPM0_FPD",
               TYPE="MASTER", VLNV=_AXI)  # fmt: skip
    ranges = SubElement(module, "MEMORYMAP")
    first, last = board.control_address, board.control_address + board.control_bytes - 1
    SubElement(ranges, "MEMRANGE", ADDRESSBLOCK="Reg", BASEVALUE=f"{first:#010X}",
               HIGHVALUE=f"{last:#010X}", INSTANCE=CELL, MASTERBUSINTERFACE="M_AXI_HPM0_FPD",
               MEMTYPE="REGISTER", SLAVEBUSINTERFACE="s_axi_control")  # fmt: skip
