# SPDX-License-Identifier: Apache-2.0
"""The HLS kernels as Verilog that an HLS tool made of them, simulated beside the SystemVerilog module.

A bench calls a kernel through ``TB.kernel``. By default g++ compiled it; with ``make DUT=hls RTL=FOLDER`` the
same call runs the Verilog of FOLDER: its arrays are memories of one-cycle latency at ports
NAME_address0, NAME_ce0, NAME_q0, NAME_we0, NAME_d0 (and the same with 1), its scalars are inputs, ap_ctrl_hs
starts and ends it. Names and widths are read from the Verilog with pyverilog, an element's place in a wide
entry from the width.
"""

import os
import re
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe.vendor.interface import Port
from edge_moe.vendor.ports import Module, check_operator, parse_module
from edge_moe_host.files import write_text

FOLDER, NAMES = "EDGE_MOE_SIM_HLS", "EDGE_MOE_SIM_KERNELS"  # environment of a simulation
CONTROL = ("ap_clk", "ap_rst", "ap_start", "ap_done", "ap_idle", "ap_ready", "ap_return")
LIMIT = 2_000_000  # cycles of one call
PREFIX = "hls_"  # of modules, as an operator's SystemVerilog has the same names
_DEFINED = re.compile(r"^\s*module\s+(\w+)", re.MULTILINE)
_PARSER = threading.Lock()  # pyverilog's parser is one
_MEMORY = re.compile(r"^(?P<name>.+)_(?P<signal>address|ce|we|d|q)(?P<port>[01])$")


def kernels_in(folder: Path, names: Iterable[str]) -> dict[str, Module]:
    """Those of the kernels whose Verilog is in a folder. EdgeMoEError for one that is not complete."""
    found = [name for name in names if (folder / f"{name}.v").is_file()]
    with _PARSER:
        for name in found:
            check_operator(folder, name)
        return {name: parse_module(folder / f"{name}.v", name) for name in found}


def copy_verilog(source: Path, target: Path) -> list[Path]:
    """Verilog files under names of modules that begin with ``hls_``, and the contents of their memories."""
    for memory in source.glob("*.dat"):
        shutil.copy(memory, target)
    texts = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in source.glob("*.v")}
    modules = {name for text in texts.values() for name in _DEFINED.findall(text)}
    # not within other names, in the name of a memory file or of a port that is connected
    used = re.compile(rf"(?<![\w\"/.])({'|'.join(map(re.escape, sorted(modules)))})(?!\w|\.dat)")
    return [
        _write(target / f"{PREFIX}{name}", used.sub(rf"{PREFIX}\1", text)) for name, text in texts.items()
    ]


def _write(path: Path, text: str) -> Path:
    """Write a file unless it is as it should be, so that nothing is compiled again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


def write_wrapper(path: Path, name: str, ports: Iterable[Port], kernels: Mapping[str, Module]) -> Path:
    """SystemVerilog of a top that has an operator's ports, and each kernel's as hls_KERNEL_PORT."""
    declared, inside = [], []
    for port in ports:
        declared.append(f"{port.direction} wire [{port.bits - 1}:0] {port.name}")
    inside.append(f"  {name} u_{name} (.*);")
    for kernel, module in kernels.items():
        pins = []
        for port in module.ports.values():
            if port.name == "ap_clk":
                pins.append(".ap_clk(clk)")
                continue
            outer = f"{PREFIX}{kernel}_{port.name}"
            declared.append(f"{port.direction} wire [{port.bits - 1}:0] {outer}")
            pins.append(f".{port.name}({outer})")
        inside.append(f"  {PREFIX}{kernel} u_{PREFIX}{kernel} ({', '.join(pins)});")
    head = [f"module {path.stem} (", "  " + ",\n  ".join(declared), ");"]
    return _write(path, "\n".join([*head, *inside, "endmodule", ""]))


class Kernel:
    """One kernel's module: call it with its arrays and scalars in the order of its ports."""

    def __init__(self, dut: Any, name: str, module: Module) -> None:
        self.name = name
        self._dut = dut
        self._prefix = f"{PREFIX}{name}_"
        self._module = module
        self._arguments = _arguments(module)

    def _signal(self, port: str) -> Any:
        return getattr(self._dut, self._prefix + port)

    async def reset(self) -> None:
        """Hold every input at 0 and reset."""
        for port in self._module.ports.values():
            if port.direction == "input" and port.name != "ap_clk":
                self._signal(port.name).value = 0
        self._signal("ap_rst").value = 1
        await self._cycles(4)
        self._signal("ap_rst").value = 0
        await self._cycles(1)

    async def _cycles(self, count: int) -> None:
        from cocotb.triggers import RisingEdge

        for _ in range(count):
            await RisingEdge(self._dut.clk)

    async def run(self, *values: np.ndarray | int) -> int:
        """One call; arrays that it writes are changed in place. Its return value, 0 without one."""
        if len(values) != len(self._arguments):
            raise AssertionError(
                f"kernel '{self.name}' has arguments {', '.join(self._arguments)}, {len(values)} were given"
            )
        memories = []
        for name, value in zip(self._arguments, values, strict=True):
            if isinstance(value, np.ndarray):
                memories.append(_Memory(self, name, value))
            else:
                bits = self._module.ports[name].bits
                self._signal(name).value = int(value) & ((1 << bits) - 1)
        start, done = self._signal("ap_start"), self._signal("ap_done")
        start.value = 1
        for _ in range(LIMIT):
            await self._cycles(1)
            for memory in memories:
                memory.clock()
            if self._signal("ap_ready").value == 1:
                start.value = 0
            if done.value == 1:
                break
        else:
            raise AssertionError(f"kernel '{self.name}' was not done after {LIMIT} cycles")
        result = int(self._signal("ap_return").value) if "ap_return" in self._module.ports else 0
        for memory in memories:
            memory.keep()
        return result


class _Memory:
    """An array at up to two ports of a kernel."""

    def __init__(self, kernel: Kernel, name: str, array: np.ndarray) -> None:
        self.kernel, self.name, self.array = kernel, name, array
        ports = kernel._module.ports
        self.ports = [n for n in "01" if f"{name}_address{n}" in ports]
        data = next(ports[f"{name}_{s}{n}"] for n in self.ports for s in "qd" if f"{name}_{s}{n}" in ports)
        self.bytes = data.bits // 8
        if data.bits % (8 * array.itemsize):
            raise AssertionError(
                f"'{name}' of '{kernel.name}': entries of {data.bits} bits do not hold whole elements"
            )
        self.written = any(f"{name}_we{n}" in ports for n in self.ports)
        content = array.tobytes()
        self.content = bytearray(content + bytes(-len(content) % self.bytes))

    def clock(self) -> None:
        """What a rising edge does, by the signals before it."""
        for n in self.ports:
            if self._value(f"ce{n}") == 0:
                continue
            at = self._value(f"address{n}") * self.bytes
            if at + self.bytes > len(self.content):
                # a pipelined kernel may ask for an entry beyond the end that it does not use
                assert not self._value(f"we{n}"), f"'{self.kernel.name}' writes '{self.name}' beyond its end"
                continue
            if self._has(f"q{n}"):
                entry = int.from_bytes(self.content[at : at + self.bytes], "little")
                self.kernel._signal(f"{self.name}_q{n}").value = entry
            if self._value(f"we{n}"):
                self._write(n, at)

    def _write(self, n: str, at: int) -> None:
        """All bytes of an entry, or those of the write enable's bits."""
        enable = self._value(f"we{n}")
        lanes = self.kernel._module.ports[f"{self.name}_we{n}"].bits
        lane = self.bytes // lanes
        entry = self._value(f"d{n}").to_bytes(self.bytes, "little")
        for i in range(lanes):
            if enable >> i & 1:
                self.content[at + lane * i : at + lane * (i + 1)] = entry[lane * i : lane * (i + 1)]

    def _has(self, signal: str) -> bool:
        return f"{self.name}_{signal}" in self.kernel._module.ports

    def _value(self, signal: str) -> int:
        return int(self.kernel._signal(f"{self.name}_{signal}").value) if self._has(signal) else 0

    def keep(self) -> None:
        """The content back into the array, if the kernel can write it."""
        if self.written:
            data = np.frombuffer(bytes(self.content), self.array.dtype)[: self.array.size]
            self.array[...] = data.reshape(self.array.shape)


def _arguments(module: Module) -> list[str]:
    """Names of arrays and scalars in the order of their ports, which is that of the C++ arguments."""
    names: dict[str, None] = {}
    for port in module.ports:
        if port not in CONTROL:
            match = _MEMORY.match(port)
            names[match["name"] if match else port] = None
    return list(names)


def chosen_kernels(dut: Any) -> dict[str, Kernel]:
    """Kernels that this simulation has as Verilog, by name; none unless the environment says so."""
    names = os.environ.get(NAMES, "").split()
    folder = Path(os.environ.get(FOLDER, "."))
    return {name: Kernel(dut, name, parse_module(folder / f"{name}.v", name)) for name in names}


def environment(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Environment of a simulation with the Verilog of these kernels."""
    return {FOLDER: str(folder), NAMES: " ".join(names)}
