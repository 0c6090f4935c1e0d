# SPDX-License-Identifier: Apache-2.0
"""An accelerator's configuration as C++ constants, under the names that the configuration gives them."""

import dataclasses

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.codegen.cpp import constant, header
from edge_moe_host.errors import EdgeMoEError

# What the C++ design is written for; the estimator also answers what other rates would give.
PORT_BYTES, WEIGHT_PORTS = 16, 3
MAX_LATENCY = 512  # cycles that the bursts under way cover
MAX_EXPERTS = 64  # a bit each


def require_buildable(config: AcceleratorConfig) -> None:
    """EdgeMoEError for a configuration that the C++ design cannot have."""
    weights = WEIGHT_PORTS * config.io_bytes_per_cycle
    for name, holds, rule in (
        ("io_bytes_per_cycle", config.io_bytes_per_cycle == PORT_BYTES, f"a port has {PORT_BYTES} bytes"),
        (
            "memory_bytes_per_cycle",
            config.memory_bytes_per_cycle == weights,
            f"weights come through {WEIGHT_PORTS} ports, {weights} bytes",
        ),
        (
            "memory_latency",
            config.memory_latency <= MAX_LATENCY,
            f"bursts cover {MAX_LATENCY} cycles at most",
        ),
        ("max_experts", config.max_experts <= MAX_EXPERTS, f"at most {MAX_EXPERTS}, a bit each"),
    ):
        if not holds:
            value = getattr(config, name)
            raise EdgeMoEError(f"accelerator.{name} = {value} cannot be built: {rule}.")


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
