# SPDX-License-Identifier: Apache-2.0
"""What routing buys: single-task, dense multi-task and three MoE models of equal encoder cost.

All variants have the same preset, recipe, data and seeds; only the routing differs. The baseline of
Delta_m is the dense single-task models of the same seed. Finished runs are not repeated and
interrupted ones resume, so the command can be stopped and given again.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from edge_moe.config import ModelConfig, Preset, to_toml
from edge_moe.eval.metrics import delta_m
from edge_moe.tasks import TASKS
from edge_moe_host.config import to_dict
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import write_text

Routing = Literal["dense", "single_gate", "multi_gate", "task_conditioned"]
Metrics = dict[str, dict[str, float]]
SINGLE_TASK = "single-task"
ROUTINGS: dict[str, Routing] = {
    "dense multi-task": "dense",
    "single gate": "single_gate",
    "multi-gate": "multi_gate",
    "task-conditioned": "task_conditioned",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run of the comparison."""

    variant: str
    seed: int
    model: ModelConfig

    @property
    def folder(self) -> str:
        """Folder name of the run; that of a single-task run contains its task."""
        task = f"-{next(iter(self.model.tasks))}" if self.variant == SINGLE_TASK else ""
        return f"{self.variant.replace(' ', '-')}{task}-seed{self.seed}"


def plan(preset: Preset, seeds: int) -> list[Run]:
    """All runs: per seed one dense model per task, then each routing with all tasks."""
    runs = []
    for seed in range(seeds):
        for task, channels in preset.model.tasks.items():
            single = dataclasses.replace(preset.model.dense_twin(), tasks={task: channels})
            runs.append(Run(SINGLE_TASK, seed, single))
        for variant, routing in ROUTINGS.items():
            model = preset.model.dense_twin() if routing == "dense" else preset.model
            runs.append(Run(variant, seed, dataclasses.replace(model, routing=routing)))
    return runs


def run_ablation(preset: Preset, data: str, out: Path, seeds: int = 3, jobs: int = 2) -> str:
    """Train and evaluate every run, write ``results.json`` and ``results.md`` to ``out``.

    Returns the table. ``jobs`` runs at a time, one thread each, so that results do not depend on
    the number of cores. Raises EdgeMoEError when a run fails, with its last message.
    """
    if seeds < 1 or jobs < 1:
        raise EdgeMoEError(f"seeds = {seeds} and jobs = {jobs} must both be at least 1.")
    runs = plan(preset, seeds)
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda run: _train_and_evaluate(run, preset, data, out), runs))
    table = tabulate(preset, runs, results)
    content = {
        "preset": to_dict(preset),
        "data": data,
        "runs": [
            {"variant": r.variant, "seed": r.seed, "metrics": m} for r, m in zip(runs, results, strict=True)
        ],
    }
    write_text(out / "results.json", json.dumps(content, indent=1) + "\n")
    write_text(out / "results.md", table + "\n")
    return table


def _train_and_evaluate(run: Run, preset: Preset, data: str, out: Path) -> Metrics:
    """Metrics of one run, from its file if that exists."""
    folder = out / run.folder
    report = folder / "metrics.json"
    if not report.is_file():
        train = dataclasses.replace(preset.train, seed=run.seed)
        variant = dataclasses.replace(preset, name=run.folder, model=run.model, train=train)
        config = out / f"{run.folder}.toml"
        write_text(config, to_toml(variant))
        resume = ["--resume"] if (folder / "last.pt").is_file() else []
        _call(["train", str(config), "--data", data, "--out", str(folder), "--val-every", "5", *resume])
        _call(["eval", str(folder / "last.pt"), "--data", data, "--json", str(report)])
        print(f"{run.folder} done", file=sys.stderr)
    metrics: Metrics = json.loads(report.read_text(encoding="utf-8"))["metrics"]
    return metrics


def _call(arguments: Sequence[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edge_moe", *arguments, "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise EdgeMoEError(f"'edge-moe {' '.join(arguments)}' failed: {lines[-1] if lines else 'no message'}")


def tabulate(preset: Preset, runs: Sequence[Run], results: Sequence[Metrics]) -> str:
    """Markdown: mean ± sample standard deviation over seeds of each headline metric and Delta_m."""
    by_seed: dict[str, dict[int, Metrics]] = {}
    for run, metrics in zip(runs, results, strict=True):
        by_seed.setdefault(run.variant, {}).setdefault(run.seed, {}).update(metrics)
    baseline = by_seed[SINGLE_TASK]
    columns = [(task, metric) for task in preset.model.tasks for metric in baseline[0][task]]
    arrows = {True: "↑", False: "↓"}
    header = " | ".join(
        f"{task} {metric}" + (arrows[TASKS[task].higher_is_better] if metric == TASKS[task].headline else "")
        for task, metric in columns
    )
    lines = [f"| model | {header} | Δm % |", "|---|" + "---:|" * (len(columns) + 1)]
    for variant, seeds in by_seed.items():
        cells = [_spread([seeds[seed][task][metric] for seed in seeds]) for task, metric in columns]
        deltas = [delta_m(seeds[seed], baseline[seed]) for seed in seeds]
        lines.append(f"| {variant} | {' | '.join(cells)} | {_spread(deltas, sign='+')} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], sign: str = "") -> str:
    mean = format(statistics.fmean(values), f"{sign}.4g")
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean
