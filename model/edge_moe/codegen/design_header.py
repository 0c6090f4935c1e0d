# SPDX-License-Identifier: Apache-2.0
"""The constants of a design, and the values of its status and error registers, as C++."""

import enum
from collections.abc import Mapping
from typing import Any

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.codegen.cpp import constant, header
from edge_moe.codegen.design import Design
from edge_moe_host.contract.registers import REASONS, Error, Status


def design_header(config: AcceleratorConfig) -> str:
    """Text of edge_moe_design.hpp."""
    body = [f"{constant(c.name.upper(), c.value)}  // {c.doc}" for c in Design(config).constants()]
    body += ["", *_register_values(Status, {}), "", *_register_values(Error, REASONS)]
    return header("EDGE_MOE_DESIGN_HPP", "Constants of the hardware.", "", body)


def _register_values(members: type[enum.IntEnum], docs: Mapping[Any, str]) -> list[str]:
    lines = [f"  {m.name} = {m.value}," + (f"  // {docs[m]}" if m in docs else "") for m in members]
    title = f"// Values of the register `{members.__name__.lower()}`."
    return [title, f"enum class {members.__name__} : uint32_t {{", *lines, "};"]
