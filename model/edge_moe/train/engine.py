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
import shlex
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from edge_moe import distributed
from edge_moe.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    Metrics,
    check_resumable,
    load_weights,
    save_checkpoint,
)
from edge_moe.config import Preset, to_toml
from edge_moe.data import TaskDataset, open_dataset
from edge_moe.data.loader import epoch_batches, steps_per_epoch
from edge_moe.data.transforms import Augmentation
from edge_moe.eval.evaluate import evaluate
from edge_moe.importers import initialise
from edge_moe.nn import M3ViT, build_model
from edge_moe.quant.fake import FakeQuantiser, load_grids
from edge_moe.settings import require
from edge_moe.tasks import TASKS
from edge_moe.train.folder import (
    CONFIG,
    CURVES,
    LOG,
    SAMPLES,
    clear,
    load_run,
    locked,
    resume_command,
    what_stopped,
)
from edge_moe.train.gradients import pcgrad_gradients, summed_gradients, task_order
from edge_moe.train.losses import task_loss
from edge_moe.train.monitor import Monitor, StepReport
from edge_moe.train.optim import Ema, build_optimizer, learning_rate, set_learning_rate
from edge_moe.train.pictures import draw_curves, draw_samples
from edge_moe_host.config import to_dict
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import write_text

_MODEL_STREAM, _PCGRAD_STREAM = 1, 2
_log = logging.getLogger(__name__)


class TrainingInterrupted(EdgeMoEError):  # noqa: N818 - requested, not an error
    """Ctrl-C or SIGTERM; the state is saved. ``exit_code`` is the shell's for an interrupt."""

    exit_code = 130


class _DivergedError(EdgeMoEError):
    """A loss or gradient that is not finite."""


class _StopValidation(Exception):  # noqa: N818 - a signal, not an error
    """Leaves a validation when the run is asked to stop."""


class Trainer:
    """One training run in the folder ``out``, which one process at a time may train in.

    Whatever stops a run between two steps, the state is saved before the error is raised. An epoch is saved
    before its validation, which a resumed run repeats.

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
        val_every: validate every ``val_every`` epochs, and after the last; 0: never. Default: that of the
            resumed run, or 1.

    A run that resumes with another ``train.epochs`` follows from there on the learning rates of a run of that
    length.

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
        val_every: int | None = None,
        quantised: Path | None = None,
    ) -> None:
        train = preset.train
        if train.step_mode == "per_task" and train.gradient_method == "pcgrad":
            raise EdgeMoEError(
                "train.gradient_method = 'pcgrad' compares the tasks' gradients of one step: "
                "it needs train.step_mode = 'summed'."
            )
        if val_every is not None:
            require(val_every >= 0, "val_every", val_every, "it must be at least 1, or 0 for no validation")
        if max_steps is not None:
            require(max_steps >= 1, "max_steps", max_steps, "it must be at least 1")
        self.preset, self.data, self.out = preset, data, Path(out)
        self.device = device or torch.device("cpu")
        self.max_steps = max_steps
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
        if train.batch_size == distributed.world_size() and preset.model.grid_size == (1, 1):
            raise EdgeMoEError(
                "batch norm needs more than one value to train: the model has one patch, so every "
                "process needs at least 2 pictures of train.batch_size."
            )
        self.augmentation = Augmentation(train, preset.model.image_size, self.train_set.depth_kind)
        self.tasks = list(preset.model.tasks)

        torch.manual_seed(train.seed)
        model = build_model(preset.model)
        if init is not None:
            for note in initialise(model, Path(init), preset):
                _log.info("%s", note)
        self.step, self.validated = 0, True
        self.metrics: Metrics = {}
        self.best: dict[str, Any] = {}
        self.grids = None if quantised is None else load_grids(quantised, preset.model)
        self.saved: int | None = None  # the step of LAST
        checkpoint = load_run(self.out) if resume else None
        if val_every is None:
            val_every = 1 if checkpoint is None else checkpoint.val_every
        self.val_every = val_every
        if train.patience and not val_every:
            raise EdgeMoEError(f"train.patience = {train.patience} counts validations, and val_every is 0.")
        if checkpoint is not None:
            check_resumable(checkpoint, preset, data, self.out / LAST)
            rule = f"the run has done {checkpoint.step} steps, which is more"
            require(checkpoint.step <= self.total_steps, "train.epochs", train.epochs, rule)
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
        self._in_step = False  # parameters and statistics may belong to different steps
        self._outlasted = self._is_outlasted()

    def fit(self) -> Metrics:
        """Train to the end of the schedule (or ``max_steps``); returns the last validation's metrics.

        Raises TrainingInterrupted after Ctrl-C, and EdgeMoEError for a loss that is not finite.
        """
        with contextlib.ExitStack() as stack:
            out = self.out if self.is_main else None
            if self.is_main:
                stack.enter_context(locked(self.out))
            stack.enter_context(self._kept())
            self.monitor = Monitor(out, self.preset, self.steps_per_epoch, self.step, self.validated)
            stack.enter_context(contextlib.closing(self.monitor))
            stack.enter_context(self._signals())
            if self.is_main:
                _log.info("%s", self._first_line())
                write_text(self.out / CONFIG, to_toml(self.preset))
            if self.step == 0:
                self._save_last()  # also checks at once that the folder can be written
            if not self.validated:
                self._finish_epoch()
            while self.step < self.total_steps and not self._at_limit() and not self._outlasted:
                self._train_epoch()
        distributed.wait_for_all()  # rank 0 has written when any rank returns
        if self.is_main:
            _log.info("%s", self._last_line())
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
        while (batch := self._next(batches)) is not None:
            self._in_step = True
            report = self._train_step(batch)
            self.step += 1
            self._in_step = False
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

    def _next(self, batches: Iterator[dict[str, Tensor]]) -> dict[str, Tensor] | None:
        """The next batch, None after the last. EdgeMoEError on every rank if one cannot read its share."""
        batch, failure = None, None
        try:
            batch = next(batches, None)
        except EdgeMoEError as error:
            failure = error
        if distributed.is_parallel():
            failures = distributed.sum_over_ranks(
                torch.tensor(float(failure is not None), device=self.device)
            )
            if failures > 0 and failure is None:
                failure = EdgeMoEError("another process cannot read its pictures: see its message.")
        if failure is not None:
            raise failure
        return batch

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
        raise _DivergedError(
            f"training stopped at step {self.step + 1} (epoch {epoch + 1}): {wrong[0]}; try a lower train.lr "
            f"(now {train.lr:g}), more train.warmup_steps (now {train.warmup_steps}), or {clip}; "
            f"the last good checkpoint is '{self.out / LAST}'."
        )

    def _finish_epoch(self) -> None:
        """Validate if it is due, keep the best, save."""
        self.monitor.end_epoch(self.step)
        epoch = self.step // self.steps_per_epoch
        if self.val_every and (epoch % self.val_every == 0 or self.step == self.total_steps):
            if self.saved != self.step:
                self._save_last()
            stopped = self._validate() if self.is_main else False
            if distributed.agree(int(stopped)):
                self._stop()
            self._outlasted = bool(distributed.agree(int(self._is_outlasted())))
        self.validated = True
        self._save_last()

    def _is_outlasted(self) -> bool:
        """Whether ``train.patience`` validations have passed since the best."""
        if not (self.preset.train.patience and self.best):
            return False
        period = self.steps_per_epoch * self.val_every
        return self.step // period - self.best["step"] // period >= self.preset.train.patience

    def _validate(self) -> bool:
        """Metrics of the (average) model on the validation split; True if a stop was asked for."""
        model = self.model if self.ema is None else self.ema.model
        try:
            self._in_validation = True
            if self._stop_requested:
                return True
            result = evaluate(model, self.val_set, self.tasks)
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
        draw_curves(self.out / LOG, self.out / CURVES)
        draw_samples(cast(M3ViT, model), self.val_set, self.tasks, self.out / SAMPLES)
        return False

    def _save_last(self) -> None:
        if self.is_main:
            save_checkpoint(self.out / LAST, self._content())
        self.saved = self.step

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
            "val_every": self.val_every,
            "metrics": self.metrics,
            "best": self.best,
            "quantisation": None if self.grids is None else self.grids.to_plain(),
        }

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Everything but the weights, which the model has already."""
        self.step, self.validated = checkpoint.step, checkpoint.validated
        self.saved = self.step
        self.metrics, self.best = checkpoint.metrics, checkpoint.best
        if checkpoint.optimizer is not None:
            self.optimizer.load_state_dict(checkpoint.optimizer)
        if self.ema is not None and checkpoint.ema is not None:
            load_weights(self.ema.model, checkpoint.ema, self.out / LAST)

    def _check_folder(self, resume: bool, init: Path | None) -> None:
        if resume and init is not None:
            raise EdgeMoEError("--init starts a new run and --resume continues one: give one of them.")
        if resume or not self.is_main:
            return
        if self.out.exists() and not self.out.is_dir():
            raise EdgeMoEError(f"output '{self.out}' is a file: give a folder.")
        if self.out.is_dir() and any(self.out.iterdir()):
            raise EdgeMoEError(
                f"output folder '{self.out}' is not empty: choose another, or continue its run with --resume."
            )

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
            f"'{self.out / LAST}'; continue with: {resume_command(self.out)}"
        )

    def _first_line(self) -> str:
        train, count = self.preset.train, sum(parameter.numel() for parameter in self.parameters)
        pictures = f"{len(self.train_set):,} training and {len(self.val_set):,} validation pictures"
        after = f", continued after step {self.step:,}" if self.step else ""
        return (
            f"training {self.preset.name} on {self.device}: tasks {', '.join(self.tasks)}, {count:,} "
            f"parameters; {self.data}: {pictures}; "
            f"{self.total_steps:,} steps of {train.batch_size} pictures in {train.epochs} epochs{after}; "
            f"folder '{self.out}'"
        )

    def _last_line(self) -> str:
        resume = resume_command(self.out)
        done = f"step {self.step:,} of {self.total_steps:,} is done"
        if self.step < self.total_steps and not self._outlasted:
            return f"{done} (--max-steps), saved in '{self.out / LAST}'; continue with: {resume}"
        if self.step < self.total_steps:
            patience = self.preset.train.patience
            done += f", stopped by train.patience = {patience} (validations without improvement)"
        name = BEST if self.best else LAST
        which = f"the best of the validations, step {self.best['step']:,}" if self.best else "not validated"
        target = shlex.quote(str(self.out / name))
        return f"{done}: '{self.out / name}' ({which}); next: edge-moe export {target} --out export"

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Whatever stops training, save what is done, and say in one sentence how to go on."""
        try:
            yield
        except (TrainingInterrupted, _DivergedError):
            raise
        except Exception as error:
            if self.step and self.step != self.saved and not self._in_step:
                with contextlib.suppress(EdgeMoEError):  # a full disk: the sentence names the older state
                    self._save_last()
            if self.is_main and not self.step:
                clear(self.out)
            why = (error, self.preset, str(self.device), self.step)
            if not what_stopped(*why):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the loader, whose processes end with it
            again = resume_command(self.out)
            if not self.saved:
                raise EdgeMoEError(f"{what_stopped(*why)}.") from None
            if self.step == self.saved and not self.validated:
                raise EdgeMoEError(
                    f"{what_stopped(*why)}; the epoch is saved in '{self.out / LAST}': mend this, and "
                    f"continue with {again} (--val-every 0: without validation)."
                ) from None
            raise EdgeMoEError(
                f"{what_stopped(*why)}; step {self.saved:,} of {self.total_steps:,} is saved in "
                f"'{self.out / LAST}': mend this, and continue with {again}."
            ) from None

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
