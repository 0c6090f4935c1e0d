# SPDX-License-Identifier: Apache-2.0
"""An accelerator's configuration as C++ constants of the same names."""

import dataclasses

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.codegen.cpp import constant, header
from edge_moe.codegen.design import Design
from edge_moe_host.errors import EdgeMoEError


def require_buildable(config: AcceleratorConfig) -> None:
    """EdgeMoEError for a configuration that cannot be built; the estimator takes any rate."""
    design = Design(config)
    port, ports = design.port_bytes, design.weight_ports
    latency, bits = design.memory_latency_limit, design.expert_bits
    for name, holds, rule in (
        ("io_bytes_per_cycle", config.io_bytes_per_cycle == port, f"a port has {port} bytes"),
        (
            "memory_bytes_per_cycle",
            config.memory_bytes_per_cycle == ports * port,
            f"weights come through {ports} ports, {ports * port} bytes",
        ),
        ("memory_latency", config.memory_latency <= latency, f"bursts cover {latency} cycles at most"),
        ("max_experts", config.max_experts <= bits, f"at most {bits}, a bit each"),
    ):
        if not holds:
            value = getattr(config, name)
            raise EdgeMoEError(f"accelerator.{name} = {value} cannot be built: {rule}.")


def config_header(config: AcceleratorConfig) -> str:
    """Text of edge_moe_config.hpp: every field of the configuration, and its hash."""
    body = [constant(spec.name, getattr(config, spec.name)) for spec in dataclasses.fields(config)]
    body += [
        "",
        "// First 64 bits of the SHA-256 of the configuration, which a bundle and the host compare.",
        f"constexpr uint64_t hash = 0x{config.hash()}u;",
    ]
    return header(
        "EDGE_MOE_CONFIG_HPP",
        "One accelerator: sizes, limits and rates. SPEC.md, section 10.",
        "config",
        body,
    )
