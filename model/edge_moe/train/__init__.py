# SPDX-License-Identifier: Apache-2.0
"""Training: losses, optimizers, gradient methods, data parallelism, checkpoints and the loop."""

from edge_moe.train.engine import LAST, Trainer, TrainingInterrupted, load_run, run_training

__all__ = ["LAST", "Trainer", "TrainingInterrupted", "load_run", "run_training"]
