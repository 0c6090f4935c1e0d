# SPDX-License-Identifier: Apache-2.0
"""Check of generated Verilog: ports and register map against the project's own interface description.

``python -m edge_moe.vendor.ports FOLDER`` reads the top and its control adapter with pyverilog's parser
(without its preprocessor, which needs another program), and searches every file for the modules and
memory contents that it uses. It assumes nothing about the tool's output: names, directions, widths and
offsets are read from it.
"""

import argparse
import functools
import importlib
import operator
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_moe.accelerator import load_accelerator, load_board
from edge_moe.vendor.interface import (
    CONTROL,
    TOLERATED,
    TOP,
    Interface,
    Port,
    accelerator_interface,
    top_ports,
)
from edge_moe_host.contract.registers import WORD_BYTES, Register
from edge_moe_host.errors import EdgeMoEError, one_line_errors

_CONTROL_REGISTERS = {"ap_ctrl": "AP_CTRL", "gie": "GIE", "ier": "IER", "isr": "ISR"}
_CONDITIONAL = re.compile(r"^\s*`(ifdef|ifndef|elsif|else|endif)\b", re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|\(\*(?!\s*\)).*?\*\)", re.DOTALL)
_DEFINED = re.compile(r"^\s*module\s+(\w+)", re.MULTILINE)
# MODULE [#(parameters)] NAME (.port...: parentheses in parameters nest up to two deep
_PARAMETERS = r"#\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\s*"
_INSTANCE = re.compile(rf"^\s*(\w+)\s*(?:{_PARAMETERS})?(\w+)\s*\(\s*\.", re.MULTILINE)
_MEMORY_FILE = re.compile(r'\$readmem[hb]\s*\(\s*"([^"]+)"')
_OPERATIONS = {
    "Plus": operator.add,
    "Minus": operator.sub,
    "Times": operator.mul,
    "Divide": operator.floordiv,
}
_VENDOR_IP = "*_ip.tcl"  # recipes for IP that only Vivado can make


@dataclass(frozen=True)
class Module:
    """A module's interface: ports in their order, and its parameters' values."""

    name: str
    ports: Mapping[str, Port]
    parameters: Mapping[str, int]


@dataclass(frozen=True)
class Checked:
    """What was compared; ``unused``: tolerated ports that the design does not connect."""

    ports: int
    registers: int
    modules: int
    unused: tuple[str, ...]


def _pyverilog(part: str) -> Any:
    """pyverilog.vparser.``part``, which has no type annotations."""
    try:
        return importlib.import_module(f"pyverilog.vparser.{part}")
    except ImportError:
        raise EdgeMoEError("the check of Verilog needs pyverilog: run 'make setup'.") from None


@functools.cache
def _parser() -> Any:
    with tempfile.TemporaryDirectory() as folder:  # for tables that the parser writes and never reads
        return _pyverilog("parser").VerilogParser(outputdir=folder, debug=False)


def _active(text: str) -> str:
    """The text with no macro defined; pyverilog itself skips other directives."""
    kept, keep, start = [], [True], 0
    for match in _CONDITIONAL.finditer(text):
        if all(keep):
            kept.append(text[start : match.start()])
        word = match[1]
        start = text.find("\n", match.end()) + 1 or len(text)
        if word in ("ifdef", "ifndef"):
            keep.append(word == "ifndef")
        elif len(keep) > 1:
            if word == "else":
                keep[-1] = not keep[-1]
            elif word == "endif":
                keep.pop()
    return "".join([*kept, text[start:] if all(keep) else ""])


def parse_module(path: Path, name: str) -> Module:
    """Module ``name`` of a Verilog file. EdgeMoEError when the file cannot be read or has no such module."""
    ast = _pyverilog("ast")
    text = _active(path.read_text(encoding="utf-8", errors="replace"))
    try:
        tree = _parser().parse(text)
    except _pyverilog("parser").ParseError as error:
        raise EdgeMoEError(f"'{path}' is not Verilog that pyverilog can read: {error}.") from None
    for definition in tree.description.definitions:
        if isinstance(definition, ast.ModuleDef) and definition.name == name:
            return _module(definition, path)
    raise EdgeMoEError(f"'{path}' defines no module '{name}'.")


def _module(definition: Any, path: Path) -> Module:
    ast = _pyverilog("ast")
    declared: list[Any] = [child for item in definition.paramlist.params for child in item.children()]
    for item in definition.items:
        if isinstance(item, ast.Decl):
            declared += item.list
    header = list(definition.portlist.ports)
    declared += [port.first for port in header if isinstance(port, ast.Ioport)]
    values: dict[str, int] = {}
    for item in declared:
        if isinstance(item, ast.Parameter):  # a local one too
            value = _value(item.value.var, values)
            if value is not None:
                values[item.name] = value
    sides = {
        item.name: Port(item.name, type(item).__name__.lower(), _width(item.width, values, path, item.name))
        for item in declared
        if isinstance(item, ast.Input | ast.Output | ast.Inout)
    }
    names = [port.first.name if isinstance(port, ast.Ioport) else port.name for port in header]
    missing = [name for name in names if name not in sides]
    if missing:
        raise EdgeMoEError(f"'{path}' does not say whether '{missing[0]}' is an input or an output.")
    return Module(definition.name, {name: sides[name] for name in names}, values)


def _width(width: Any, values: Mapping[str, int], path: Path, name: str) -> int:
    if width is None:
        return 1
    high, low = _value(width.msb, values), _value(width.lsb, values)
    if high is None or low is None:
        raise EdgeMoEError(f"'{path}' gives '{name}' a width that is not a number.")
    return high - low + 1


def _value(node: Any, values: Mapping[str, int]) -> int | None:
    """Value of a constant expression of integers, names and + - * /; None for any other."""
    kind = type(node).__name__
    if kind == "IntConst":
        return _number(node.value)
    if kind == "Identifier":
        return values.get(node.name)
    if kind not in _OPERATIONS:
        return None
    left, right = _value(node.left, values), _value(node.right, values)
    if left is None or right is None or (kind == "Divide" and right == 0):
        return None
    return _OPERATIONS[kind](left, right)


def _number(text: str) -> int | None:
    """``42``, ``8'h2a``, ``'b0``; None when a digit is unknown."""
    match = re.fullmatch(r"(?:\d*'s?([bodh]))?([0-9a-f_]+)", text.lower())
    if not match:
        return None
    base = {"b": 2, "o": 8, "d": 10, "h": 16, None: 10}[match[1]]
    return int(match[2].replace("_", ""), base)


def compare_ports(module: Module, expected: Mapping[str, Port], path: Path) -> tuple[str, ...]:
    """Tolerated ports. EdgeMoEError for an extra or missing port, a wrong direction or width."""
    wrong = [f"port '{name}' is not in the interface" for name in module.ports if name not in expected]
    for port in expected.values():
        found = module.ports.get(port.name)
        if found is None:
            if port.required:
                wrong.append(f"port '{port.name}' is missing")
        elif found.direction != port.direction:
            wrong.append(f"port '{port.name}' is an {found.direction} and should be an {port.direction}")
        elif port.bits and found.bits != port.bits:
            wrong.append(f"port '{port.name}' has {found.bits} bits and should have {port.bits}")
    _refuse(path, wrong)
    return tuple(name for name in TOLERATED if name in module.ports)


def _refuse(path: Path, wrong: Sequence[str]) -> None:
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise EdgeMoEError(f"'{path}' does not show what hosts expect: {wrong[0]}{more}.")


def compare_registers(adapter: Module, registers: Mapping[str, Register], path: Path) -> int:
    """Number of compared registers. EdgeMoEError for a missing, unknown or moved one, a wrong width
    or direction."""
    found = {name: value for name, value in adapter.parameters.items() if name.startswith("ADDR_")}
    found.pop("ADDR_BITS", None)
    wrong: list[str] = []
    expected: dict[str, int] = {}
    for name, register in registers.items():
        if name in _CONTROL_REGISTERS:
            expected[f"ADDR_{_CONTROL_REGISTERS[name]}"] = register.offset
        elif not name.endswith("_ctrl"):  # of a register that the host reads: checked with it
            expected |= _argument_addresses(adapter, registers, register, wrong)
    for name in expected.keys() | found.keys():
        if expected.get(name) != found.get(name):
            wrong.append(f"{name} is {_hex(found.get(name))} and should be {_hex(expected.get(name))}")
    _refuse(path, sorted(wrong))
    return len(registers)


def _hex(value: int | None) -> str:
    return "missing" if value is None else f"0x{value:02x}"


def _argument_addresses(
    adapter: Module, registers: Mapping[str, Register], register: Register, wrong: list[str]
) -> dict[str, int]:
    """The constants that an argument should have; appends to ``wrong`` if its port does not fit."""
    # a name that is reserved in Verilog or VHDL gets a suffix
    name = register.name
    if name not in adapter.ports and f"{name}_r" in adapter.ports:
        name = f"{name}_r"
    port, output = adapter.ports.get(name), register.access == "r"
    side = "input" if output else "output"  # the adapter passes on what the host writes
    if port is None or (port.direction, port.bits) != (side, register.bits):
        shape = f"{port.direction} of {port.bits} bits" if port else "missing"
        wrong.append(f"argument '{register.name}' is {shape} and should be {side} of {register.bits} bits")
    words, prefix = register.bits // 32, f"ADDR_{name.upper()}"
    last = register.offset + WORD_BYTES * words
    addresses = {f"{prefix}_DATA_{i}": register.offset + WORD_BYTES * i for i in range(words)}
    return {**addresses, f"{prefix}_CTRL": registers[f"{register.name}_ctrl"].offset if output else last}


def check_files(folder: Path) -> int:
    """Check that every module and memory file that the folder's Verilog uses exists; number of modules."""
    defined: dict[str, Path] = {}
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.v"))}
    if not texts:
        raise EdgeMoEError(f"there is no Verilog in '{folder}': run make csynth first.")
    for recipe in sorted(folder.glob(_VENDOR_IP)):
        raise EdgeMoEError(f"'{recipe}' asks for IP of Vivado: the Verilog is not complete by itself.")
    plain = {path: _COMMENT.sub(" ", text) for path, text in texts.items()}
    for path, text in plain.items():
        defined.update(dict.fromkeys(_DEFINED.findall(text), path))
    for path, text in plain.items():
        for module, instance in _INSTANCE.findall(text):
            if module not in defined:
                raise EdgeMoEError(f"'{path}' uses a module '{module}' ({instance}) that no file defines.")
        for name in _MEMORY_FILE.findall(text):
            if not (folder / name).is_file():
                raise EdgeMoEError(f"'{path}' reads a memory's contents from '{name}', which is not there.")
    return len(defined)


def check_rtl(folder: Path, top: Interface) -> Checked:
    """Check the Verilog of the accelerator in a folder. EdgeMoEError says what differs."""
    modules = check_files(folder)
    path = folder / f"{top.top}.v"
    adapter_path = folder / f"{top.top}_{CONTROL}_s_axi.v"
    for needed in (path, adapter_path):
        if not needed.is_file():
            raise EdgeMoEError(f"'{needed}' is missing.")
    expected = top_ports(top)
    unused = compare_ports(parse_module(path, top.top), expected, path)
    adapter = parse_module(adapter_path, adapter_path.stem)
    compared = compare_registers(adapter, top.registers, adapter_path)
    return Checked(sum(port.required for port in expected.values()), compared, modules, unused)


def check_operator(folder: Path, name: str) -> Checked:
    """Check that an operator's Verilog is complete and has the handshake ap_ctrl_hs."""
    modules = check_files(folder)
    path = folder / f"{name}.v"
    if not path.is_file():
        raise EdgeMoEError(f"'{path}' is missing.")
    module = parse_module(path, name)
    expected = [Port(port, "input") for port in ("ap_clk", "ap_rst", "ap_start")]
    expected += [Port(port, "output") for port in ("ap_done", "ap_idle", "ap_ready")]
    wrong = [f"port '{p.name}' is missing or another" for p in expected if module.ports.get(p.name) != p]
    _refuse(path, wrong)
    return Checked(len(module.ports), 0, modules, ())


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder; 0, or 2 after one sentence on what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m edge_moe.vendor.ports", description="Check Verilog.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--accelerator", default="zcu104", help="a name, or the path of a .toml file")
    parser.add_argument("--top", default=TOP)
    args = parser.parse_args(arguments)
    if args.top == TOP:
        config, board = load_accelerator(args.accelerator), load_board(args.accelerator)
        checked = check_rtl(args.folder, accelerator_interface(config, board))
    else:
        checked = check_operator(args.folder, args.top)
    print(
        f"{args.folder}: {checked.modules} modules, {checked.ports} ports and {checked.registers} registers"
    )
    if checked.unused:
        print(f"left open: {', '.join(checked.unused)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
