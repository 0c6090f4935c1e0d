# SPDX-License-Identifier: Apache-2.0
"""The backend ``pynq``: a ZCU104, on the board itself, over PYNQ.remote, or simulated.

The weight image and the programs of all tasks are placed in the board's memory once; a task is chosen by
its program's first instruction, so switching copies nothing. There are buffers for two frames: while the
accelerator computes one, the host writes the next and reads the one before.
"""

import logging
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe_host.backends.board.devices import choose_device, find_bitstream, interrupt_number, read_handoff
from edge_moe_host.backends.board.driver import VLNV, EdgeMoEDriver, pynq
from edge_moe_host.backends.board.lock import DeviceLock
from edge_moe_host.backends.board.power import PowerMeter
from edge_moe_host.backends.csim_library import program_bytes
from edge_moe_host.contract.isa import ISA_VERSION, RECORD_BYTES
from edge_moe_host.contract.layout import BEAT, OUTPUT_ALIGNMENT
from edge_moe_host.contract.registers import require_done
from edge_moe_host.errors import (
    AllocationError,
    BackendError,
    BusError,
    ConfigurationError,
    DeviceError,
    DeviceTimeoutError,
    EdgeMoEError,
    reason,
)
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.result import Raw

_log = logging.getLogger(__name__)
_MOST_SECONDS = 86400
WEIGHT_PORTS = ("tables", "weights0", "weights1", "weights2")


@dataclass(frozen=True, eq=False)
class _Memory:
    """A contiguous buffer; ``address`` is read once, as a remote device answers over the network.

    ``data`` is the buffer without pynq's class, whose views lose a Ctrl-C that arrives in their destructor.
    """

    buffer: Any  # PynqBuffer or RemoteBuffer
    data: np.ndarray  # uint8 [size]
    address: int


@dataclass(frozen=True, eq=False)
class _Slot:
    """Buffers of one frame."""

    image: _Memory
    output: _Memory


@dataclass(frozen=True, eq=False)
class _Frame:
    task: str
    slot: _Slot


class PynqAccelerator(Accelerator):
    """``device``: of pynq, by default its active one, or ``address`` of a board that runs PYNQ.remote;
    ``bitstream``: by default that of the bundle's accelerator; ``timeout``: seconds that a frame may take;
    ``wait``: ``poll`` or ``interrupt``; ``locks``: folder of the lock's file.

    The accelerator counts cycles from its start to its end; seconds are these at its clock.
    """

    slots = 2
    device: Any = None
    driver: EdgeMoEDriver | None = None
    _overlay: Any = None
    _leave_device: Callable[[], None] | None = None
    _exclusive: DeviceLock | None = None

    def _open(
        self,
        device: Any = None,
        bitstream: str | Path | None = None,
        address: str | None = None,
        timeout: float = 10.0,
        wait: str = "poll",
        locks: str | Path | None = None,
    ) -> None:
        self._timeout, self._by_interrupt = timeout, wait == "interrupt"
        self._allocated: list[Any] = []
        self._slots: list[_Slot] = []
        self._free: list[_Slot] = []
        self._line: deque[_Frame] = deque()  # submitted frames; the first one may be running
        self._running = self._unsettled = self._hung = False
        if wait not in ("poll", "interrupt"):
            raise BackendError(f"wait='{wait}' is neither 'poll' nor 'interrupt'.")
        if not 0 < timeout <= _MOST_SECONDS:
            raise BackendError(
                f"timeout={timeout:g} is not allowed: give seconds above 0, up to {_MOST_SECONDS}."
            )
        self.device, self._leave_device = choose_device(self.bundle, device, address)
        lock = DeviceLock(str(self.device.tag), Path(locks) if locks else None)
        lock.acquire()
        self._exclusive = lock
        self._load_overlay(find_bitstream(self.bundle, self.device, bitstream))
        self._allocate_all()
        self._bring_up()

    @cached_property
    def power(self) -> PowerMeter:
        """The board's power sensors."""
        return PowerMeter(self.device)

    # Opening

    def _load_overlay(self, bitstream: Path) -> None:
        handoff = read_handoff(bitstream.with_suffix(".hwh"))
        try:
            self._overlay = pynq.Overlay(str(bitstream), device=self.device)
        except Exception as error:  # pynq raises many kinds
            raise DeviceError(f"'{bitstream.name}' could not be loaded: {reason(error)}.") from error
        cells = [name for name, cell in self._overlay.ip_dict.items() if cell["type"] == VLNV]
        if len(cells) != 1:
            name = bitstream.with_suffix(".hwh").name
            raise ConfigurationError(
                f"'{name}' holds {len(cells)} cells of type {VLNV}, where one is needed."
            )
        try:
            self.driver = getattr(self._overlay, cells[0])
        except EdgeMoEError:
            raise
        except Exception as error:  # for example: only root may map registers
            raise DeviceError(f"the registers of '{cells[0]}' are out of reach: {reason(error)}.") from error
        if self._by_interrupt:
            self._driver.use_interrupt(interrupt_number(handoff, cells[0]))

    @property
    def _driver(self) -> EdgeMoEDriver:
        assert self.driver is not None
        return self.driver

    def _allocate_all(self) -> None:
        entries = [task.entry for task in self.bundle.tasks.values()]
        programs = [program_bytes(task) for task in self.bundle.tasks.values()]
        begins = np.cumsum([0, *(len(program) // RECORD_BYTES for program in programs)]).tolist()
        self._offsets = dict(zip(self.bundle.tasks, begins, strict=False))
        self._program_bytes = np.concatenate(programs)
        self._weights = self._allocate("weight image", self.bundle.weights.nbytes)
        self._programs = self._allocate("programs", self._program_bytes.nbytes)
        image = max(int(np.prod(entry.image)) for entry in entries)
        output = max(_output_bytes(entry.output) for entry in entries)
        for _ in range(self.slots):
            self._slots.append(_Slot(self._allocate("image", image), self._allocate("output", output)))
        self._free = list(self._slots)

    def _allocate(self, what: str, size: int) -> _Memory:
        size = -(-size // OUTPUT_ALIGNMENT) * OUTPUT_ALIGNMENT  # images are read in whole transfers
        try:
            buffer = pynq.allocate((size,), dtype=np.uint8, target=self.device)
            memory = _Memory(buffer, buffer.view(np.ndarray), int(buffer.device_address))
        except Exception as error:
            raise AllocationError(
                f"{size} bytes of contiguous memory for the {what} could not be had: {reason(error)}; free "
                "buffers of other programs, or give Linux more memory for them (CMA)."
            ) from error
        self._allocated.append(buffer)
        return memory

    def _bring_up(self) -> None:
        """Check that a fresh overlay is the right one, and write everything that does not change."""
        driver, manifest = self._driver, self.bundle.manifest
        driver.enable_interrupt()
        with self._noting_hangs():
            config, version = driver.identify(self._timeout)
        if config != manifest.accelerator.hash:
            raise ConfigurationError(
                f"the overlay is of the accelerator configuration {config}, bundle '{self.bundle.path}' was "
                f"compiled for {manifest.accelerator.hash}: load that overlay, or compile again."
            )
        if version != ISA_VERSION:
            raise ConfigurationError(
                f"the overlay executes instructions of version {version}, this package knows {ISA_VERSION}: "
                "build the overlay and install this package from the same version."
            )
        self._place(self._weights, self.bundle.weights, "weight image")
        self._place(self._programs, self._program_bytes, "programs")
        driver.put("program", self._programs.address)
        for port in WEIGHT_PORTS:
            driver.put(port, self._weights.address)
        driver.put("weight_beats", self.bundle.weights.nbytes // BEAT)

    def _place(self, memory: _Memory, data: np.ndarray, what: str) -> None:
        """Write to the board's memory, and read it back."""
        try:
            memory.data[: data.nbytes] = data
            memory.buffer.flush()
            memory.buffer.invalidate()
            arrived = _checksum(memory.data[: data.nbytes])
        except Exception as error:
            raise BusError(f"the {what} could not be written to the board: {reason(error)}.") from error
        if arrived != _checksum(data):
            raise BusError(f"the {what} in the board's memory is not what was written: its memory is faulty.")

    # Frames

    def _run_raw(self, task: str, image: np.ndarray) -> Raw:
        return self._collect(self._submit(task, image))

    def _submit(self, task: str, image: np.ndarray) -> _Frame:
        self._settle()
        while not self._free:
            self._finish_first()  # Ctrl-C interrupted its submission: nobody will collect it
        frame = _Frame(task, self._free[-1])
        with _moving("image"):
            frame.slot.image.data[: image.nbytes] = image.reshape(-1)
            frame.slot.image.buffer.flush()
        self._free.pop()
        self._line.append(frame)
        if not self._running:
            self._start()
        return frame

    def _start(self) -> None:
        """Start the first frame in line."""
        frame, driver = self._line[0], self._driver
        entry = self.bundle.tasks[frame.task].entry
        driver.put("image", frame.slot.image.address)
        driver.put("output", frame.slot.output.address)
        driver.put("program_offset", self._offsets[frame.task])
        driver.put("program_records", entry.program.bytes // RECORD_BYTES)
        driver.put("image_bytes", int(np.prod(entry.image)))
        driver.put("output_bytes", _output_bytes(entry.output))
        driver.start()
        self._running = True

    def _collect(self, token: _Frame) -> Raw:
        while self._line[0] is not token:
            self._finish_first()
        return self._finish_first()

    def _finish_first(self) -> Raw:
        """Wait for the first frame in line, start the next, and read the first one's result."""
        frame, driver = self._line[0], self._driver
        out = self.bundle.tasks[frame.task].entry.output
        with self._noting_hangs():
            driver.wait(self._timeout)
        *state, cycles = driver.outcome()
        require_done(frame.task, self.bundle.path, *state)
        self._line.popleft()
        self._running = False
        if self._line:
            self._start()
        with _moving("output"):
            frame.slot.output.buffer.invalidate()
        rows = frame.slot.output.data[: _output_bytes(out)].reshape(-1, out.row_bytes)
        values = rows.view("<i2")[:, : out.channels].astype(np.int16)
        self._free.append(frame.slot)
        clock = 1e6 * self.bundle.manifest.accelerator.config["clock_mhz"]
        return Raw(values, cycles, cycles / clock)

    # Recovery

    @contextmanager
    def _noting_hangs(self) -> Iterator[None]:
        """Note a timeout in the block, so that the hung run is not waited for again."""
        try:
            yield
        except DeviceTimeoutError:
            self._hung = True
            raise

    def _reset(self) -> None:
        """Forget all frames; the next one first checks what the accelerator is still doing."""
        self._unsettled = True

    def _settle(self) -> None:
        """After an error or Ctrl-C: wait for a run that was left alone; restart a hung accelerator."""
        if not self._unsettled:
            return
        try:
            self._driver.wait(0.0 if self._hung else self._timeout)
        except DeviceError:
            self._restart()
        self._line.clear()
        self._free = list(self._slots)
        self._running = self._unsettled = self._hung = False

    def _restart(self) -> None:
        """Load the overlay again: this resets all logic, so that no run goes on unnoticed."""
        self._hung = True  # should this fail, the next attempt does not wait
        try:
            self._overlay.download()
        except Exception as error:
            raise DeviceError(
                f"the accelerator hangs, and loading its overlay again failed: {reason(error)}; restart the "
                "board."
            ) from error
        self._bring_up()

    def _close(self) -> None:
        with ExitStack() as steps:  # last to first, each even if others fail
            if self._leave_device is not None:
                steps.callback(self._leave_device)
            if self._exclusive is not None:
                steps.callback(self._exclusive.release)
            if self.driver is not None:
                steps.callback(self.driver.close)
                steps.callback(self._forget_buffers)
                for buffer in self._allocated:
                    steps.callback(_free, buffer)
                steps.callback(self._stop)

    def _forget_buffers(self) -> None:
        self._allocated, self._slots, self._free = [], [], []
        self._line.clear()

    def _stop(self) -> None:
        """End the run in progress, if any, before its buffers are freed."""
        try:
            self._driver.wait(0.0 if self._hung else self._timeout)
        except EdgeMoEError:
            with _noting("the accelerator could not be stopped"):
                self._overlay.download()


def _free(buffer: Any) -> None:
    with _noting("a buffer could not be freed"):
        buffer.freebuffer()


@contextmanager
def _noting(what: str) -> Iterator[None]:
    """Log a failure in the block and go on: closing must not stop half-way."""
    try:
        yield
    except Exception as error:
        _log.warning("%s: %s", what, reason(error))


@contextmanager
def _moving(what: str) -> Iterator[None]:
    """Turn errors of copies between host and board into a BusError."""
    try:
        yield
    except Exception as error:
        raise BusError(f"the {what} could not be moved: {reason(error)}.") from error


def _checksum(data: np.ndarray) -> int:
    return zlib.crc32(data.tobytes())


def _output_bytes(out: Any) -> int:
    return int(out.height * out.width * out.row_bytes)
