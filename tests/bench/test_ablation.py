# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from edge_moe import EdgeMoEError
from edge_moe.bench import ablation
from edge_moe.bench.dispatch import benchmark_dispatch, dispatch_table
from edge_moe.bench.rendering import benchmark_rendering, rendering_table
from edge_moe.config import load_preset, to_toml
from edge_moe.info import encoder_cost

TINY = [
    "model.image_size=[32, 64]", "model.embed_dim=16", "model.num_heads=2", "model.depth=2",
    "model.head_channels=8", "model.num_experts=4", "train.train_images=8", "train.val_images=2",
    "train.batch_size=4", "train.epochs=1",
]  # fmt: skip


def test_plan_compares_models_of_equal_encoder_cost():
    preset = load_preset("mini")
    runs = ablation.plan(preset, 3)
    assert len(runs) == 3 * (2 + 4)
    assert len({run.folder for run in runs}) == len(runs)
    assert {run.seed for run in runs} == {0, 1, 2}
    singles = [run for run in runs if run.variant == ablation.SINGLE_TASK]
    assert all(len(run.model.tasks) == 1 and run.model.routing == "dense" for run in singles)
    reference = encoder_cost(preset.model.dense_twin()).macs
    for run in runs:  # gates alone set them apart: D x E products per token and MoE block
        assert encoder_cost(run.model).macs == pytest.approx(reference, rel=0.02)


def test_run_presets_survive_the_file(tmp_path):
    preset = load_preset("mini", ["train.seed=3"])
    path = tmp_path / "x.toml"
    path.write_text(to_toml(preset))
    assert load_preset(str(path)) == preset


def test_table_has_means_spreads_and_delta_m():
    preset = load_preset("mini")
    runs = ablation.plan(preset, 2)
    results = []
    for run in runs:
        better = run.variant == "multi-gate"
        miou = (0.5 + 0.1 * run.seed) * (1.1 if better else 1.0)
        values = {"semseg": {"mIoU": miou}, "depth": {"rmse": 4.0 * (0.9 if better else 1.0)}}
        results.append({task: values[task] for task in run.model.tasks})
    lines = ablation.tabulate(preset, runs, results).splitlines()
    assert lines[0] == "| model | semseg mIoU↑ | depth rmse↓ | Δm % |"
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines[2:]}
    assert list(rows) == [ablation.SINGLE_TASK, *ablation.ROUTINGS]
    assert [cell.strip() for cell in rows["single-task"]] == ["0.55 ± 0.071", "4 ± 0", "+0 ± 0"]
    assert rows["multi-gate"][2].strip().startswith("+10 ± ")


def test_a_comparison_runs_and_does_not_repeat_what_is_done(tmp_path, monkeypatch):
    preset = load_preset("mini", TINY)
    monkeypatch.setattr(ablation, "ROUTINGS", {"multi-gate": "multi_gate"})
    first = ablation.run_ablation(preset, "scenes", tmp_path, seeds=1, jobs=2)
    content = json.loads((tmp_path / "results.json").read_text())
    assert [run["variant"] for run in content["runs"]] == ["single-task", "single-task", "multi-gate"]
    assert (tmp_path / "results.md").read_text() == first + "\n"

    def never(*_: object) -> None:
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(ablation, "_call", never)
    assert ablation.run_ablation(preset, "scenes", tmp_path, seeds=1, jobs=1) == first


def test_a_failing_run_is_one_sentence(tmp_path):
    with pytest.raises(EdgeMoEError, match=r"'edge-moe train .* failed: edge-moe: unknown data"):
        ablation.run_ablation(load_preset("mini", TINY), "imagenet", tmp_path, seeds=1, jobs=1)
    with pytest.raises(EdgeMoEError, match="seeds = 0"):
        ablation.run_ablation(load_preset("mini", TINY), "scenes", tmp_path, seeds=0)


def test_dispatch_benchmark_reports_ratios_to_its_first_row():
    rows = benchmark_dispatch(((4, 2), (8, 2)), preset="mini", repeats=1)
    assert [(row.num_experts, row.top_k) for row in rows] == [(4, 2), (8, 2)]
    assert rows[0].ratio == 1.0
    assert rows[1].ratio == pytest.approx(rows[1].milliseconds / rows[0].milliseconds)
    assert len(dispatch_table(rows).splitlines()) == 6


def test_rendering_benchmark_reports_rates_and_ratios():
    rows = benchmark_rendering({"a": {"depth": 1}, "b": {"semseg": 7}}, images=1, repeats=1)
    assert [row.labels for row in rows] == ["a", "b"]
    assert rows[0].ratio == 1.0
    assert rows[1].ratio == pytest.approx(rows[0].images_per_second / rows[1].images_per_second)
    assert len(rendering_table(rows).splitlines()) == 6
