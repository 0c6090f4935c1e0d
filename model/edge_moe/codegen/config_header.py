# SPDX-License-Identifier: Apache-2.0
"""An accelerator's configuration as C++ constants, under the names that the configuration gives them."""

import dataclasses

from edge_moe.codegen.cpp import constant, header
from edge_moe.compiler.accelerator import AcceleratorConfig


def config_header(config: AcceleratorConfig) -> str:
    """Text of edge_moe_config.hpp: every field of the configuration, and its hash."""
    body = [constant(spec.name, getattr(config, spec.name)) for spec in dataclasses.fields(config)]
    body += [
        "",
        "// First 64 bits of the SHA-256 of the configuration: what a bundle and the host ask for.",
        f"constexpr uint64_t hash = 0x{config.hash()}u;",
    ]
    return header(
        "EDGE_MOE_CONFIG_HPP",
        "One accelerator: sizes, limits and rates. SPEC.md, section 10.",
        "config",
        body,
    )
