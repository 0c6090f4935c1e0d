# SPDX-License-Identifier: Apache-2.0
"""The cycle model's loops equal the C++'s for every instruction that C simulation executes."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_moe.accelerator import AcceleratorConfig, load_accelerator
from edge_moe.bench.csim import benchmark_csim, csim_table
from edge_moe.config import load_preset
from edge_moe.estimate.cycles import estimate_task, measured_routing
from edge_moe.estimate.loops import Crowd, Expert, crowds_of, cycles_of, experts_loops, instruction_loops
from edge_moe.quant.network import IntegerNetwork
from edge_moe.testing.bundles import compile_network, small_config
from edge_moe.testing.csim import Bench, csim, routing_bytes
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.contract import layout, opcodes
from edge_moe_host.contract.encoding import encode
from edge_moe_host.contract.isa import Epilogue, ExpertEntry, Instruction, Opcode

ZCU104 = load_accelerator("zcu104")


def assert_experts_equal(
    i: Instruction,
    table: Sequence[ExpertEntry],
    crowds: Sequence[Crowd],
    cycles: int,
    accelerator: AcceleratorConfig = ZCU104,
) -> int:
    """Assert that EXPERTS take what the loops say; return the number of empty experts with dropped planes.

    The moment when the routing is known depends on time, which C simulation does not model: it may have read
    the first few empty experts. Only they leave a choice.
    """
    empty = [index for index, crowd in enumerate(crowds) if not any(crowd)]
    possible = {}
    for count in range(len(empty) + 1):
        experts = (
            Expert(entry, crowd, any(crowd) or index in empty[:count])
            for index, (entry, crowd) in enumerate(zip(table, crowds, strict=True))
        )
        possible[cycles_of(experts_loops(i, experts, accelerator))] = count
    assert len(possible) == len(empty) + 1
    assert cycles in possible, (i, crowds)
    return possible[cycles]


def assert_loops_equal(
    network: IntegerNetwork, folder: Path, accelerator: str = "zcu104", images: int = 1
) -> tuple[int, int]:
    """Every instruction of every task: how many were compared, and how many experts were empty."""
    config = load_accelerator(accelerator)
    bundle, _ = compile_network(network, folder, accelerator=config)
    pictures, compared, empty = random_images(network.config, images, seed=5), 0, 0
    for task in network.tasks:
        program = bundle.task(task).instructions
        for picture, routing in zip(pictures, measured_routing(bundle, task, pictures), strict=True):
            run = csim(accelerator=accelerator).run(bundle, task, picture, trace=True)
            timings = estimate_task(bundle, task, routing).timings
            assert len(timings) == len(program) == len(run.instruction_cycles) + 1
            for index, cycles in enumerate(run.instruction_cycles):
                i, own = program[index], timings[index].loops
                if i.opcode == Opcode.EXPERTS:
                    crowds, table = routing[index], bundle.expert_table(i)
                    assert_experts_equal(i, table, crowds, cycles, config)
                    assert_experts_equal(i, table, crowds, own, config)
                    empty += sum(not any(crowd) for crowd in crowds)
                if i.opcode != Opcode.EXPERTS or all(map(any, routing[index])):
                    assert own == cycles, (index, i)
                compared += 1
            assert timings[-1].loops == 0
    return compared, empty


# configuration, instructions compared
NETWORKS = {
    "cls": ({}, 50),
    "no cls": ({"cls_token": False}, 50),
    "odd tokens": ({"image_size": (24, 24), "cls_token": False}, 50),
    "one token": ({"image_size": (8, 8), "cls_token": False, "num_experts": 1, "top_k": 1}, 50),
    "one token, 8 experts": ({"image_size": (8, 8), "cls_token": False, "num_experts": 8}, 50),
    "48 channels": ({"embed_dim": 48, "num_heads": 3}, 50),
    "wide heads": ({"embed_dim": 64, "num_heads": 1}, 50),
    "heads of 48": ({"embed_dim": 96, "num_heads": 2}, 50),
    "dense": ({"routing": "dense", "depth": 1}, 36),
    "pup head": ({"head": "pup", "tasks": {"depth": 1}}, 27),
    "top-1": ({"top_k": 1, "num_experts": 8}, 50),
    "top-3": ({"top_k": 3, "num_experts": 8, "expert_ratio": 2}, 50),
    "top-4 of 32": ({"top_k": 4, "num_experts": 32}, 50),
    "wide head": ({"head_channels": 72, "tasks": {"semseg": 40}}, 25),
    "several key blocks": ({"image_size": (64, 64), "tasks": {"depth": 1}}, 25),
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks(name: str, tmp_path: Path) -> None:
    changes, expected = NETWORKS[name]
    network = random_network(small_config(**changes), seed=len(name))
    assert assert_loops_equal(network, tmp_path)[0] == expected


@pytest.mark.parametrize("bits", [2, 5])
def test_weights_of_fewer_bits(bits: int, tmp_path: Path) -> None:
    network = random_network(small_config(tasks={"depth": 1}), seed=bits, expert_bits=bits)
    assert assert_loops_equal(network, tmp_path)[0] == 25


def test_mini(tmp_path: Path) -> None:
    network = random_network(load_preset("mini").model)
    assert assert_loops_equal(network, tmp_path, images=2)[0] == 156


def test_all_tokens_on_one_expert(tmp_path: Path) -> None:
    """A gate that wants its last expert whatever comes: the 7 others are empty."""
    network = random_network(small_config(num_experts=8, top_k=1, tasks={"depth": 1}))
    blocks = []
    for block in network.blocks:
        gates = {
            task: dataclasses.replace(gate, bias=np.where(np.arange(8) == 7, 2**29, 0).astype(np.int32))
            for task, gate in (block.gates or {}).items()
        }
        blocks.append(dataclasses.replace(block, gates=gates))
    network = dataclasses.replace(network, blocks=tuple(blocks))
    assert assert_loops_equal(network, tmp_path) == (25, 7)


def test_64_experts_on_the_large_accelerator(tmp_path: Path) -> None:
    config = small_config(num_experts=64, top_k=4, embed_dim=96, num_heads=3, tasks={"semseg": 21})
    compared, empty = assert_loops_equal(random_network(config), tmp_path, "zcu104_large", images=2)
    assert (compared, empty > 0) == (50, True)


def test_1025_tokens_on_the_large_accelerator(tmp_path: Path) -> None:
    """Queries, rows of linears and pixels that fill the accumulators more than once."""
    shape = {"image_size": (512, 512), "patch_size": 16, "embed_dim": 64, "num_heads": 1}
    network = random_network(small_config(**shape, depth=2, tasks={"semseg": 21}))
    assert assert_loops_equal(network, tmp_path, "zcu104_large") == (36, 0)


# Single instructions, whose data are zeros or old memory: no loop depends on them


class LoopsBench(Bench):
    """Instructions with weights of zeros, at addresses of their own."""

    def put(self, opcode: Opcode, **fields: int) -> Instruction:
        i = Instruction(opcode=opcode, **fields)
        places = {region.field: self.reserve(region.size) for region in opcodes.regions(i)}
        beats = opcodes.weight_beats(i)
        block = self.block(bytes(layout.BEAT * beats)) if beats else {}
        self.emit(opcode, **fields, **places, **block)
        return i

    def compare(self) -> int:
        """Run; every instruction takes what the loops say."""
        cycles = self.run()
        for i, own in zip(self.program, cycles, strict=False):
            if i.opcode != Opcode.EXPERTS:
                assert own == cycles_of(instruction_loops(i, self.limits)), i
        assert len(cycles) == len(self.program) - 1
        return len(cycles)


def test_linears_of_random_sizes() -> None:
    rng, compared = np.random.default_rng(1), 0
    for rows, epilogue in itertools.product((1, 2, 15, 16, 17, 63, 200), Epilogue):
        bench = LoopsBench()
        gelu = {"shift2": 1} if epilogue == Epilogue.GELU else {}
        for bits in (2, 5, 8):
            fan_in, out = (int(n) for n in rng.integers(1, 200, 2))
            bench.put(Opcode.LINEAR, epilogue=epilogue, weight_bits=bits, shift=1, rows=rows,
                      in_channels=fan_in, out_channels=out, **gelu)  # fmt: skip
        compared += bench.compare()
    assert compared == 7 * 4 * 5


@pytest.mark.parametrize(("rows", "out", "groups"), [(600, 210, 3), (1300, 70, 3), (275, 250, 2)])
def test_linears_whose_sums_fill_the_accumulators_several_times(rows: int, out: int, groups: int) -> None:
    """Groups of 3, 1 and 7 tiles of outputs: they begin at even ones and at odd ones."""
    bench = LoopsBench()
    fit = bench.limits.accumulator_rows // 2 // -(-rows // 2)
    assert -(-layout.tiles(out) // fit) == groups
    bench.put(Opcode.LINEAR, epilogue=Epilogue.INT16, weight_bits=4, shift=1, rows=rows, in_channels=32,
              out_channels=out)  # fmt: skip
    assert bench.compare() == 3


def test_other_instructions_of_random_sizes() -> None:
    rng, compared = np.random.default_rng(2), 0
    for _ in range(30):
        bench, number = LoopsBench(), lambda low, high: int(rng.integers(low, high, endpoint=True))
        bench.put(Opcode.LOAD, rows=number(1, 99), out_channels=number(1, 99))
        bench.put(Opcode.LAYERNORM, rows=number(1, 99), in_channels=number(1, 256), shift=1, epsilon=1)
        heads, head = number(1, 3), 32 * number(1, 2)
        keys = number(1, 130)
        start = number(0, keys - 1)
        bench.put(Opcode.ATTENTION, rows=number(1, keys - start), row_start=start, keys=keys, heads=heads,
                  in_channels=3 * heads * head, out_channels=heads * head, shift=1, shift2=1)  # fmt: skip
        experts = number(1, 32)
        bench.put(Opcode.GATE, rows=number(1, 99), in_channels=number(1, 256), experts=experts,
                  top_k=number(1, min(4, experts)), shift=1)  # fmt: skip
        height, width, lines = number(1, 12), number(1, 12), number(1, 5)
        lines = min(lines, height)
        bench.put(Opcode.CONV3X3, rows=lines * width, row_start=(height - lines) * width,
                  in_channels=number(1, 70), out_channels=number(1, 70), weight_bits=number(2, 8),
                  height=height, width=width, shift=1)  # fmt: skip
        bench.put(Opcode.UPSAMPLE2X, rows=4 * height * width, in_channels=number(1, 99), height=height,
                  width=width)  # fmt: skip
        compared += bench.compare()
    assert compared == 30 * 8


@pytest.mark.parametrize(
    ("height", "width", "patch"), [(1, 1, 1), (3, 5, 1), (9, 3, 3), (10, 15, 5), (14, 21, 7), (8, 512, 8),
                                   (13, 26, 13), (32, 48, 16), (45, 30, 15)]
)  # fmt: skip
def test_patches(height: int, width: int, patch: int) -> None:
    assert LoopsBench(np.zeros((height, width, 3), np.uint8), patch).compare() == 2


def run_experts(chosen: np.ndarray, experts: int, width: int, hidden: int, bits: tuple[int, int]) -> int:
    """One EXPERTS with this choice; how many experts were empty."""
    bench, (rows, top_k) = LoopsBench(), chosen.shape
    fields = {"rows": rows, "in_channels": width, "out_channels": width, "hidden_channels": hidden,
              "experts": experts, "top_k": top_k}  # fmt: skip
    i = Instruction(opcode=Opcode.EXPERTS, **fields)
    beats = opcodes.expert_beats(i, ExpertEntry(bits1=bits[0], bits2=bits[1]))
    entry = ExpertEntry(**bench.block(bytes(layout.BEAT * beats)), bits1=bits[0], bits2=bits[1], shift1=1,
                        shift2=1, gelu_shift=1)  # fmt: skip
    places = {region.field: bench.reserve(region.size) for region in opcodes.regions(i)}
    places["routing"] = bench.place(routing_bytes(chosen, np.zeros(chosen.shape, np.int16)))
    bench.emit(Opcode.EXPERTS, **fields, **places, **bench.block(encode(entry) * experts))
    cycles, crowds = bench.run()[-2], crowds_of(chosen.tolist(), experts)
    dropped = assert_experts_equal(i, [entry] * experts, crowds, cycles)
    empty = sum(not any(crowd) for crowd in crowds)
    assert dropped <= empty
    return empty


def test_experts_of_random_routing() -> None:
    """Rows of one parity, of both, of none; each expert's groups of outputs."""
    rng, compared, empty = np.random.default_rng(3), 0, 0
    for rows, experts, top_k in itertools.product((1, 2, 9, 40, 129), (1, 8, 32), (1, 2, 3, 4)):
        if top_k <= experts:
            chosen = np.stack([rng.permutation(experts)[:top_k] for _ in range(rows)])
            width, hidden = (int(n) for n in rng.integers(1, 160, 2))
            bits = tuple(int(n) for n in rng.integers(2, 9, 2))
            empty += run_experts(chosen, experts, width, hidden, bits)
            compared += 1
    assert compared == 45
    assert empty > 100


@pytest.mark.parametrize("parity", [0, 1])
def test_experts_with_rows_of_one_parity(parity: int) -> None:
    chosen = np.where(np.arange(41)[:, None] % 2 == parity, 2, 0)
    assert crowds_of(chosen.tolist(), 3)[2] == ((21, 0) if parity == 0 else (0, 20))
    assert run_experts(chosen, 3, 48, 70, (8, 8)) == 1


def test_all_rows_on_one_expert_fill_the_accumulators_twice() -> None:
    """288 rows: 144 pairs, so 7 of the 8 tiles of outputs fit."""
    assert run_experts(np.full((288, 1), 5), 8, 256, 64, (8, 3)) == 7


def test_the_benchmark_shows_both_counts() -> None:
    network = random_network(small_config(num_experts=2))
    row = benchmark_csim("small", network, random_images(network.config, 1)[0], "depth", repeats=1)
    assert row.estimated_loops == row.cycles > 0
    assert row.estimated > row.cycles
    assert csim_table([row]).endswith(f"| {row.cycles:,} | {row.cycles:,} | {row.estimated:,.0f} |")
