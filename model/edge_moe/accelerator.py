# SPDX-License-Identifier: Apache-2.0
"""Accelerators from ``accelerators/*.toml``: sizes, limits and rates, and the board. SPEC.md, section 10.

The hash of a configuration covers only sizes, limits and rates: a bundle runs on any board that has them.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_moe.settings import packaged_names, read_toml, require
from edge_moe_host.config import from_dict, to_dict
from edge_moe_host.contract.layout import MAX_TOP_K, PAIR, PLANE, TILE, tiles
from edge_moe_host.contract.manifest import config_hash
from edge_moe_host.contract.opcodes import MAX_LIMIT
from edge_moe_host.contract.registers import INTERRUPTS, MASTERS
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.operators import KEY_BLOCK

RESOURCES = ("LUT", "FF", "DSP", "BRAM_18K", "URAM")


@dataclass(frozen=True)
class AcceleratorConfig:
    """One build of the accelerator. Sizes are in bytes, rates in bytes or channels per clock cycle."""

    # arithmetic
    tile_in: int  # channels that enter the compute unit per token
    tile_out: int  # channels that leave it
    tokens_parallel: int  # tokens at a time
    key_block: int  # keys that attention holds at a time
    vector_channels: int  # channels per cycle of LayerNorm
    pipeline_cycles: int  # from the last operand of an instruction to its last result
    clock_mhz: int
    # memory
    scratch_bytes: int  # activations
    fifo_bytes: int  # weights read ahead
    fifo_read_bytes: int  # per cycle, from the weight FIFO into the compute unit
    memory_bytes_per_cycle: int  # weights, from external memory
    memory_latency: int  # cycles until the first of them arrives
    io_bytes_per_cycle: int  # image in, result out
    accumulator_rows: int  # rows of 32 accumulators
    # limits of a model
    max_instructions: int
    max_tokens: int
    max_width: int  # channels of the residual stream
    max_channels: int  # of any row that a linear takes or gives
    max_heads: int
    max_head_dim: int
    max_experts: int
    max_top_k: int
    max_map_rows: int  # pixels of the head's largest map
    max_conv_channels: int
    max_image_height: int
    max_image_width: int
    max_patch_size: int

    def __post_init__(self) -> None:
        def rule(condition: bool, name: str, text: str) -> None:
            require(condition, f"accelerator.{name}", getattr(self, name), text)

        for spec in dataclasses.fields(self):
            rule(1 <= getattr(self, spec.name) <= MAX_LIMIT, spec.name, f"it must be within [1, {MAX_LIMIT}]")
        for name, fixed, why in (
            ("tile_in", TILE, "the layout of weights and rows"),
            ("tile_out", TILE, "the layout of weights and rows"),
            ("tokens_parallel", PAIR, "the layout of rows"),
            ("key_block", KEY_BLOCK, "the meaning of attention"),
            ("vector_channels", TILE, "LayerNorm's loop, a slice a cycle,"),
            ("fifo_read_bytes", PLANE, "the weight FIFO, a plane a cycle,"),
        ):
            rule(getattr(self, name) == fixed, name, f"{why} needs {fixed}")
        rows, tokens = self.accumulator_rows, self.max_tokens
        rule(self.scratch_bytes % 64 == 0, "scratch_bytes", "a multiple of 64")
        rule(self.fifo_bytes % PLANE == 0, "fifo_bytes", f"a multiple of {PLANE}")
        rule(self.fifo_bytes >= 16 * PLANE, "fifo_bytes", f"at least {16 * PLANE}")
        rule(rows % PAIR == 0, "accumulator_rows", "a whole number of pairs")
        rule(self.max_top_k <= MAX_TOP_K, "max_top_k", f"at most {MAX_TOP_K}")
        rule(self.max_width <= 1024, "max_width", "LayerNorm is exact up to 1024 channels")
        rule(tokens <= 4096, "max_tokens", "attention is exact up to 4096 tokens")
        rule(tokens <= rows, "accumulator_rows", f"one expert may get all max_tokens = {tokens} tokens")
        rule(2 * tiles(self.max_head_dim) <= rows, "max_head_dim", "two queries must fit accumulator_rows")

    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON form."""
        return config_hash(to_dict(self))


@dataclass(frozen=True)
class Board:
    """The board that an accelerator is built for, and its place in the block design."""

    name: str
    part: str  # of the FPGA, as Vivado names it
    vivado_name: str  # pattern of the board's name in Vivado
    reference_mhz: int  # clock of the processing system that the clock wizard multiplies
    control_address: int  # where the processor sees the registers
    control_bytes: int
    interrupt: str  # input of the processing system that the accelerator's interrupt is connected to
    hp_ports: Mapping[str, int]  # AXI4 master -> HP port of the memory controller that it uses
    resources: Mapping[str, int]  # of the part: LUT, FF, DSP, BRAM_18K, URAM

    def __post_init__(self) -> None:
        def rule(condition: bool, name: str, value: object, text: str) -> None:
            require(condition, f"accelerator.board.{name}", value, text)

        for name, value in (*self.resources.items(), ("reference_mhz", self.reference_mhz)):
            least = 0 if name == "URAM" else 1
            rule(value >= least, name, value, f"it must be at least {least}")
        for name, given, needed in (
            ("resources", self.resources, RESOURCES),
            ("hp_ports", self.hp_ports, MASTERS),
        ):
            rule(set(given) == set(needed), name, sorted(given), f"it must name {', '.join(needed)}")
        for name, value in self.hp_ports.items():
            rule(0 <= value <= 3, f"hp_ports.{name}", value, "ports are 0 to 3")
        rule(self.interrupt in INTERRUPTS, "interrupt", self.interrupt, " or ".join(INTERRUPTS))
        address = self.control_address
        rule(address % self.control_bytes == 0, "control_address", address, "a multiple of control_bytes")

    @property
    def ultraram(self) -> bool:
        """Whether the part has UltraRAM; without it, large memories are in block RAM."""
        return self.resources["URAM"] > 0


def _read(accelerator: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Plain data of an accelerator's file, with those of its ``base``, another accelerator."""
    data = read_toml(accelerator, "accelerator", "accelerators", packaged_names("accelerators"))
    for key in ("base", "board"):  # a file that it names is relative to it
        if isinstance(name := data.get(key), str) and name.endswith(".toml"):
            data[key] = os.path.normpath(Path(accelerator).parent / name)
    base = data.pop("base", None)
    if base is None:
        return data
    above = (*above, accelerator)
    if not isinstance(base, str) or base in above:
        raise EdgeMoEError(f"accelerator '{accelerator}' has base = {base!r}: name another accelerator.")
    return _read(base, above) | data


def load_accelerator(name_or_path: str) -> AcceleratorConfig:
    """An accelerator by name, or from a TOML file of the same form. EdgeMoEError for anything else."""
    data = _read(name_or_path)
    data.pop("board", None)
    result: AcceleratorConfig = from_dict(AcceleratorConfig, data)
    return result


def has_board(accelerator: str) -> bool:
    """Whether an accelerator's file names a board."""
    return "board" in _read(accelerator)


def load_board(accelerator: str) -> Board:
    """An accelerator's board, which its file names (``board = "zcu104"``) or describes (``[board]``)."""
    board = _read(accelerator).get("board")
    if board is None:
        raise EdgeMoEError(
            f"accelerator '{accelerator}' names no board: add a line such as board = \"zcu104\" to its file."
        )
    if isinstance(board, str):
        board = read_toml(board, "board", "accelerators/boards", packaged_names("accelerators/boards"))
    result: Board = from_dict(Board, board, "board")
    return result
