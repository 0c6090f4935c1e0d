# SPDX-License-Identifier: Apache-2.0
"""The training loop: steps, validation, checkpoints, interruption and resumption.

Every random draw is a function of (seed, epoch), (seed, epoch, index) or (seed, step, rank), so a
checkpoint needs no random state and a resumed run repeats an uninterrupted one bit for bit on a
CPU, given the same number of threads and processes.

The best checkpoint is replaced when the mean over tasks of the signed relative change of the
headline metric against the current best is positive.
"""

import contextlib
import logging
import math
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from edge_moe import distributed
from edge_moe.checkpoint import (
    Checkpoint,
    Metrics,
    check_resumable,
    initialise_from,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from edge_moe.config import Preset
from edge_moe.data import TaskDataset, open_dataset
from edge_moe.data.loader import epoch_batches, steps_per_epoch
from edge_moe.data.transforms import Augmentation
from edge_moe.eval.evaluate import evaluate
from edge_moe.nn import M3ViT, build_model
from edge_moe.quant.fake import FakeQuantiser, load_grids
from edge_moe.tasks import TASKS
from edge_moe.train.gradients import pcgrad_gradients, summed_gradients, task_order
from edge_moe.train.losses import task_loss
from edge_moe.train.monitor import Monitor, StepReport
from edge_moe.train.optim import Ema, build_optimizer, learning_rate, set_learning_rate
from edge_moe_host.config import to_dict
from edge_moe_host.errors import EdgeMoEError

LAST, BEST = "last.pt", "best.pt"
_MODEL_STREAM, _PCGRAD_STREAM = 1, 2
_log = logging.getLogger(__name__)


class TrainingInterrupted(EdgeMoEError):  # noqa: N818 - requested, not an error
    """Ctrl-C or SIGTERM; the state is saved. ``exit_code`` is the shell's for an interrupt."""

    exit_code = 130


class _StopValidation(Exception):  # noqa: N818 - a signal, not an error
    """Leaves a validation when the run is asked to stop."""


class Trainer:
    """One training run in the folder ``out``.

    Args:
        preset: model and recipe.
        data: data specification, see :func:`edge_moe.data.open_dataset`.
        out: folder for checkpoints and logs; must be empty or absent unless ``resume``.
        resume: continue from ``out/last.pt``.
        init: checkpoint of the same model or of its dense twin to start from.
        quantised: network made by ``edge-moe quantise``; every forward pass rounds to its grids
            (quantisation-aware fine-tuning).
        device: this rank's device, see :func:`edge_moe.distributed.start`.
        max_steps: stop (with a checkpoint) after this many steps in total; the schedule still spans
            ``train.epochs``.
        val_every: validate every ``val_every`` epochs, and after the last.

    Raises EdgeMoEError for bad input of any kind.
    """

    def __init__(
        self,
        preset: Preset,
        data: str,
        out: Path,
        resume: bool = False,
        init: Path | None = None,
        device: torch.device | None = None,
        max_steps: int | None = None,
        val_every: int = 1,
        quantised: Path | None = None,
    ) -> None:
        train = preset.train
        if train.step_mode == "per_task" and train.gradient_method == "pcgrad":
            raise EdgeMoEError(
                "train.gradient_method = 'pcgrad' compares the tasks' gradients of one step: "
                "it needs train.step_mode = 'summed'."
            )
        if val_every < 1:
            raise EdgeMoEError(f"val_every = {val_every} is not allowed: it must be at least 1.")
        self.preset, self.data, self.out = preset, data, Path(out)
        self.device = device or torch.device("cpu")
        self.max_steps, self.val_every = max_steps, val_every
        self.is_main = distributed.rank() == 0
        if quantised is not None and init is None:
            raise EdgeMoEError(
                "fine-tuning with --quantised starts from trained weights: give --init, or --resume alone."
            )
        self._check_folder(resume, init)
        self.train_set, self.val_set = (self._open(split) for split in ("train", "val"))
        self.steps_per_epoch = steps_per_epoch(
            len(self.train_set), train.batch_size, distributed.world_size()
        )
        self.total_steps = train.epochs * self.steps_per_epoch
        self.augmentation = Augmentation(train, preset.model.image_size, self.train_set.depth_kind)
        self.tasks = list(preset.model.tasks)

        torch.manual_seed(train.seed)
        model = build_model(preset.model)
        if init is not None:
            initialise_from(model, Path(init))
        self.step, self.validated = 0, True
        self.metrics: Metrics = {}
        self.best: dict[str, Any] = {}
        self.grids = None if quantised is None else load_grids(quantised, preset.model)
        checkpoint = load_checkpoint(self.out / LAST) if resume else None
        if checkpoint is not None:
            check_resumable(checkpoint, preset, data, self.out / LAST)
            load_weights(model, checkpoint.model, self.out / LAST)
            if checkpoint.quantisation is not None:
                self.grids = FakeQuantiser.from_plain(checkpoint.quantisation)
        if self.device.type == "cuda" and distributed.is_parallel():
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model: M3ViT = model.to(self.device)
        distributed.broadcast_state(self.model)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(self.model, train)
        self.ema: Ema | None = None
        if train.ema_decay > 0:
            average = build_model(preset.model).to(self.device)
            average.load_state_dict(self.model.state_dict())
            self.ema = Ema(average, train.ema_decay)
        if self.grids is not None:
            for trained in [self.model] if self.ema is None else [self.model, self.ema.model]:
                self.grids.install(cast(M3ViT, trained))
        if checkpoint is not None:
            self._restore(checkpoint)
        self._stop_requested = False
        self._in_validation = False

    def fit(self) -> Metrics:
        """Train to the end of the schedule (or ``max_steps``); returns the last validation's metrics.

        Raises TrainingInterrupted after Ctrl-C, and EdgeMoEError for a loss that is not finite.
        """
        self.monitor = Monitor(
            self.out if self.is_main else None, self.preset, self.steps_per_epoch, self.step
        )
        with contextlib.closing(self.monitor), self._signals():
            if self.step == 0:
                self._save_last()  # also checks at once that the folder can be written
            if not self.validated:
                self._finish_epoch()
            while self.step < self.total_steps and not self._at_limit():
                self._train_epoch()
        distributed.wait_for_all()  # rank 0 has written when any rank returns
        return self.metrics

    def _train_epoch(self) -> None:
        epoch, done = divmod(self.step, self.steps_per_epoch)
        self.model.train()
        self.monitor.start_epoch(epoch, self.step)
        batches = epoch_batches(
            self.train_set,
            self.preset.train,
            self.augmentation,
            epoch,
            done,
            distributed.rank(),
            distributed.world_size(),
            pin_memory=self.device.type == "cuda",
        )
        for batch in batches:
            report = self._train_step(batch)
            self.step += 1
            self.validated = self.step % self.steps_per_epoch != 0
            self.monitor.train_step(self.step, report)
            if report.stop:
                self._stop()
            if self._at_limit():
                break
        if self.validated:
            self._save_last()
        else:
            self._finish_epoch()

    def _train_step(self, batch: Mapping[str, Tensor]) -> StepReport:
        """Forward, backward and update for one batch."""
        train = self.preset.train
        batch = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        lr = learning_rate(train, self.step, self.total_steps)
        set_learning_rate(self.optimizer, lr)
        torch.manual_seed(_stream_seed(_MODEL_STREAM, train.seed, self.step, distributed.rank()))
        groups = (
            [[task] for task in task_order(self.tasks, self.step)]
            if train.step_mode == "per_task"
            else [self.tasks]
        )
        reports = [self._update(batch, tasks, lr) for tasks in groups]
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        losses = {task: loss for report in reports for task, loss in report.losses.items()}
        return StepReport(
            {task: losses[task] for task in self.tasks},
            sum(report.balance for report in reports) / len(reports),
            max(report.grad_norm for report in reports),
            lr,
            reports[-1].stop,
        )

    def _update(self, batch: Mapping[str, Tensor], tasks: Sequence[str], lr: float) -> StepReport:
        """One optimizer step on the losses of ``tasks``."""
        train = self.preset.train
        amp = train.amp and self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=amp):
            output = self.model(batch["image"], tasks)
        losses = {task: task_loss(task, output.predictions[task], batch[task]) for task in tasks}
        weighted = {task: train.loss_weight(task) * loss for task, loss in losses.items()}
        balance = train.balance_weight * output.balance_loss
        self.optimizer.zero_grad(set_to_none=True)
        if train.gradient_method == "pcgrad" and len(tasks) > 1:
            generator = torch.Generator().manual_seed(_stream_seed(_PCGRAD_STREAM, train.seed, self.step, 0))
            pcgrad_gradients(self.parameters, weighted, balance, generator)
        else:
            summed_gradients(self.parameters, weighted, balance)
        limit = train.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.parameters, limit)
        report = self._report(losses, output.balance_loss, norm, lr)
        self._require_finite(report)
        self.optimizer.step()
        return report

    def _report(self, losses: Mapping[str, Tensor], balance: Tensor, norm: Tensor, lr: float) -> StepReport:
        """Means over ranks, moved to the CPU in one go."""
        stop = torch.tensor(float(self._stop_requested), device=self.device)
        vector = torch.stack([*losses.values(), balance, norm.float(), stop]).detach()
        values = (distributed.sum_over_ranks(vector) / distributed.world_size()).tolist()
        return StepReport(dict(zip(losses, values, strict=False)), values[-3], values[-2], lr, values[-1] > 0)

    def _require_finite(self, report: StepReport) -> None:
        """Stop before an update that would damage the weights."""
        values = {f"{name} loss": value for name, value in report.losses.items()}
        values |= {"balance loss": report.balance, "gradient norm": report.grad_norm}
        wrong = [f"the {name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if not wrong:
            return
        train, epoch = self.preset.train, self.step // self.steps_per_epoch
        clip = (
            f"lower train.grad_clip (now {train.grad_clip:g})" if train.grad_clip else "set train.grad_clip=1"
        )
        raise EdgeMoEError(
            f"training stopped at step {self.step + 1} (epoch {epoch + 1}): {wrong[0]}; try a lower train.lr "
            f"(now {train.lr:g}), more train.warmup_steps (now {train.warmup_steps}), or {clip}; "
            f"the last good checkpoint is '{self.out / LAST}'."
        )

    def _finish_epoch(self) -> None:
        """Validate if it is due, keep the best, save."""
        self.monitor.end_epoch(self.step)
        epoch = self.step // self.steps_per_epoch
        if epoch % self.val_every == 0 or self.step == self.total_steps:
            stopped = self._validate() if self.is_main else False
            if distributed.agree(int(stopped)):
                self._stop()
        self.validated = True
        self._save_last()

    def _validate(self) -> bool:
        """Metrics of the (average) model on the validation split; True if a stop was asked for."""
        model = self.model if self.ema is None else self.ema.model
        try:
            self._in_validation = True
            if self._stop_requested:
                return True
            result = evaluate(model, self.val_set, self.tasks, progress=sys.stderr.isatty())
        except _StopValidation:
            return True
        finally:
            self._in_validation = False
        self.metrics = result.metrics
        is_best = not self.best or improvement(result.metrics, self.best["metrics"]) > 0
        if is_best:
            self.best = {"step": self.step, "metrics": result.metrics}
            weights_only = {key: value for key, value in self._content().items() if key != "optimizer"}
            save_checkpoint(self.out / BEST, weights_only)
        self.monitor.validation(self.step, result, is_best)
        return False

    def _save_last(self) -> None:
        if self.is_main:
            save_checkpoint(self.out / LAST, self._content())

    def _content(self) -> dict[str, Any]:
        return {
            "preset": to_dict(self.preset),
            "data": self.data,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epoch": self.step // self.steps_per_epoch,
            "validated": self.validated,
            "metrics": self.metrics,
            "best": self.best,
            "quantisation": None if self.grids is None else self.grids.to_plain(),
        }

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Everything but the weights, which the model has already."""
        self.step, self.validated = checkpoint.step, checkpoint.validated
        self.metrics, self.best = checkpoint.metrics, checkpoint.best
        if checkpoint.optimizer is not None:
            self.optimizer.load_state_dict(checkpoint.optimizer)
        if self.ema is not None and checkpoint.ema is not None:
            load_weights(self.ema.model, checkpoint.ema, self.out / LAST)

    def _check_folder(self, resume: bool, init: Path | None) -> None:
        if resume and init is not None:
            raise EdgeMoEError("--init starts a new run and --resume continues one: give one of them.")
        if resume:
            if not (self.out / LAST).is_file():
                raise EdgeMoEError(f"nothing to resume: folder '{self.out}' has no {LAST}.")
            return
        if not self.is_main:
            return
        if self.out.exists() and not self.out.is_dir():
            raise EdgeMoEError(f"output '{self.out}' is a file: give a folder.")
        if self.out.is_dir() and any(self.out.iterdir()):
            raise EdgeMoEError(
                f"output folder '{self.out}' is not empty: choose another, or continue its run with --resume."
            )
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EdgeMoEError(f"cannot make output folder '{self.out}': {error.strerror}.") from None

    def _open(self, split: str) -> TaskDataset:
        model, train = self.preset.model, self.preset.train
        return open_dataset(
            self.data, split, model.tasks, model.image_size, train.train_images, train.val_images
        )

    def _at_limit(self) -> bool:
        return self.max_steps is not None and self.step >= self.max_steps

    def _stop(self) -> None:
        self.monitor.close_bar()
        self._save_last()
        epoch = self.step / self.steps_per_epoch
        raise TrainingInterrupted(
            f"interrupted after step {self.step} of {self.total_steps} (epoch {epoch:.2f}): the state is in "
            f"'{self.out / LAST}'; add --resume to the same command to continue."
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a stop after the current step; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def handle(number: int, _: FrameType | None) -> None:
            self._stop_requested = True
            signal.signal(number, previous[signal.Signals(number)])
            if self._in_validation:
                raise _StopValidation

        for number in previous:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def run_training(preset: Preset, data: str, out: Path, device: str = "auto", **options: Any) -> Metrics:
    """Train in this process, or as one rank of ``torchrun``; ``options``: those of :class:`Trainer`."""
    place = distributed.start(device)
    try:
        return Trainer(preset, data, out, device=place, **options).fit()
    finally:
        distributed.stop()


def improvement(metrics: Metrics, reference: Metrics) -> float:
    """Mean over tasks of the signed relative change of the headline metric; > 0 is better."""
    changes = []
    for task, values in metrics.items():
        spec = TASKS[task]
        new, old = values[spec.headline], reference[task][spec.headline]
        change = (new - old) / max(abs(old), 1e-6)
        changes.append(change if spec.higher_is_better else -change)
    return sum(changes) / len(changes)


def _stream_seed(*words: int) -> int:
    """Seed of an independent random stream."""
    low, high = np.random.SeedSequence(words).generate_state(2)
    return (int(high) << 31 | int(low)) & (2**63 - 1)
