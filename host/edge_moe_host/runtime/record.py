# SPDX-License-Identifier: Apache-2.0
"""Raw results of a backend in a file, for comparing backends of different environments.

    python -m edge_moe_host.runtime.record BACKEND BUNDLE IMAGES.npz OUT.npz [KEY=VALUE ...]

IMAGES.npz holds ``images``, uint8 [n, H, W, 3]; every one goes through every task of the bundle. With
``EDGE_MOE_DEVICE=board/zcu104/simulated.py`` the backend ``pynq`` runs on the simulated board.
"""

import argparse
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe_host.errors import EdgeMoEError, ImageError, one_line_errors
from edge_moe_host.files import replacing
from edge_moe_host.runtime.accelerator import Accelerator, parse_option

UNCOUNTED = -1  # cycles of a frame when the device counts none


@dataclass(frozen=True, eq=False)
class Record:
    """By task: the device's ``raw`` [n, h*w, C], ``cycles`` int64 [n] and ``seconds`` float64 [n]."""

    raw: dict[str, np.ndarray]
    cycles: dict[str, np.ndarray]
    seconds: dict[str, np.ndarray]


def record(
    accelerator: Accelerator, images: np.ndarray, seen: Callable[[str], None] = lambda _: None
) -> Record:
    """Run uint8 images [n, H, W, 3] through every task; ``seen`` is called with the task after each frame."""
    result = Record({}, {}, {})
    for task in accelerator.tasks:
        raw, cycles, seconds = [], [], []
        for image in images:
            done = accelerator.run(image, task)
            raw.append(done.raw)
            cycles.append(UNCOUNTED if done.cycles is None else done.cycles)
            seconds.append(done.seconds)
            seen(task)
        result.raw[task] = np.stack(raw)
        result.cycles[task] = np.array(cycles, np.int64)
        result.seconds[task] = np.array(seconds, np.float64)
    return result


def save_record(done: Record, path: Path) -> None:
    """Write a record; the file appears whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    for name, by_task in vars(done).items():
        arrays |= {f"{name}.{task}": values for task, values in by_task.items()}
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


@contextmanager
def _arrays(path: Path, refusal: str) -> Iterator[Any]:
    """The arrays of an NPZ file. EdgeMoEError where it cannot be read, with ``refusal`` for other content."""
    try:
        with np.load(path) as arrays:
            yield arrays
    except OSError as error:
        raise EdgeMoEError(f"cannot read '{path}': {error.strerror or error}.") from None
    except (ValueError, EOFError, AttributeError, KeyError, TypeError, zipfile.BadZipFile):
        raise EdgeMoEError(f"'{path}' {refusal}.") from None


def load_record(path: Path) -> Record:
    """Read what :func:`save_record` wrote; EdgeMoEError for anything else."""
    result = Record({}, {}, {})
    with _arrays(path, "holds no results of a backend: make it again") as arrays:
        for key in arrays.files:
            name, _, task = key.partition(".")
            getattr(result, name)[task] = arrays[key]
        if not result.raw or not set(result.raw) == set(result.cycles) == set(result.seconds):
            raise ValueError
    return result


def load_images(path: Path) -> np.ndarray:
    """The array ``images`` of an NPZ file; EdgeMoEError for anything else."""
    with _arrays(path, "has no array 'images': give an NPZ file that has") as arrays:
        images: np.ndarray = arrays["images"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not len(images):
        raise ImageError(f"images of '{path}' are {images.dtype} {list(images.shape)}: uint8 [n, H, W, 3].")
    return images


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """The command at the top of this file."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_moe_host.runtime.record", description="Record raw results."
    )
    parser.add_argument("backend")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("options", nargs="*", default=[], metavar="KEY=VALUE", help="options of the backend")
    args = parser.parse_args(argv)
    images, options = load_images(args.images), dict(map(parse_option, args.options))
    with Accelerator.open(args.backend, args.bundle, **options) as accelerator:
        save_record(record(accelerator, images, lambda task: print(task, flush=True)), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
