# SPDX-License-Identifier: Apache-2.0
"""The simulated board's accelerator: its register file as Vitis HLS makes it, and the C simulation.

Control is ap_ctrl_hs: a written start bit stays until the run is over; done and ready stay until they are
read; idle follows the core; interrupt status bits toggle when 1 is written; a result's valid flag stays until
it is read. A run takes the C simulation's time, or the board's ``latency`` if that is longer.
"""

import contextlib
import enum
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from simulated_memory import BusFaultError, PhysicalMemory

from edge_moe_host.backends.csim_library import Csim, CsimError, library_path
from edge_moe_host.backends.csim_library import Registers as Results
from edge_moe_host.contract.isa import RECORD_BYTES
from edge_moe_host.contract.layout import BEAT
from edge_moe_host.contract.registers import AP_DONE, AP_IDLE, AP_READY, AP_START, REGISTERS, Status

WORD = 0xFFFFFFFF
INTERRUPT = 1 << 9  # of ap_ctrl
AUTO_RESTART = 1 << 7
RESULTS = ("config_id", "version", "status", "error", "position", "cycles")
UNANSWERED = 0xFF  # every byte that is read if nothing answers
WAKE_SECONDS = 0.05  # delay of a start whose wake-up was lost to Ctrl-C
_simulation = threading.Lock()  # one run at a time, also of several boards
WEIGHT_PORTS = ("weights0", "weights1", "weights2")


class Fault(enum.Enum):
    """Faults that can be injected into a run; settings of the board make allocations and registers fail."""

    NEVER_DONE = "the run never ends"
    LATE = "the run ends after `seconds`"
    STOPPED = "the run stops with `error` at `position`"
    CONFIG_ID = "the run leaves another configuration's hash"
    VERSION = "the run leaves another version of the instruction set"
    DMA = "nothing answers at the program's address"
    LOST_INTERRUPT = "the run ends without an interrupt"


@dataclass(frozen=True)
class Injected:
    """A fault of one run."""

    fault: Fault
    seconds: float = 0.0
    error: int = 0
    position: int = 0


@dataclass(frozen=True)
class _Buffers:
    """Memory as the masters see it."""

    program: np.ndarray
    weights: np.ndarray
    image: np.ndarray
    output: np.ndarray


class Kernel:
    """One configured accelerator. Methods may be called from any thread."""

    def __init__(self, config_hash: str, memory: PhysicalMemory, interrupt: Callable[[bool], None]) -> None:
        """``interrupt``: called with the level of the interrupt pin whenever it changes."""
        self.latency = 0.0  # least seconds of a run
        self.faults: deque[Injected] = deque()  # of the next runs
        self.runs = 0
        self._csim = Csim(library_path(config_hash))
        self._memory, self._interrupt = memory, interrupt
        self._lock = threading.RLock()
        # A start counts once it is queued, in one step that Ctrl-C cannot divide
        self._line: deque[tuple[dict[str, int], Injected | None]] = deque()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._values = dict.fromkeys((name for name in REGISTERS if not name.endswith("_ctrl")), 0)
        self._valid = dict.fromkeys(RESULTS, False)
        self._flags = 0  # done, ready
        self._pin = False
        self._places = {
            register.offset + 4 * word: (name, word)
            for name, register in REGISTERS.items()
            for word in range(register.bits // 32)
        }
        threading.Thread(target=self._work, name="simulated accelerator", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a run is in progress."""
        return bool(self._line)

    def stop(self) -> None:
        """Remove the logic: a run in progress writes nothing any more."""
        with self._lock:
            self._stopped.set()
            self._line.clear()

    # Registers

    def read(self, offset: int) -> int:
        """A 32-bit word; unused offsets read as 0."""
        name, word = self._places.get(offset, ("", 0))
        with self._lock:
            if name == "ap_ctrl":
                flags, self._flags = self._flags, 0
                return flags | (AP_START if self.busy else AP_IDLE) | INTERRUPT * self._pin
            if name.endswith("_ctrl"):
                result = name.removesuffix("_ctrl")
                valid, self._valid[result] = self._valid[result], False
                return int(valid)
            return self._values.get(name, 0) >> 32 * word & WORD

    def write(self, offset: int, value: int) -> None:
        """Write a 32-bit word; results cannot be written."""
        name, word = self._places.get(offset, ("", 0))
        with self._lock:
            if name == "ap_ctrl":
                self._control(value)
            elif name == "isr":
                self._values["isr"] ^= value & 3
                self._update_pin()
            elif name in ("gie", "ier"):
                self._values[name] = value & (1 if name == "gie" else 3)
                self._update_pin()
            elif name and REGISTERS[name].access == "rw":
                if self.busy:
                    self._memory.violations.append(f"register {name} was written during a run")
                kept = self._values[name] & ~(WORD << 32 * word)
                self._values[name] = kept | (value & WORD) << 32 * word

    def _control(self, value: int) -> None:
        if value & AUTO_RESTART:
            self._memory.violations.append("automatic restart was asked for")
        if value & AP_START:
            if self.busy:
                self._memory.violations.append("a run was started during another")
                return
            self._flags = 0
            self._line.append((dict(self._values), self.faults.popleft() if self.faults else None))
            self._wake.put(None)

    def _update_pin(self) -> None:
        pin = bool(self._values["gie"] & 1 and self._values["isr"] & self._values["ier"])
        if pin != self._pin:
            self._pin = pin
            self._interrupt(pin)

    # Runs, in a thread of their own

    def _work(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=WAKE_SECONDS)
            if self._line:
                self._run(*self._line[0])

    def _run(self, arguments: dict[str, int], injected: Injected | None) -> None:
        fault = injected.fault if injected else None
        end = time.monotonic() + self.latency
        buffers = self._fetch(arguments, fault is Fault.DMA)
        output = buffers.output.copy()
        try:
            with _simulation:
                results = self._csim.execute(
                    buffers.program, buffers.weights, buffers.image, output, arguments["program_offset"]
                )
        except CsimError as error:
            self._memory.violations.append(str(error))
            fault = Fault.NEVER_DONE  # a deadlock
        late = injected.seconds if injected else 0.0
        never = fault is Fault.NEVER_DONE
        self._stopped.wait(None if never else max(end - time.monotonic(), 0) + late)
        with self._lock:
            if not self._stopped.is_set():
                self._finish(arguments, results, output, injected)
                self._line.popleft()

    def _fetch(self, arguments: dict[str, int], broken: bool) -> _Buffers:
        records = arguments["program_records"]
        end = (arguments["program_offset"] + records) * RECORD_BYTES
        program = self._read(arguments["program"], end if records else 0)
        if broken:
            program = np.full_like(program, UNANSWERED)
        weights = self._read(arguments["tables"], arguments["weight_beats"] * BEAT)
        if weights.size and any(arguments[port] != arguments["tables"] for port in WEIGHT_PORTS):
            self._memory.violations.append("the weight ports have different addresses")
            weights = np.full_like(weights, UNANSWERED)
        image = self._read(arguments["image"], -(-arguments["image_bytes"] // 16) * 16)
        output = self._read(arguments["output"], arguments["output_bytes"])
        return _Buffers(program, weights, image[: arguments["image_bytes"]], output)

    def _read(self, address: int, size: int) -> np.ndarray:
        try:
            return self._memory.view(address, size) if size else np.zeros(0, np.uint8)
        except BusFaultError:
            return np.full(size, UNANSWERED, np.uint8)

    def _finish(self, arguments: dict[str, int], results: Results, output: np.ndarray,
                injected: Injected | None) -> None:  # fmt: skip
        """End a run: output, results, done, and the interrupt."""
        fault = injected.fault if injected else None
        for name in RESULTS:
            self._values[name] = getattr(results, name)
        if injected and fault is Fault.STOPPED:
            self._values |= {"status": Status.STOPPED, "error": injected.error, "position": injected.position}
        elif fault is Fault.CONFIG_ID:
            self._values["config_id"] ^= 1
        elif fault is Fault.VERSION:
            self._values["version"] += 1
        self._valid = dict.fromkeys(RESULTS, True)
        if arguments["output_bytes"]:
            self._write_output(arguments["output"], output)
        self._flags = AP_DONE | AP_READY
        self.runs += 1
        if fault is not Fault.LOST_INTERRUPT:
            self._values["isr"] |= self._values["ier"] & 3
            self._update_pin()

    def _write_output(self, address: int, output: np.ndarray) -> None:
        try:
            bo = self._memory.owner(address, output.nbytes)
        except BusFaultError:
            return
        start = address - bo.address
        bo.dram[start : start + output.nbytes] = output
        bo.evict()
        if not bo.guards_hold():
            self._memory.violations.append(f"a run wrote around the buffer at {address:#x}")
