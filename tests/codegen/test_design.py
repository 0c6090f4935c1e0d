# SPDX-License-Identifier: Apache-2.0
"""Every constant of the hardware is stated once, in edge_moe.codegen.design, and generated elsewhere."""

import ast
import re

import pytest

from edge_moe.accelerator import load_accelerator
from edge_moe.codegen.design import Design
from edge_moe.codegen.headers import design_header, sv_package
from edge_moe.testing.checkout import ROOT
from edge_moe_host.contract.registers import Error, Status

CONSTANTS = Design(load_accelerator("zcu104")).constants()
NAMES = {constant.name.upper() for constant in CONSTANTS}


@pytest.mark.parametrize("accelerator", ["zcu104", "zcu104_large"])
def test_cpp_and_systemverilog_get_every_constant(accelerator: str) -> None:
    config = load_accelerator(accelerator)
    cpp, package = design_header(config), sv_package(config)
    for name, value, doc in Design(config).constants():
        assert f"constexpr int {name.upper()} = {value};  // {doc}" in cpp
        assert f"localparam int {name.upper()} = {value};  // {doc}" in package
    for member in (*Error, *Status):
        assert f"  {member.name} = {member.value}," in cpp
        assert f"localparam int {type(member).__name__.upper()}_{member.name} = {member.value};" in package
    assert len(CONSTANTS) > 60


def test_no_source_states_a_constant_again() -> None:
    """No definition in C++ or SystemVerilog has a number of its own, nor has an assignment in Python."""
    defined = re.compile(r"(?:constexpr|localparam|parameter)\s+\w+\s+(\w+)\s*=\s*([^;,\n)]*)")
    again = []
    for path in sorted([*(ROOT / "hls").rglob("*.[hc]pp"), *(ROOT / "rtl").glob("*.sv")]):
        for name, value in defined.findall(path.read_text(encoding="utf-8")):
            if name in NAMES and "edge_moe_pkg::" not in value:
                again.append(f"{path.name}: {name} = {value}")
    sources = [
        path for folder in ("model", "host", "board", "sim", "rtl") for path in (ROOT / folder).rglob("*.py")
    ]
    for path in sorted(sources):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                names = {target.id for target in node.targets if isinstance(target, ast.Name)}
                again += [f"{path.name}: {name}" for name in names & NAMES]
    assert len(sources) > 200
    assert again == []


def test_part_and_addresses_are_data() -> None:
    """No source names a part or an address of a board: accelerators/boards/ does."""
    found = [
        path.name
        for folder in ("model", "host", "board", "hls", "rtl")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".tcl", ".hpp", ".cpp", ".sv", ".mk")
        and re.search(r"xczu7ev|0xA0000000", path.read_text(encoding="utf-8"), re.IGNORECASE)
    ]
    assert found == []
