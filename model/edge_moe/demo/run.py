# SPDX-License-Identifier: Apache-2.0
"""``edge-moe demo``: from training to every backend on the same pictures, and a report.

Each step runs once: after an interruption the demo continues where it was. The report is written only when
all backends agree to the bit.
"""

import functools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_moe.accelerator import load_accelerator
from edge_moe.checkpoint import BEST
from edge_moe.config import load_preset
from edge_moe.demo import backends as demo_backends
from edge_moe.demo import flow as demo_flow
from edge_moe.demo.backends import BOARD, REFERENCE
from edge_moe.demo.cycles import estimate_tasks
from edge_moe.demo.flow import ACCELERATOR, PRESET, Trained
from edge_moe.demo.folder import Folder
from edge_moe.demo.pictures import FORMS, draw_results
from edge_moe.demo.published import compare_published
from edge_moe.demo.report import write_report
from edge_moe.demo.steps import Steps
from edge_moe.places import CHECKOUT
from edge_moe_host.config import to_dict
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import write_text
from edge_moe_host.runtime.record import load_record

REPORT, RESULTS = "report.html", "results.json"
BOARD_PYTHON = Path(".venv-board/bin/python")
NO_BOARD = "the simulated board was left out, as there is no {python} with pynq: " + (
    "make .venv-board/.ready sets it up, then run the demo again"
    if CHECKOUT
    else "pip install 'edge-moe-host[board,images]' into another environment, then run the demo again with "
    "--board-python and its Python"
)
_LOG = logging.getLogger(__name__)
_STEPS = 13  # with training and the board

Values = dict[str, Any]


@dataclass(frozen=True)
class DemoOptions:
    """``checkpoint``: use this trained model. ``pictures``: how many each backend runs. ``board_python``:
    Python of the environment with pynq. ``compared``: a checkpoint to use instead of the packaged one in the
    comparison with published accelerators."""

    checkpoint: Path | None = None
    pictures: int = 6
    board_python: Path = BOARD_PYTHON
    compared: Path | None = None


def run_demo(out: Path, options: DemoOptions | None = None) -> Path:
    """Run every step that is not done yet; return the report's file.

    Raises EdgeMoEError when a step cannot be done or backends differ; there is no report then.
    """
    options = options or DemoOptions()
    if options.pictures < 1:
        raise EdgeMoEError(f"count = {options.pictures} is not allowed: show at least 1 picture.")
    return _Demo(out, options).run()


class _Demo:
    def __init__(self, out: Path, options: DemoOptions) -> None:
        self.folder, self.options = Folder(out), options
        self.report = out / REPORT
        self.has_board = demo_backends.has_pynq(options.board_python)
        training, board = options.checkpoint is None, self.has_board
        self.steps = Steps(out / "steps", _STEPS - (not training) - (not board), self.report)

    def run(self) -> Path:
        # first, as it needs a compiler: a missing one must not show only after minutes of training
        _LOG.info("the C simulation is brought up to date")
        library = demo_flow.build_simulation()
        checkpoint = self._checkpoint()
        trained = demo_flow.open_trained(checkpoint)
        results: Values = {
            "folder": str(self.folder.path),
            "checkpoint": str(checkpoint),
            "data": trained.data,
        }
        results |= self._flow(trained, demo_flow.file_hash(checkpoint))
        results |= self._backends(results, library)
        results |= self._figures(trained, results)
        results["model"] = _described(trained)
        results["seconds"] = {self.steps.titles[name]: spent for name, spent in self.steps.seconds.items()}
        write_text(self.folder.path / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
        write_report(self.report, self.folder, results)
        return self.report

    def _checkpoint(self) -> Path:
        if self.options.checkpoint is not None:
            return self.options.checkpoint
        best = self.folder.run / BEST
        preset = json.dumps(to_dict(load_preset(PRESET)), sort_keys=True)
        self.steps.run(
            "train",
            f"train {PRESET} on {demo_flow.DATA}",
            lambda: demo_flow.train(self.folder),
            preset,
            (best,),
        )
        return best

    def _flow(self, trained: Trained, weights: str) -> Values:
        """From checkpoint to bundle."""
        folder, count = self.folder, self.options.pictures
        inputs = f"{weights} {demo_flow.source_hash()} {load_accelerator(ACCELERATOR).hash()}"
        metrics = tuple(folder.path / f"metrics.{form}.json" for form in ("float", "integer"))
        return {
            "quantise": self.steps.run(
                "quantise",
                "quantise to 8-bit integers",
                lambda: demo_flow.quantise(folder, trained),
                inputs,
                (folder.network,),
            ),
            "metrics": self.steps.run(
                "measure",
                "measure float and integer form",
                lambda: demo_flow.measure(folder, trained),
                made=metrics,
            ),
            "export": self.steps.run(
                "export",
                "export path.onnx of each task, compared with golden",
                lambda: demo_flow.export(folder, trained, count),
                f"{count}",
                (folder.graphs,),
            ),
            "compile": self.steps.run(
                "compile",
                "compile one bundle, compared with onnxruntime",
                lambda: demo_flow.compile_tasks(folder, trained, count),
                made=(folder.bundle,),
            ),
            "pictures": self.steps.run(
                "images",
                f"choose {count} validation pictures",
                lambda: demo_flow.choose_images(folder, trained, count),
                made=(folder.images,),
            ),
        }

    def _backends(self, results: Values, library: str) -> Values:
        """The same pictures everywhere, and their comparison."""
        folder = self.folder
        done, skipped = {}, None
        for name in (REFERENCE, "onnx", "csim"):
            work = functools.partial(demo_backends.run_backend, folder, name)
            done[name] = self._backend_step(name, work, library)
        if self.has_board:
            work = functools.partial(demo_backends.run_board, folder, self.options.board_python)
            done[BOARD] = self._backend_step(BOARD, work, library)
        else:
            skipped = NO_BOARD.format(python=self.options.board_python)
            _LOG.info("    %s", skipped)
        records = {name: load_record(folder.record(name)) for name in done}
        try:
            counts = demo_backends.compare(records, results["pictures"]["names"])
        except EdgeMoEError:
            self.report.unlink(missing_ok=True)  # it would say that they agree
            raise
        total = sum(sum(by_task.values()) for by_task in counts.values())
        _LOG.info("    %s values compared with golden: all are equal", f"{total:,}")
        return {"backends": done, "compared": counts, "skipped": skipped}

    def _backend_step(self, name: str, work: Callable[[], Values], library: str) -> Values:
        title = f"run {demo_backends.NAMES[name]}: {demo_backends.TITLES[name]}"
        return self.steps.run(f"run-{name}", title, work, library, (self.folder.record(name),))

    def _figures(self, trained: Trained, results: Values) -> Values:
        folder, options = self.folder, self.options
        shown = results["pictures"]
        drawings = [folder.drawing(name, "input") for name in shown["names"]]
        drawings += [
            folder.drawing(name, task, form)
            for name in shown["names"]
            for task in trained.tasks
            for form in FORMS
        ]
        rooflines = tuple(map(folder.roofline, trained.tasks))
        return {
            "drawn": self.steps.run(
                "draw",
                "draw the results",
                lambda: draw_results(folder, trained, shown),
                made=tuple(drawings),
            ),
            "estimate": self.steps.run(
                "estimate",
                "cycles and memory traffic of every instruction",
                lambda: estimate_tasks(folder),
                made=rooflines,
            ),
            "published": self.steps.run(
                "published",
                "cycles of the packaged model",
                lambda: compare_published(options.pictures, options.compared),
                f"{options.compared}",
            ),
        }


def _described(trained: Trained) -> Values:
    config = trained.preset.model
    return {
        "name": trained.preset.name,
        "image_size": list(config.image_size),
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "moe_blocks": list(config.moe_blocks),
        "experts": config.num_experts,
        "top_k": config.top_k,
        "tasks": trained.tasks,
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
    }
