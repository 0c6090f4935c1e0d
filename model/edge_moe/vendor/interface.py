# SPDX-License-Identifier: Apache-2.0
"""The accelerator's external interface: clock, ports, register map, place in the block design.

The Tcl scripts get it as variables, the check of generated Verilog compares with it, and the block design
connects its ports. Registers come from ``edge_moe_host.contract.registers``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edge_moe.accelerator import AcceleratorConfig, Board
from edge_moe_host.contract import registers
from edge_moe_host.contract.registers import Register

TOP = "edge_moe_accelerator"
VENDOR, LIBRARY, VERSION = "edge-moe", "hls", "1.0"  # of the packaged IP
CLOCK, RESET, INTERRUPT = "ap_clk", "ap_rst_n", "interrupt"
CONTROL = "control"  # s_axi_control
ADDRESS_BITS = 64


@dataclass(frozen=True)
class Port:
    """A port of a Verilog module; ``bits`` 0: any width. Not ``required``: some versions omit it."""

    name: str
    direction: str
    bits: int = 1
    required: bool = True


@dataclass(frozen=True)
class Master:
    """An AXI4 master: argument of the top, its bundle, and its HP port to memory."""

    argument: str
    bundle: str
    bits: int
    hp_port: int


@dataclass(frozen=True)
class Interface:
    """The interface of one accelerator's top."""

    top: str
    board: Board
    clock_mhz: int
    config_hash: str
    masters: tuple[Master, ...]
    registers: Mapping[str, Register] = field(default_factory=lambda: registers.REGISTERS)

    @property
    def clock_ns(self) -> float:
        """Period in picosecond steps, rounded down: the requested clock is at least the board's."""
        return 1000000 // self.clock_mhz / 1000

    @property
    def vlnv(self) -> str:
        """Name of the packaged IP."""
        return f"{VENDOR}:{LIBRARY}:{self.top}:{VERSION}"


def accelerator_interface(config: AcceleratorConfig, board: Board) -> Interface:
    """The interface of an accelerator's top function, on a board."""
    bits = 8 * config.io_bytes_per_cycle
    masters = tuple(Master(name, f"gmem_{name}", bits, board.hp_ports[name]) for name in registers.MASTERS)
    return Interface(TOP, board, config.clock_mhz, config.hash(), masters)


# Signals of an AXI4 master: name, driven by the master, width. Widths as letters: Address, Data, Strobe,
# or any (IDs and user bits). Vitis HLS also makes WID and REGION signals.
_READ = (
    ("ARVALID", True, 1), ("ARREADY", False, 1), ("ARADDR", True, "A"), ("ARID", True, 0),
    ("ARLEN", True, 8), ("ARSIZE", True, 3), ("ARBURST", True, 2), ("ARLOCK", True, 2),
    ("ARCACHE", True, 4), ("ARPROT", True, 3), ("ARQOS", True, 4), ("ARREGION", True, 4),
    ("ARUSER", True, 0), ("RVALID", False, 1), ("RREADY", True, 1), ("RDATA", False, "D"),
    ("RLAST", False, 1), ("RID", False, 0), ("RUSER", False, 0), ("RRESP", False, 2),
)  # fmt: skip
_WRITE = (
    ("AWVALID", True, 1), ("AWREADY", False, 1), ("AWADDR", True, "A"), ("AWID", True, 0),
    ("AWLEN", True, 8), ("AWSIZE", True, 3), ("AWBURST", True, 2), ("AWLOCK", True, 2),
    ("AWCACHE", True, 4), ("AWPROT", True, 3), ("AWQOS", True, 4), ("AWREGION", True, 4),
    ("AWUSER", True, 0), ("WVALID", True, 1), ("WREADY", False, 1), ("WDATA", True, "D"),
    ("WSTRB", True, "S"), ("WLAST", True, 1), ("WID", True, 0), ("WUSER", True, 0),
    ("BVALID", False, 1), ("BREADY", True, 1), ("BRESP", False, 2), ("BID", False, 0), ("BUSER", False, 0),
)  # fmt: skip
_LITE = (
    ("AWVALID", False, 1), ("AWREADY", True, 1), ("AWADDR", False, 0), ("WVALID", False, 1),
    ("WREADY", True, 1), ("WDATA", False, 32), ("WSTRB", False, 4), ("ARVALID", False, 1),
    ("ARREADY", True, 1), ("ARADDR", False, 0), ("RVALID", True, 1), ("RREADY", False, 1),
    ("RDATA", True, 32), ("RRESP", True, 2), ("BVALID", True, 1), ("BREADY", False, 1), ("BRESP", True, 2),
)  # fmt: skip
_OPTIONAL = re.compile(r"(A[RW]|[WRB])(ID|USER|REGION)")
# Simulation aids of some versions: outputs that the block design does not connect.
TOLERATED = ("ap_local_block", "ap_local_deadlock")


def _direction(driven: bool) -> str:
    return "output" if driven else "input"


def _master_ports(master: Master) -> Iterator[Port]:
    widths = {"A": ADDRESS_BITS, "D": master.bits, "S": master.bits // 8}
    for signal, driven, width in (*_WRITE, *_READ):
        yield Port(
            f"m_axi_{master.bundle}_{signal}",
            _direction(driven),
            widths[width] if isinstance(width, str) else width,
            not _OPTIONAL.fullmatch(signal),
        )


def top_ports(interface: Interface) -> dict[str, Port]:
    """Every port that the top's Verilog module may have."""
    ports = [Port(CLOCK, "input"), Port(RESET, "input"), Port(INTERRUPT, "output")]
    for signal, driven, width in _LITE:
        ports.append(Port(f"s_axi_{CONTROL}_{signal}", _direction(driven), width))
    for master in interface.masters:
        ports += _master_ports(master)
    ports += [Port(name, "output", 0, required=False) for name in TOLERATED]
    return {port.name: port for port in ports}
