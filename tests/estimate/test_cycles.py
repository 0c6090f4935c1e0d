# SPDX-License-Identifier: Apache-2.0
"""The cycle model: cases counted by hand, laws that it must keep, and the budget of the tiny model."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_moe.accelerator import load_accelerator
from edge_moe.commands.inspect import inspect_bundle, operands
from edge_moe.config import load_preset
from edge_moe.estimate.cycles import (
    Estimate,
    estimate_images,
    estimate_table,
    estimate_task,
    measured_routing,
    title,
    uniform_routing,
)
from edge_moe.estimate.loops import (
    Crowd,
    Expert,
    Loop,
    crowds_of,
    cycles_of,
    experts_loops,
    instruction_loops,
    patch_moves,
)
from edge_moe.estimate.roofline import plot_estimates
from edge_moe.estimate.waiting import Timeline
from edge_moe.info import task_cost
from edge_moe.quant.network import run_network
from edge_moe.testing.bundles import compile_network, small_accelerator, small_config
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.contract.bundle import Bundle, used_sections
from edge_moe_host.contract.isa import Epilogue, ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.layout import tiles
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.trace import Trace

ZCU104 = load_accelerator("zcu104")


def loops(instruction: Instruction) -> int:
    """Cycles of one instruction's loops."""
    return cycles_of(instruction_loops(instruction, ZCU104))


# By hand


def test_linear_by_hand() -> None:
    """The first tile's 8 planes and 2 planes of parameters, then 6 x 18 passes of 65 pairs, 40 of depth; 8 to
    set up the loop, 8 the instruction."""
    qkv = Instruction(opcode=Opcode.LINEAR, weight_bits=8, rows=129, in_channels=192, out_channels=576)
    assert loops(qkv) == 10 + 6 * 18 * 65 + 40 + 16
    # 16 pairs outlast 10 planes; 8 do not outlast the parameters of the 9 odd and 8 even tiles that follow
    assert loops(dataclasses.replace(qkv, rows=32)) == 10 + 6 * 18 * 16 + 56
    assert loops(dataclasses.replace(qkv, rows=16)) == 10 + 6 * 18 * 8 + 9 * 1 + 8 * 2 + 56
    assert loops(dataclasses.replace(qkv, rows=1)) == loops(dataclasses.replace(qkv, rows=16))
    # an accumulator is free again after 8 cycles, however few planes there are
    assert loops(dataclasses.replace(qkv, rows=1, weight_bits=2)) == 4 + 6 * 18 * 8 + 56
    # a row and tile a cycle, once the sums are there: of tiles 0 to 14, then from the odd one 15 on
    residual = dataclasses.replace(qkv, epilogue=Epilogue.RESIDUAL)
    assert loops(residual) == loops(qkv) + 129 * 18 + 2 * 12 + 8 + 9 + 40


def test_other_instructions_by_hand() -> None:
    conv = Instruction(opcode=Opcode.CONV3X3, weight_bits=8, rows=512, in_channels=64, out_channels=64)
    assert loops(conv) == 10 + 2 * 18 * 256 + 40 + 16
    gate = Instruction(opcode=Opcode.GATE, rows=129, in_channels=192, experts=16)
    assert loops(gate) == 10 + 6 * 65 + 40 + (17 + 1) * (16 + 4) + 4 + 40 + 16
    norm = Instruction(opcode=Opcode.LAYERNORM, rows=129, in_channels=192)
    assert loops(norm) == 6 + 3 + 12 + 130 * 6 + 24 + 30 + 8
    upsample = Instruction(opcode=Opcode.UPSAMPLE2X, rows=512, in_channels=40, height=8, width=16)
    assert loops(upsample) == 2 * 8 * 2 * (16 + 2) + 12 + 8
    store = Instruction(opcode=Opcode.STORE, rows=2048, in_channels=9)
    assert loops(store) == 2048 * 2 + 12 + 8
    load = Instruction(opcode=Opcode.LOAD, rows=129, out_channels=192)
    assert loops(load) == 129 * 6 + 12 + 8
    assert loops(Instruction(opcode=Opcode.END)) == 0


def test_patches_by_hand() -> None:
    """Lines of a patch are 24 bytes. Four lines are 3 times 32 bytes, in 8 pieces of 16 or 8 bytes: 16 pieces
    per patch, 512 cycles for 32 patches, while 385 transfers of the next 8 lines come in."""
    patches = Instruction(opcode=Opcode.PATCHES, height=128, width=256, patch=8)
    assert patch_moves(patches, ZCU104) == 16
    assert loops(patches) == 64 + 12 + 17 * (32 * 16 + 12) + 8
    small = Instruction(opcode=Opcode.PATCHES, height=2, width=2, patch=2)
    assert patch_moves(small, ZCU104) == 2
    assert loops(small) == 8 + 12 + 2 * (2 + 12) + 8


def test_attention_by_hand() -> None:
    """3 heads of 2 tiles, 5 blocks of keys: a pass of 65 pairs for each tile of K and of V; before that a
    pass of 40 cycles for each tile of the first block."""
    tiny = Instruction(opcode=Opcode.ATTENTION, rows=129, keys=129, heads=3, out_channels=192)
    assert loops(tiny) == 9 + 12 + 2 * 40 + 2 * 2 * 3 * 5 * 65 + 40 + 16
    few = Instruction(opcode=Opcode.ATTENTION, rows=9, keys=9, heads=3, out_channels=192)
    assert loops(few) == 9 + 12 + 2 * 40 + 2 * 2 * 3 * 40 + 40 + 16


def test_attention_whose_queries_go_in_parts_by_hand() -> None:
    """144 accumulators of pairs: with one tile of K they hold the averages of 144 queries; with two a query
    needs 2 averages and a logit, so they hold 48."""
    accelerator = small_accelerator(accumulator_rows=288)
    one = Instruction(opcode=Opcode.ATTENTION, rows=288, keys=288, heads=1, out_channels=32)
    assert cycles_of(instruction_loops(one, accelerator)) == 2 + 12 + 8 + 40 + 2 * 9 * 144 + 40 + 8
    two = dataclasses.replace(one, out_channels=64)
    part = 8 + 2 * (40 + 2 * 9 * 48) + 40
    assert cycles_of(instruction_loops(two, accelerator)) == 3 + 12 + 3 * part + 8


def test_experts_by_hand() -> None:
    """Two linears each, the first with a pair for each row of the parity that has more; and an empty one."""
    i = Instruction(
        opcode=Opcode.EXPERTS, rows=101, top_k=1, in_channels=64, out_channels=64, hidden_channels=96,
        experts=3,
    )  # fmt: skip
    entry = ExpertEntry(weight_beats=2 * 107, bits1=8, bits2=8)
    met = [Expert(entry, Crowd(40, 20), True), Expert(entry, Crowd(11, 30), True)]
    queues = 101 + 2 * 51 + 32 + 48
    first = 8 + 10 + 6 * 40 + 40 + 8 + 10 + 6 * 30 + 40 + 60 * 2 + 12
    second = 8 + 10 + 6 * 30 + 40 + 8 + 10 + 6 * 21 + 40 + 41 * 2 + 12
    for fetched, dropped in ((False, 0), (True, 107)):
        empty = Expert(entry, Crowd(0, 0), fetched)
        assert cycles_of(experts_loops(i, iter([*met, empty]), ZCU104)) == (
            queues + first + second + 8 + dropped + 12 + 8
        )


# Waiting


def test_a_loop_waits_for_planes_that_have_not_come() -> None:
    """One plane in 4 cycles, the first after 150: then the loop can continue."""
    accelerator = small_accelerator(memory_bytes_per_cycle=32, memory_latency=150)
    pipeline = Timeline(accelerator)
    linear = Instruction(opcode=Opcode.LINEAR, weight_bits=8, rows=1, in_channels=64, out_channels=64,
                         weight_beats=2 * 35)  # fmt: skip
    pipeline.instruction(linear)
    record = 150 + 64 / 16
    # planes: 10 for the first tile, 8, 9 and 8 in the passes after it; the last pass of 8 cycles needs none
    assert pipeline.now == record + 150 + 4 * 35 + 1 + 8 + 40 + 8
    assert pipeline.loops == loops(linear)
    assert pipeline.waited == pipeline.now - pipeline.loops
    assert pipeline.planes_read == 35


def test_the_reader_runs_ahead_as_far_as_the_fifo_is_deep() -> None:
    """While a loop is busy for 1000 cycles, 16 planes of 4 cycles each arrive, and no more."""
    accelerator = small_accelerator(memory_bytes_per_cycle=32, fifo_bytes=16 * 128, memory_latency=100)
    pipeline = Timeline(accelerator)
    pipeline.run(Loop(1000, planes=2))  # arrive at 4 and 8
    assert (pipeline.reader, pipeline.now, pipeline.waited) == (8, 1007, 7)
    pipeline.run(Loop(10, planes=8))
    pipeline.run(Loop(10, planes=8))
    assert pipeline.reader == 8 + 2 * 32  # the FIFO holds both
    assert (pipeline.now, pipeline.waited) == (1027, 7)
    pipeline.run(Loop(10, planes=8))  # room from 1014 on, when the last of the first 8 leaves
    assert pipeline.reader == 1014 + 32
    assert (pipeline.now, pipeline.waited) == (1046 - 7 + 10, 7 + 1046 - 7 - 1027)


def test_load_takes_a_plane_every_other_cycle() -> None:
    """As fast as they arrive: the loop waits only for the first one."""
    pipeline = Timeline(small_accelerator(memory_bytes_per_cycle=64, memory_latency=100))
    load = Instruction(opcode=Opcode.LOAD, rows=100, out_channels=64, weight_beats=200)
    pipeline.instruction(load)
    assert (pipeline.reader, pipeline.planes_read) == (104 + 100 + 2 * 100, 100)
    assert pipeline.now == 104 + 100 + 2 + 200 + 12 + 8
    assert pipeline.loops == loops(load) == 220


def test_image_program_and_result_pass_the_memory() -> None:
    """A record takes 150 + 4 cycles; the image's first pixels and the result's last ones 150 more each."""
    pipeline = Timeline(ZCU104)
    patches = Instruction(opcode=Opcode.PATCHES, height=8, width=32, patch=8)
    pipeline.instruction(patches)
    plan = 4 * 16 + 12
    assert (pipeline.now, pipeline.waited) == (154 + 150 + loops(patches) - plan, 154 + 150 - plan)
    store, waited = Instruction(opcode=Opcode.STORE, rows=4, in_channels=9), pipeline.waited
    now = max(pipeline.now, 2 * 154)
    pipeline.instruction(store)
    assert pipeline.now == now + loops(store) + 150
    assert pipeline.waited == pipeline.now - pipeline.loops > waited


def test_empty_experts_are_skipped_unless_they_were_read_already() -> None:
    i = Instruction(
        opcode=Opcode.EXPERTS, rows=8, top_k=1, in_channels=32, out_channels=32, hidden_channels=32,
        experts=4, weight_beats=4,
    )  # fmt: skip
    table = (ExpertEntry(weight_beats=40, bits1=8, bits2=8),) * 4
    crowds = [Crowd(2, 2), Crowd(0, 0), Crowd(0, 0), Crowd(2, 2)]
    planes = 20

    early = Timeline(ZCU104)
    assert early.experts(i, table, crowds) == 0
    assert early.planes_read == 2 * planes

    late = Timeline(ZCU104)
    late.now = 10_000.0  # the gate is done long after the reader could have read all experts
    assert late.experts(i, table, crowds) == 2
    assert late.planes_read == 4 * planes
    assert late.loops == early.loops + 2 * planes
    with pytest.raises(ValueError, match="zip"):
        late.experts(i, table, crowds[:3])


def test_experts_are_announced_as_far_ahead_as_channels_and_fifo_reach() -> None:
    """FIFO and bursts hold 16 + 672 planes, so 6 of 40 experts of 104 planes; the 7th is being cut to bursts,
    4 wait for that, and 1 waits to be announced. Later ones are examined when the routing is known."""
    i = Instruction(
        opcode=Opcode.EXPERTS, rows=8, top_k=1, in_channels=64, out_channels=64, hidden_channels=96,
        experts=40, weight_beats=40,
    )  # fmt: skip
    table = (ExpertEntry(weight_beats=2 * 104, bits1=8, bits2=8),) * 40
    late = Timeline(small_accelerator(fifo_bytes=16 * 128))
    late.now = 100_000.0
    in_vain = late.experts(i, table, [Crowd(0, 0)] * 39 + [Crowd(4, 4)])
    assert in_vain == 6 + 1 + 4 + 1
    assert late.planes_read == 104 * (in_vain + 1)


# Laws


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    network = random_network(load_preset("mini").model)
    return compile_network(network, tmp_path_factory.mktemp("mini"))[0]


def on(bundle: Bundle, **changes: int) -> Estimate:
    """The same programs on an accelerator with other rates."""
    configuration = bundle.manifest.accelerator
    changed = dataclasses.replace(configuration, config={**configuration.config, **changes})
    return estimate_task(
        dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, accelerator=changed)),
        "semseg",
    )


def test_macs_are_those_of_the_configuration(mini: Bundle) -> None:
    model = load_preset("mini").model
    for task in model.tasks:
        assert estimate_task(mini, task).macs == task_cost(model, task).macs


def test_all_weights_are_read_once(mini: Bundle) -> None:
    for task in mini.tasks.values():
        estimate = estimate_task(mini, task.name)
        assert estimate.in_vain == 0
        assert estimate.weight_bytes == 64 * sum(s.beats for s in set(used_sections(mini, task)))
        io = 128 * 256 * 3 + task.entry.output.row_bytes * 32 * 64
        assert estimate.memory_bytes == estimate.weight_bytes + io + 64 * len(task.instructions)


def test_no_frame_is_faster_than_its_floors(mini: Bundle) -> None:
    for rate in (4, 16, 48, 128):
        estimate = on(mini, memory_bytes_per_cycle=rate)
        assert estimate.cycles > estimate.macs / estimate.peak_macs
        assert estimate.cycles > estimate.weight_floor
        assert 0 < estimate.utilisation < 1
        starts = [timing.start for timing in estimate.timings]
        assert starts == [0.0, *(timing.end for timing in estimate.timings[:-1])]
        assert all(timing.waited >= 0 for timing in estimate.timings)
        for timing in estimate.timings:
            assert timing.cycles == pytest.approx(timing.loops + timing.waited)
        assert estimate.cycles == pytest.approx(estimate.loops + estimate.waited)


def test_loops_do_not_depend_on_the_memory(mini: Bundle) -> None:
    base = [timing.loops for timing in on(mini).timings]
    for changes in ({"memory_bytes_per_cycle": 4}, {"memory_latency": 1000}, {"fifo_bytes": 2048}):
        slow = on(mini, **changes)
        assert [timing.loops for timing in slow.timings] == base
        assert slow.waited > on(mini).waited


@pytest.mark.parametrize(
    ("name", "values", "strictly"),
    [
        ("memory_bytes_per_cycle", (1, 2, 4, 8), True),
        ("fifo_bytes", (2048, 8192, 65536, 262144), False),
        ("io_bytes_per_cycle", (4, 8, 16), True),
    ],
)
def test_more_is_never_slower(name: str, values: tuple[int, ...], strictly: bool, mini: Bundle) -> None:
    slow = {"memory_bytes_per_cycle": 8} if name == "fifo_bytes" else {}
    times = [on(mini, **{**slow, name: value}).cycles for value in values]
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]
    assert len(set(times)) == len(times) or not strictly


def test_deeper_pipelines_and_latency_are_slower(mini: Bundle) -> None:
    base = on(mini)
    assert on(mini, memory_latency=1150).cycles > base.cycles + 2000
    count = dict.fromkeys(Opcode, 0)
    for timing in base.timings:
        count[Opcode(timing.instruction.opcode)] += max(timing.instruction.experts, 1)
    gates = sum(timing.instruction.opcode == Opcode.GATE for timing in base.timings)
    # a linear drains once, GATE's choice too, an expert's two linears twice; attention is also filled once
    drains = count[Opcode.LINEAR] + count[Opcode.CONV3X3] + 2 * gates + 2 * count[Opcode.EXPERTS]
    heads = {tiles(t.instruction.out_channels // t.instruction.heads) for t in base.timings
             if t.instruction.heads}  # fmt: skip
    assert heads == {1}
    assert on(mini, pipeline_cycles=41).loops - base.loops == drains + 2 * count[Opcode.ATTENTION]


# Routing


def test_uniform_routing_gives_all_rows(mini: Bundle) -> None:
    program = mini.task("depth")
    routing = uniform_routing(program)
    assert len(routing) == 2
    for index, crowds in routing.items():
        i = program.instructions[index]
        assert (i.rows, i.top_k, len(crowds)) == (129, 2, i.experts)
        evens, odds = ([crowd[parity] for crowd in crowds] for parity in (0, 1))
        assert (sum(evens), sum(odds)) == (2 * 65, 2 * 64)
        for rows in (evens, odds, list(map(sum, crowds))):
            assert max(rows) - min(rows) <= 1


def test_crowds_of_a_choice() -> None:
    assert crowds_of([[0, 2], [2, 1], [2, 0]], 4) == [(2, 0), (0, 1), (2, 1), (0, 0)]


def test_measured_routing_is_goldens(tmp_path: Path) -> None:
    network = random_network(small_config(depth=4, num_experts=6))
    bundle, _ = compile_network(network, tmp_path)
    images = random_images(network.config, 3)
    routings = measured_routing(bundle, "depth", images)
    assert len(routings) == 3
    for image, routing in zip(images, routings, strict=True):
        trace = Trace()
        run_network(network, image[None], "depth", trace)
        expected = [
            [np.bincount(chosen[parity::2].ravel(), minlength=6).tolist() for parity in (0, 1)]
            for chosen in (trace.tensors[f"block{b}.gate.expert"][0] for b in (1, 3))
        ]
        assert [list(map(list, zip(*crowds, strict=True))) for crowds in routing.values()] == expected
    estimates = estimate_images(bundle, "depth", images)
    assert [e.macs for e in estimates] == [estimate_task(bundle, "depth").macs] * 3
    with pytest.raises(EdgeMoEError, match="there are no images"):
        estimate_images(bundle, "depth", images[:0])
    with pytest.raises(EdgeMoEError, match="task 'edge' is not in"):
        estimate_task(bundle, "edge")


# Text and pictures


def test_the_table_adds_up(mini: Bundle) -> None:
    estimate = estimate_task(mini, "semseg")
    text = estimate_table(estimate)
    assert f"semseg: {estimate.cycles:,.0f} cycles, {estimate.milliseconds:.3f} ms at 300 MHz" in text
    assert "not measured" in text
    kinds = {title(timing.instruction) for timing in estimate.timings}
    rows = [line for line in text.splitlines() if line.startswith(tuple(kinds))]
    assert len(rows) == len(kinds)
    assert sum(int(row[20:26]) for row in rows) == len(estimate.timings)
    for start, end, total in ((26, 37, estimate.cycles), (37, 48, estimate.loops), (48, 58, estimate.waited)):
        assert sum(float(row[start:end].replace(",", "")) for row in rows) == pytest.approx(total, abs=10)
    last = next(line for line in text.splitlines() if line.startswith("all "))
    assert last.split()[2:5] == [f"{estimate.cycles:,.0f}", f"{estimate.loops:,}", f"{estimate.waited:,.0f}"]


def test_inspection_shows_every_instruction(mini: Bundle) -> None:
    text = inspect_bundle(mini.path)
    for task in mini.tasks.values():
        assert f"task {task.name}: {len(task.instructions)} instructions" in text
    lines = inspect_bundle(mini.path, ["depth"]).splitlines()
    numbered = [line for line in lines if line[:4].strip().isdigit()]
    assert len(numbered) == len(mini.task("depth").instructions)
    for line, i in zip(numbered, mini.task("depth").instructions, strict=True):
        assert Opcode(i.opcode).name in line
        assert line.endswith(operands(i))
    assert "block1.qkv" in text
    assert operands(Instruction(opcode=Opcode.STORE, rows=3, in_channels=2, src=64)) == (
        "rows=3 in_channels=2 src=0x00040"
    )
    with pytest.raises(EdgeMoEError, match="task 'edge' is not in"):
        inspect_bundle(mini.path, ["edge"])
    with pytest.raises(EdgeMoEError, match="is not a folder"):
        inspect_bundle(mini.path / "none")


def test_plots(mini: Bundle, tmp_path: Path) -> None:
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG")):
        path = tmp_path / f"plot{suffix}"
        plot_estimates([estimate_task(mini, "depth")], path)
        assert path.read_bytes().startswith(start)
    assert (tmp_path / "plot.svg").read_bytes().count(b"<path") > 100
    with pytest.raises(EdgeMoEError, match=r"must end in \.svg, \.png or \.pdf"):
        plot_estimates([], tmp_path / "plot.txt")


# The model that the accelerator is built for


def routing_of(bundle: Bundle, task: str, choose: Callable[[int], Sequence[int]]) -> dict[int, list[Crowd]]:
    """The experts that ``choose`` gives for a row, in every layer."""
    return {
        index: crowds_of([choose(row) for row in range(i.rows)], i.experts)
        for index, i in enumerate(bundle.task(task).instructions)
        if i.opcode == Opcode.EXPERTS
    }


@pytest.mark.parametrize(("bits", "megabytes"), [(8, 19), (4, 12)])
def test_tiny_fits_its_budget(bits: int, megabytes: int, tmp_path: Path) -> None:
    """Two tasks of M3ViT-tiny on the zcu104: size of the bundle, scratch memory, and cycles of a frame with
    all waits, if each of the 16 experts has rows."""
    network = random_network(load_preset("m3vit_tiny_cityscapes").model, expert_bits=bits)
    bundle, report = compile_network(network, tmp_path, accelerator=ZCU104)
    assert report.total_bytes == sum(path.stat().st_size for path in bundle.path.iterdir())
    assert report.total_bytes <= megabytes * 10**6
    assert report.total_bytes >= 0.95 * megabytes * 10**6
    rng = np.random.default_rng(0)
    for task in bundle.tasks:
        assert (report.codes[task].scratch_bytes, report.codes[task].live_bytes) == (262144, 262144)
        # even rows on half of the experts, odd ones on the others: no row has a partner
        apart = routing_of(
            bundle, task, lambda row: [8 * (row % 2) + (row + step) // 2 % 8 for step in (0, 2)]
        )
        assert {min(crowd) for crowds in apart.values() for crowd in crowds} == {0}
        drawn = routing_of(bundle, task, lambda _: rng.permutation(16)[:2].tolist())
        for routing in (uniform_routing(bundle.task(task)), drawn, apart):
            estimate = estimate_task(bundle, task, routing)
            assert estimate.in_vain == 0
            assert 500_000 <= estimate.cycles <= 600_000
            assert estimate.milliseconds <= 2.0
            assert estimate.macs == task_cost(network.config, task).macs
