# SPDX-License-Identifier: Apache-2.0
"""What the estimator says of an operator: cycles of the loops of ``edge_moe.estimate.loops`` for zcu104."""

from edge_moe.accelerator import load_accelerator
from edge_moe.estimate.loops import Loop, cycles_of, instruction_loops, linear_passes
from edge_moe_host.contract.isa import Instruction, Opcode

ZCU104 = load_accelerator("zcu104")


def loops(opcode: Opcode, **fields: int) -> list[Loop]:
    """Of one instruction with these fields."""
    return list(instruction_loops(Instruction(opcode=opcode, **fields), ZCU104))


def steps(opcode: Opcode, **fields: int) -> int:
    """Iterations of an instruction's loops: its cycles but for what pipelines take to fill and drain."""
    return sum(loop.steps for loop in loops(opcode, **fields))


def cycles(opcode: Opcode, **fields: int) -> int:
    """Of an instruction that never waits."""
    return cycles_of(loops(opcode, **fields))


def passes(in_tiles: int, out_tiles: int, bits: int, pairs: int) -> int:
    """Cycles of a linear's passes, one for each tile of weights, from the first one's first pair on."""
    _, *later = linear_passes(in_tiles, 0, out_tiles, bits, pairs, ZCU104)
    return sum(loop.steps for loop in later)
