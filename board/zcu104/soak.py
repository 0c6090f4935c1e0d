# SPDX-License-Identifier: Apache-2.0
"""Runs many frames on the simulated board, with random tasks and pictures, and a fault now and then.

    python board/zcu104/soak.py --frames 10000

Every result must equal the C simulation's, no buffer may be left, and memory must not grow. The contents of a
block of frames depend only on the seed and the block's number: continue a stopped run with ``--start``.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from command import Parser, packages, whole

with packages("soak"):
    import numpy as np
    from simulated import Fault, SimulatedDevice, simulated_board

    from edge_moe_host.contract.bundle import Bundle, load_bundle
    from edge_moe_host.errors import DeviceError, EdgeMoEError
    from edge_moe_host.runtime.accelerator import Accelerator

BUNDLE = Path(__file__).parents[2] / "build" / "board_bundles" / "mini" / "bundle"
BLOCK = 50  # frames that follow from one seed
PICTURES = 8
GROWTH_BYTES = 16 << 20  # permitted growth of memory after everything was used once
TIMEOUT = 20.0
FAULTS = (
    (Fault.STOPPED, {"error": 3, "position": 5}),
    (Fault.DMA, {}),
    (Fault.LOST_INTERRUPT, {}),
    (Fault.NEVER_DONE, {}),
)
HANG_TIMEOUT = 0.2  # seconds to wait for a run that never ends


class SoakError(Exception):
    """A failure, and its frame."""


class Soak:
    """A bundle's pictures with their right results, and the accelerator under test."""

    def __init__(self, bundle: Bundle, accelerator: Accelerator, device: SimulatedDevice, seed: int) -> None:
        self.bundle, self.accelerator, self.device, self.seed = bundle, accelerator, device, seed
        self.tasks = list(bundle.tasks)
        rng = np.random.default_rng(seed)
        sizes = {task: accelerator.image_size(task) for task in self.tasks}
        self.pictures = {
            size: rng.integers(0, 256, (PICTURES, *size, 3)).astype(np.uint8) for size in set(sizes.values())
        }
        self.pool = {task: self.pictures[size] for task, size in sizes.items()}
        with Accelerator.open("csim", bundle) as csim:
            self.right = {
                task: [csim.run(image, task).raw for image in self.pool[task]] for task in self.tasks
            }
        self.values = self.faults = 0

    def block(self, number: int, count: int = BLOCK) -> Iterator[None]:
        """The frames of a block, one at a time."""
        rng = np.random.default_rng((self.seed, number))
        if rng.random() < 0.5:
            yield from self._runs(number, count, rng)
        else:
            yield from self._stream(number, count, rng)

    def _runs(self, number: int, count: int, rng: np.random.Generator) -> Iterator[None]:
        for frame in range(count):
            task = self.tasks[rng.integers(len(self.tasks))]
            picture = int(rng.integers(PICTURES))
            self.accelerator.switch(task)
            self._check(self.accelerator.run(self.pool[task][picture]).raw, task, picture, number, frame)
            yield

    def _stream(self, number: int, count: int, rng: np.random.Generator) -> Iterator[None]:
        task = self.tasks[rng.integers(len(self.tasks))]
        size = self.accelerator.image_size(task)
        alike = [other for other in self.tasks if self.accelerator.image_size(other) == size]
        turns = [alike[n] for n in rng.integers(len(alike), size=5)]
        chosen = rng.integers(PICTURES, size=count).tolist()
        source = (self.pictures[size][picture] for picture in chosen)
        for frame, result in enumerate(self.accelerator.stream(source, turns)):
            self._check(result.raw, turns[frame % len(turns)], chosen[frame], number, frame)
            yield

    def _check(self, raw: np.ndarray, task: str, picture: int, number: int, frame: int) -> None:
        if not np.array_equal(raw, self.right[task][picture]):
            raise SoakError(f"frame {number * BLOCK + frame}: task {task}, picture {picture} came out wrong")
        self.values += raw.size

    def fault(self, number: int) -> None:
        """Run a frame with the number-th fault, which must raise its error."""
        fault, details = FAULTS[number % len(FAULTS)]
        task, timeout = self.tasks[number % len(self.tasks)], self.accelerator._timeout
        self.device.inject(fault, **details)
        try:
            self.accelerator._timeout = HANG_TIMEOUT if fault is Fault.NEVER_DONE else timeout
            raw = self.accelerator.run(self.pool[task][0], task).raw
            if fault is not Fault.LOST_INTERRUPT:
                raise SoakError(f"fault {number}: '{fault.value}' went unnoticed")
            self._check(raw, task, 0, 0, 0)
        except DeviceError:
            self.faults += 1
        finally:
            self.accelerator._timeout = timeout


def memory_bytes() -> int:
    """Memory that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(bundle: Bundle, frames: int, seed: int = 0, start: int = 0, fault_every: int = 10) -> dict[str, int]:
    """Run frames ``start``, a multiple of BLOCK, to ``frames``, with a fault every ``fault_every`` blocks.

    Returns the counts; SoakError for a failure.
    """
    blocks = range(start // BLOCK, -(-frames // BLOCK))
    with simulated_board(bundle) as device:
        with Accelerator.open("pynq", bundle, device=device, timeout=TIMEOUT) as accelerator:
            run = Soak(bundle, accelerator, device, seed)
            done, begin, base, grown, shown = 0, time.monotonic(), 0, 0, time.monotonic()
            for number in blocks:
                if fault_every and number % fault_every == fault_every - 1:
                    run.fault(number // fault_every)
                for _ in run.block(number, min(BLOCK, frames - number * BLOCK)):
                    done += 1
                if number - blocks.start == 1 or len(blocks) == 1:
                    base = memory_bytes()  # after each kind of frame and fault ran at least once
                grown = memory_bytes() - base if base else 0
                if grown > GROWTH_BYTES:
                    raise SoakError(f"frame {(number + 1) * BLOCK}: memory grew by {grown} bytes")
                if time.monotonic() - shown > 5:
                    shown = time.monotonic()
                    _progress((number + 1) * BLOCK, frames, seed, done / (shown - begin), grown)
        left = device.default_memory.buffers
        if left or device.violations:
            raise SoakError(f"{left} buffers were left; {'; '.join(device.violations) or 'nothing else'}")
    return {"frames": done, "values": run.values, "faults": run.faults, "grown": grown}


def _progress(at: int, frames: int, seed: int, rate: float, grown: int) -> None:
    print(
        f"frame {at:,} of {frames:,}, {rate:.1f}/s, memory {grown / 1e6:+.1f} MB; to go on from here: "
        f"--seed {seed} --start {at} --frames {frames}",
        flush=True,
    )


def main() -> int:
    parser = Parser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=whole("a number of frames", 1), default=10000)
    parser.add_argument("--seed", type=whole("a seed", 0), default=0)
    parser.add_argument("--start", type=whole("a frame", 0), default=0, help=f"a multiple of {BLOCK}")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="default: that of 'make board-bundles'")
    options = parser.parse_args()
    if options.start % BLOCK or options.start >= options.frames:
        parser.error(f"--start {options.start} is not a multiple of {BLOCK} below --frames {options.frames}")
    if options.bundle == BUNDLE and not BUNDLE.is_dir():
        parser.error("there is no bundle yet: run 'make board-bundles', or give --bundle")
    try:
        counts = soak(load_bundle(options.bundle), options.frames, options.seed, options.start)
    except (EdgeMoEError, SoakError) as error:
        print(f"soak: {error} (seed {options.seed})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("soak: stopped; the last line says how to go on", file=sys.stderr)
        return 130
    print(
        f"{counts['frames']:,} frames and {counts['values']:,} values right, {counts['faults']} faults seen, "
        f"memory {counts['grown'] / 1e6:+.1f} MB, no buffer left (seed {options.seed})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
