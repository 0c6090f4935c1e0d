# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: its files, one process at a time in it, and sentences about what stopped the run."""

import contextlib
import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from edge_moe.checkpoint import LAST, Checkpoint, load_checkpoint
from edge_moe.config import Preset
from edge_moe_host.errors import EdgeMoEError, out_of_memory, reason

CONFIG, CURVES, SAMPLES = "config.toml", "curves.png", "samples.png"
LOG, BOARD = "log.jsonl", "tensorboard"


def load_run(out: Path) -> Checkpoint:
    """The state of the run in ``out``."""
    if not (Path(out) / LAST).is_file():
        raise EdgeMoEError(f"nothing to resume: folder '{out}' has no {LAST}.")
    return load_checkpoint(Path(out) / LAST)


def clear(out: Path) -> None:
    """Remove the files of a run without a finished step, so that another can start in the folder."""
    for name in (LAST, CONFIG, LOG):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / BOARD, ignore_errors=True)


def resume_command(out: Path) -> str:
    """The command that continues the run."""
    return f"edge-moe train --resume {shlex.quote(str(out))}"


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the folder and keep other processes from training in it. The kernel frees it at this one's end."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeMoEError(f"cannot make output folder '{out}': {error.strerror}.") from None
    handle = os.open(out, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EdgeMoEError(
                    f"another process is training in '{out}': choose another folder."
                ) from None
        yield
    finally:
        os.close(handle)


def what_stopped(error: Exception, preset: Preset, device: str, step: int) -> str:
    """A sentence without full stop about an error in the step after ``step``; "" for one of this program."""
    train = preset.train
    if out_of_memory(error):
        height, width = preset.model.image_size
        lower = f"train.batch_size (now {train.batch_size}), " if train.batch_size > 1 else ""
        workers = f", train.workers (now {train.workers})" if train.workers else ""
        return (
            f"out of memory on {device} in step {step + 1}: lower {lower}model.image_size (now "
            f"{height}x{width}){workers}, or close other programs; the system says: {reason(error)}"
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            f"a loader process of train.workers = {train.workers} was ended from outside, often for lack of "
            f"memory or of shared memory (docker run --shm-size): lower train.workers; {reason(error)}"
        )
    if isinstance(error, EdgeMoEError | OSError):
        return (str(error) if isinstance(error, EdgeMoEError) else reason(error)).rstrip(".")
    return ""
