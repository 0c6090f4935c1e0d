# SPDX-License-Identifier: Apache-2.0
"""The cycle model: cases counted by hand, laws that it must keep, and the budget of the tiny model."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bundles import compile_network, small_accelerator, small_config
from edge_moe.compiler.accelerator import AcceleratorConfig, load_accelerator
from edge_moe.compiler.estimate import (
    Estimate,
    estimate_images,
    estimate_table,
    estimate_task,
    measured_routing,
    title,
    uniform_routing,
)
from edge_moe.compiler.inspect import inspect_bundle, operands
from edge_moe.compiler.pipeline import Pipeline, Step, attention_cycles, instruction_steps, run_experts
from edge_moe.compiler.plot import plot_estimates
from edge_moe.config import load_preset
from edge_moe.errors import EdgeMoEError
from edge_moe.golden import Trace, run_network
from edge_moe.info import task_cost
from edge_moe_host.bundle import Bundle, used_sections
from edge_moe_host.isa import ExpertEntry, Instruction, Opcode
from networks import random_images, random_network

FAST = small_accelerator(memory_bytes_per_cycle=2**20, memory_latency=1, fifo_bytes=2**24)


def cycles(instruction: Instruction, accelerator: AcceleratorConfig = FAST) -> float:
    """Time of one instruction alone, without the drain."""
    pipeline = Pipeline(accelerator)
    for step in instruction_steps(instruction, accelerator):
        pipeline.step(step)
    return pipeline.unit


# By hand


def test_linear_by_hand() -> None:
    """6 x 18 tiles of 65 cycles; the first tile's 8 planes and 2 parameter words come before."""
    qkv = Instruction(opcode=Opcode.LINEAR, weight_bits=8, rows=129, in_channels=192, out_channels=576)
    assert cycles(qkv) == pytest.approx(6 * 18 * 65 + 10, abs=1.1)
    # 16 rows take 8 cycles, as long as 8 planes: parameters show
    short = dataclasses.replace(qkv, rows=16)
    assert cycles(short) == pytest.approx(6 * 18 * 8 + 27 + 8, abs=1.1)
    # with 4 planes they hide
    assert cycles(dataclasses.replace(short, weight_bits=4)) == pytest.approx(6 * 18 * 8 + 6, abs=1.1)
    # one row: the planes alone count
    assert cycles(dataclasses.replace(short, rows=1)) == pytest.approx(6 * 18 * 8 + 27 + 1, abs=1.1)


def test_memory_bound_linear_by_hand() -> None:
    """One row at 32 bytes per cycle: 4 cycles per word, 150 until the first."""
    accelerator = small_accelerator(memory_bytes_per_cycle=32)
    linear = Instruction(opcode=Opcode.LINEAR, weight_bits=8, rows=1, in_channels=64, out_channels=64)
    words = 4 * 8 + 3
    assert cycles(linear, accelerator) == pytest.approx(150 + 4 * words + 8 + 1)


def test_other_instructions_by_hand() -> None:
    conv = Instruction(opcode=Opcode.CONV3X3, weight_bits=8, rows=512, in_channels=64, out_channels=64)
    assert cycles(conv) == pytest.approx(2 * 18 * 256 + 10, abs=1.1)
    gate = Instruction(opcode=Opcode.GATE, rows=129, in_channels=192, experts=16)
    assert cycles(gate) == pytest.approx(6 * 65 + 129 + 10, abs=1.1)
    norm = Instruction(opcode=Opcode.LAYERNORM, rows=129, in_channels=192)
    assert cycles(norm) == pytest.approx(129 * 6 + 2, abs=1.1)
    upsample = Instruction(opcode=Opcode.UPSAMPLE2X, rows=512, in_channels=40)
    assert cycles(upsample) == 512
    patches = Instruction(opcode=Opcode.PATCHES, height=128, width=256)
    assert cycles(patches) == 128 * 256 * 3 / 16 + FAST.memory_latency
    store = Instruction(opcode=Opcode.STORE, rows=2048, in_channels=9)
    assert cycles(store) == 2048 * 32 / 16 + FAST.memory_latency
    load = Instruction(opcode=Opcode.LOAD, weight_beats=774)
    assert cycles(load) == pytest.approx(774 + 2, abs=1.1)


def test_attention_by_hand() -> None:
    """3 heads, 5 blocks of keys, QK and AV of 2 tiles and 65 pairs; then a load and the averages."""
    tiny = Instruction(opcode=Opcode.ATTENTION, rows=129, keys=129, heads=3, out_channels=192)
    assert attention_cycles(tiny, FAST) == 3 * 5 * 4 * 65 + 64 + 2 * 65
    few = Instruction(opcode=Opcode.ATTENTION, rows=9, keys=9, heads=3, out_channels=192)
    assert attention_cycles(few, FAST) == 3 * 64 + 64 + 10


def test_the_reader_runs_ahead_as_far_as_the_fifo_is_deep() -> None:
    """While the unit is busy for 1000 cycles, 8 words of 4 cycles each arrive, and no more."""
    accelerator = small_accelerator(
        memory_bytes_per_cycle=32, fifo_bytes=16 * 128, memory_latency=100, fifo_read_bytes=128
    )
    pipeline = Pipeline(accelerator)
    pipeline.step(Step(2, 1000))  # arrives at 108, is taken by 110
    assert (pipeline.reader, pipeline.unit) == (108, 1110)
    pipeline.step(Step(8, 10))  # fills the other registers at once
    assert (pipeline.reader, pipeline.loader, pipeline.unit) == (140, 148, 1120)
    pipeline.step(Step(8, 10))
    pipeline.step(Step(8, 10))
    assert pipeline.reader == 140 + 2 * 32  # the FIFO holds both
    assert (pipeline.unit, pipeline.waited) == (1140, 110)  # 8 cycles of filling hide behind 10 of work
    pipeline.step(Step(8, 10))  # room from 1118 on, when the first of the two has left
    assert (pipeline.reader, pipeline.loader) == (1118 + 32, 1118 + 32 + 8)
    assert (pipeline.unit, pipeline.waited) == (1158 + 10, 110 + 1158 - 1140)


def test_empty_experts_are_skipped_unless_they_were_read_already() -> None:
    accelerator = small_accelerator()
    i = Instruction(
        opcode=Opcode.EXPERTS, rows=8, in_channels=32, out_channels=32, hidden_channels=32, experts=4,
        weight_beats=4,
    )  # fmt: skip
    table = (ExpertEntry(weight_beats=40, bits1=8, bits2=8),) * 4
    words = 20

    early = Pipeline(accelerator)
    assert run_experts(early, i, table, [4, 0, 0, 4], accelerator) == 0
    assert early.words_read == 2 + 2 * words

    late = Pipeline(accelerator)
    late.unit = 10_000.0  # the gate is done long after the reader could have read all experts
    assert run_experts(late, i, table, [4, 0, 0, 4], accelerator) == 2
    assert late.words_read == 2 + 4 * words
    with pytest.raises(ValueError, match="zip"):
        run_experts(late, i, table, [4, 0, 0], accelerator)


# Laws


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    network = random_network(load_preset("mini").model)
    return compile_network(network, tmp_path_factory.mktemp("mini"))[0]


def on(bundle: Bundle, **changes: int) -> Estimate:
    """The same programs on an accelerator of other rates."""
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
        assert all(0 <= timing.waited <= timing.cycles + 1e-6 for timing in estimate.timings)


@pytest.mark.parametrize(
    ("name", "values", "strictly"),
    [
        ("memory_bytes_per_cycle", (1, 2, 4, 8), True),
        ("fifo_read_bytes", (16, 32, 64, 128), True),
        ("fifo_bytes", (2048, 8192, 65536, 262144), False),
        ("vector_channels", (8, 16, 32), True),
        ("io_bytes_per_cycle", (4, 8, 16), True),
    ],
)
def test_more_is_never_slower(name: str, values: tuple[int, ...], strictly: bool, mini: Bundle) -> None:
    slow = {"memory_bytes_per_cycle": 8} if name == "fifo_bytes" else {}
    times = [on(mini, **{**slow, name: value}).cycles for value in values]
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]
    assert len(set(times)) == len(times) or not strictly


def test_more_cycles_of_drain_and_latency_are_slower(mini: Bundle) -> None:
    base = on(mini)
    assert on(mini, memory_latency=1150).cycles > base.cycles + 1000
    count = sum(timing.instruction.opcode != Opcode.END for timing in base.timings)
    experts = [t.instruction.experts for t in base.timings if t.instruction.opcode == Opcode.EXPERTS]
    drains = count - len(experts) + 2 * sum(experts)
    longer = on(mini, pipeline_cycles=41, memory_bytes_per_cycle=2**20)
    shorter = on(mini, pipeline_cycles=40, memory_bytes_per_cycle=2**20)
    assert longer.cycles - shorter.cycles == pytest.approx(drains)


# Routing


def test_uniform_routing_gives_all_rows(mini: Bundle) -> None:
    program = mini.task("depth")
    routing = uniform_routing(program)
    assert len(routing) == 2
    for index, rows in routing.items():
        i = program.instructions[index]
        assert sum(rows) == i.rows * i.top_k == 258
        assert max(rows) - min(rows) <= 1


def test_measured_routing_is_goldens(tmp_path: Path) -> None:
    network = random_network(small_config(depth=4, num_experts=6))
    bundle, _ = compile_network(network, tmp_path)
    images = random_images(network.config, 3)
    routings = measured_routing(bundle, "depth", images)
    assert len(routings) == 3
    for image, routing in zip(images, routings, strict=True):
        trace = Trace()
        run_network(network, image[None], "depth", trace)
        expected = [np.bincount(trace.tensors[f"block{b}.gate.expert"].ravel(), minlength=6) for b in (1, 3)]
        assert [list(rows) for rows in routing.values()] == [list(rows) for rows in expected]
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
    assert sum(float(row[26:37].replace(",", "")) for row in rows) == pytest.approx(estimate.cycles, abs=10)


def test_inspection_shows_every_instruction(mini: Bundle) -> None:
    text = inspect_bundle(mini.path)
    for task in mini.tasks.values():
        assert f"task {task.name}: {len(task.instructions)} instructions" in text
    lines = inspect_bundle(mini.path, "depth").splitlines()
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
        inspect_bundle(mini.path, "edge")
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


@pytest.mark.parametrize(("bits", "megabytes"), [(8, 19), (4, 12)])
def test_tiny_fits_its_budget(bits: int, megabytes: int, tmp_path: Path) -> None:
    """Two tasks of M3ViT-tiny on the zcu104: size of the bundle, scratch memory, cycles of a frame."""
    network = random_network(load_preset("m3vit_tiny_cityscapes").model, expert_bits=bits)
    bundle, report = compile_network(network, tmp_path, accelerator=load_accelerator("zcu104"))
    assert report.total_bytes == sum(path.stat().st_size for path in bundle.path.iterdir())
    assert report.total_bytes <= megabytes * 10**6
    assert report.total_bytes >= 0.95 * megabytes * 10**6
    for task in bundle.tasks:
        estimate = estimate_task(bundle, task)
        assert report.scratch[task] == (262144, 262144)
        assert 470_000 <= estimate.cycles <= 580_000
        assert estimate.milliseconds < 2.0
        assert estimate.macs == task_cost(network.config, task).macs
