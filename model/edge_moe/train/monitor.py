# SPDX-License-Identifier: Apache-2.0
"""Reports of a run: a progress bar, lines of text, ``log.jsonl`` and TensorBoard files.

``log.jsonl`` has one object per line. ``kind`` is ``train`` (every 10 steps: mean ``loss`` per task,
``balance`` and ``grad_norm`` over the last 10 steps, ``lr``, ``images_per_s``) or ``val``
(``metrics``, whether they are the ``best``, and ``usage``: the share of the routed tokens per task,
MoE block and expert); all have ``step`` and ``epoch``.
"""

import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edge_moe.config import Preset
from edge_moe.eval.evaluate import EvaluationResult
from edge_moe.train.folder import BOARD, LOG
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import write_text

LOG_EVERY = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """Numbers of one training step, means over all ranks."""

    losses: dict[str, float]  # per task, before weighting
    balance: float
    grad_norm: float  # before clipping
    lr: float
    stop: bool  # some rank was asked to stop


class Monitor:
    """Reports of rank 0; on other ranks (``out`` None) every method does nothing."""

    def __init__(
        self, out: Path | None, preset: Preset, steps_per_epoch: int, step: int, validated: bool = True
    ) -> None:
        """``step``: how many are done; ``validated``: no validation of this step is to be repeated."""
        self.out = out
        self.preset = preset
        self.steps_per_epoch = steps_per_epoch
        self.window: deque[StepReport] = deque(maxlen=LOG_EVERY)
        self.since, self.window_steps = time.perf_counter(), 0
        self.bar: Any = None
        self.board: Any = None
        if out is not None:
            # Slow to import and of no use to other ranks.
            from torch.utils.tensorboard import SummaryWriter

            drop_lines_after(out / LOG, step, validated)
            self.board = SummaryWriter(str(out / BOARD), purge_step=step + 1 if step else None)

    def start_epoch(self, epoch: int, step: int) -> None:
        """Open the bar of a (0-based) epoch that begins, or continues, at ``step``."""
        if self.out is None:
            return
        batch = self.preset.train.batch_size
        self.bar = tqdm(
            desc=f"epoch {epoch + 1}/{self.preset.train.epochs}",
            total=self.steps_per_epoch * batch,
            initial=(step - epoch * self.steps_per_epoch) * batch,
            unit="img",
            disable=None,  # no bar where stderr is a file
            leave=False,
            dynamic_ncols=True,
        )
        self.since, self.window_steps = time.perf_counter(), 0

    def train_step(self, step: int, report: StepReport) -> None:
        """Take in the report of a step; ``step`` counts completed steps."""
        if self.out is None:
            return
        self.window.append(report)
        self.window_steps += 1
        losses = {task: _mean([r.losses[task] for r in self.window]) for task in report.losses}
        if self.bar is not None:
            self.bar.set_postfix(
                {task: f"{v:.3f}" for task, v in losses.items()} | {"lr": f"{report.lr:.1e}"}, refresh=False
            )
            self.bar.update(self.preset.train.batch_size)
        if step % LOG_EVERY:
            return
        now = time.perf_counter()
        rate = self.window_steps * self.preset.train.batch_size / (now - self.since)
        self.since, self.window_steps = now, 0
        values = {
            "lr": report.lr,
            "balance": _mean([r.balance for r in self.window]),
            "grad_norm": _mean([r.grad_norm for r in self.window]),
            "images_per_s": rate,
        }
        self._write("train", step, {"loss": losses, **values})
        for task, loss in losses.items():
            self.board.add_scalar(f"loss/{task}", loss, step)
        for name, value in values.items():
            self.board.add_scalar(f"train/{name}", value, step)

    def end_epoch(self, step: int) -> None:
        """Close the bar and summarise the epoch in a line."""
        if self.out is None:
            return
        self.close_bar()
        if self.window:
            losses = {task: _mean([r.losses[task] for r in self.window]) for task in self.window[-1].losses}
            text = "  ".join(f"{task} {loss:.4f}" for task, loss in losses.items())
            epoch = step // self.steps_per_epoch
            _log.info("epoch %d/%d, step %d: loss %s", epoch, self.preset.train.epochs, step, text)

    def validation(self, step: int, result: EvaluationResult, is_best: bool) -> None:
        """Report metrics and expert usage of a validation."""
        if self.out is None:
            return
        shares = {
            task: {
                str(block): [round(value, 5) for value in (row / max(1, row.sum())).tolist()]
                for block, row in zip(result.blocks, counts, strict=True)
            }
            for task, counts in result.usage.items()
            if result.blocks
        }
        self._write("val", step, {"metrics": result.metrics, "usage": shares, "best": is_best})
        for task, values in result.metrics.items():
            for name, value in values.items():
                self.board.add_scalar(f"val/{task}/{name}", value, step)
            _log.info("  %s: %s", task, "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
        for task, blocks in shares.items():
            for block, row in blocks.items():
                for expert, value in enumerate(row):
                    self.board.add_scalar(f"usage/{task}/block{block}/expert{expert}", value, step)
        if is_best:
            _log.info("  best so far")
        self.board.flush()

    def close_bar(self) -> None:
        """Remove the bar, so that text can follow."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def close(self) -> None:
        """Finish all reports."""
        self.close_bar()
        if self.board is not None:
            with contextlib.suppress(OSError):  # a full disk, of which log.jsonl has told
                self.board.close()

    def _write(self, kind: str, step: int, content: Mapping[str, Any]) -> None:
        assert self.out is not None
        line = {"kind": kind, "step": step, "epoch": step / self.steps_per_epoch, **content}
        try:
            with open(self.out / LOG, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise EdgeMoEError(f"cannot write '{self.out / LOG}': {error.strerror or error}.") from None


def drop_lines_after(path: Path, step: int, validated: bool = True) -> None:
    """Remove the lines that a stopped run wrote after its last checkpoint, which may await a validation."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
            if values["step"] < step + (validated or values["kind"] == "train"):
                kept.append(line + "\n")
        except ValueError:
            continue  # a line cut short by the kill
    write_text(path, "".join(kept))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
