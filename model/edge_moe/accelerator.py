# SPDX-License-Identifier: Apache-2.0
"""Accelerators from ``accelerators/*.toml``: sizes, limits and rates, and the board. SPEC.md, section 10.

The hash of a configuration covers only sizes, limits and rates: a bundle runs on any board that has them.
"""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from edge_moe_host.config import from_dict, to_dict
from edge_moe_host.contract.bundle import MAX_LIMIT
from edge_moe_host.contract.layout import MAX_TOP_K, PAIR, PLANE, TILE, tiles
from edge_moe_host.contract.registers import MASTERS
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.operators import KEY_BLOCK

RESOURCES = ("LUT", "FF", "DSP", "BRAM_18K", "URAM")


def _rule(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise EdgeMoEError(f"accelerator.{name} = {value!r} is not allowed: {rule}.")


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
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            _rule(1 <= value <= MAX_LIMIT, spec.name, value, f"it must be within [1, {MAX_LIMIT}]")
        for name, fixed, why in (
            ("tile_in", TILE, "the layout of weights and rows"),
            ("tile_out", TILE, "the layout of weights and rows"),
            ("tokens_parallel", PAIR, "the layout of rows"),
            ("key_block", KEY_BLOCK, "the meaning of attention"),
            ("vector_channels", TILE, "LayerNorm's loop, a slice a cycle,"),
            ("fifo_read_bytes", PLANE, "the weight FIFO, a plane a cycle,"),
        ):
            value = getattr(self, name)
            _rule(value == fixed, name, value, f"{why} needs {fixed}")
        _rule(self.scratch_bytes % 64 == 0, "scratch_bytes", self.scratch_bytes, "a multiple of 64")
        _rule(self.fifo_bytes % PLANE == 0, "fifo_bytes", self.fifo_bytes, f"a multiple of {PLANE}")
        _rule(self.fifo_bytes >= 16 * PLANE, "fifo_bytes", self.fifo_bytes, f"at least {16 * PLANE}")
        rows = self.accumulator_rows
        _rule(rows % PAIR == 0, "accumulator_rows", rows, "a whole number of pairs")
        _rule(self.max_top_k <= MAX_TOP_K, "max_top_k", self.max_top_k, f"at most {MAX_TOP_K}")
        _rule(self.max_width <= 1024, "max_width", self.max_width, "LayerNorm is exact up to 1024 channels")
        _rule(self.max_tokens <= 4096, "max_tokens", self.max_tokens, "attention is exact up to 4096 tokens")
        _rule(
            self.max_tokens <= self.accumulator_rows,
            "accumulator_rows",
            self.accumulator_rows,
            f"one expert may get all max_tokens = {self.max_tokens} tokens",
        )
        _rule(
            2 * tiles(self.max_head_dim) <= self.accumulator_rows,
            "max_head_dim",
            self.max_head_dim,
            "two queries must fit accumulator_rows",
        )

    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON form."""
        text = json.dumps(to_dict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Board:
    """The board that an accelerator is built for, and its place in the block design."""

    name: str
    part: str  # of the FPGA, as Vivado names it
    vivado_name: str  # pattern of the board's name in Vivado
    reference_mhz: int  # clock of the processing system that the clock wizard multiplies
    control_address: int  # where the processor sees the registers
    control_bytes: int
    hp_ports: Mapping[str, int]  # AXI4 master -> HP port of the memory controller that it uses
    resources: Mapping[str, int]  # of the part: LUT, FF, DSP, BRAM_18K, URAM

    def __post_init__(self) -> None:
        for name, value in (*self.resources.items(), ("reference_mhz", self.reference_mhz)):
            _rule(value >= 1, f"board.{name}", value, "it must be at least 1")
        given, needed = set(self.resources), set(RESOURCES)
        _rule(given == needed, "board.resources", sorted(given), f"it must name {', '.join(RESOURCES)}")
        given, needed = set(self.hp_ports), set(MASTERS)
        _rule(given == needed, "board.hp_ports", sorted(given), f"it must name {', '.join(MASTERS)}")
        _rule(
            self.control_address % self.control_bytes == 0,
            "board.control_address",
            self.control_address,
            "a multiple of control_bytes",
        )


def accelerator_names() -> list[str]:
    """Names that :func:`load_accelerator` knows."""
    return _names(resources.files("edge_moe") / "accelerators")


def load_accelerator(name_or_path: str) -> AcceleratorConfig:
    """An accelerator by name, or from a TOML file of the same form. EdgeMoEError for anything else."""
    data = _read(name_or_path, "accelerator", accelerator_names(), "accelerators")
    data.pop("board", None)
    result: AcceleratorConfig = from_dict(AcceleratorConfig, data)
    return result


def has_board(accelerator: str) -> bool:
    """Whether an accelerator's file names a board."""
    return "board" in _read(accelerator, "accelerator", accelerator_names(), "accelerators")


def load_board(accelerator: str) -> Board:
    """An accelerator's board, which its file names (``board = "zcu104"``) or describes (``[board]``)."""
    data = _read(accelerator, "accelerator", accelerator_names(), "accelerators")
    board = data.get("board")
    if board is None:
        raise EdgeMoEError(
            f"accelerator '{accelerator}' names no board: add a line such as board = \"zcu104\" to its file."
        )
    if isinstance(board, str):
        known = _names(resources.files("edge_moe") / "accelerators" / "boards")
        board = _read(board, "board", known, "accelerators/boards")
    result: Board = from_dict(Board, board, "board")
    return result


def _names(folder: Traversable) -> list[str]:
    return sorted(path.name.removesuffix(".toml") for path in folder.iterdir() if path.name.endswith(".toml"))


def _read(name_or_path: str, kind: str, known: list[str], folder: str) -> dict[str, Any]:
    """Plain data of a packaged file, or of the file at a path."""
    if name_or_path.endswith(".toml"):
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise EdgeMoEError(f"cannot read {kind} file '{name_or_path}': {reason}.") from None
    elif name_or_path in known:
        packaged = resources.files("edge_moe").joinpath(folder, f"{name_or_path}.toml")
        text = packaged.read_text(encoding="utf-8")
    else:
        raise EdgeMoEError(
            f"unknown {kind} '{name_or_path}': known are {', '.join(known)}, or the path of a .toml file."
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EdgeMoEError(f"{kind} '{name_or_path}' is not valid TOML: {error}.") from None
