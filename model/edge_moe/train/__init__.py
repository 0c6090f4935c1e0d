# SPDX-License-Identifier: Apache-2.0
"""Training: losses, optimizers, gradient methods, data parallelism, checkpoints and the loop."""

from edge_moe.train.engine import Trainer, TrainingInterrupted, run_training
from edge_moe.train.folder import LAST, load_run

__all__ = ["LAST", "Trainer", "TrainingInterrupted", "load_run", "run_training"]
