# SPDX-License-Identifier: Apache-2.0
"""Driver of the accelerator for pynq: registers by name, bounded waits, one kind of error for each failure.

It uses only what a local device and PYNQ.remote both offer: 32-bit reads and writes of registers. Waiting
polls; on a local device it can sleep until the interrupt instead. Even then it reads the register from time
to time, so that a lost interrupt costs a moment and not the frame.
"""

import os
import select
import time
from collections.abc import Mapping
from typing import Any

from edge_moe_host.contract.registers import AP_DONE, AP_IDLE, AP_START, CONTROL, REGISTERS, WORD_BYTES
from edge_moe_host.errors import (
    BackendError,
    BusError,
    ConfigurationError,
    DeviceError,
    DeviceTimeoutError,
    reason,
)

try:
    import pynq  # type: ignore[import-not-found]
    import pynq.interrupt  # type: ignore[import-not-found]
except ImportError as missing:
    raise ImportError(
        f"{missing}; it comes with the board's PYNQ image, on a PC with edge-moe-host[board], or with "
        "'make .venv-board/.ready' in the project's folder, for .venv-board/bin/python"
    ) from None

VLNV = "edge-moe:hls:edge_moe_accelerator:1.0"  # of the packaged IP
POLL_SECONDS = 100e-6
LOOK_SECONDS = 20e-3  # between reads of the register while waiting for an interrupt
_DONE_INTERRUPT = 1  # bit of ier and isr
# Names that Vitis HLS gives the control registers
_CONTROL_NAMES = {"ap_ctrl": "CTRL", "gie": "GIER", "ier": "IP_IER", "isr": "IP_ISR"}


class EdgeMoEDriver(pynq.DefaultIP):
    """The accelerator in an overlay; pynq creates one for an IP of this VLNV in the hardware handoff."""

    bindto = (VLNV,)

    def __init__(self, description: Mapping[str, Any]) -> None:
        """ConfigurationError when the hardware's registers are not those that this package knows."""
        check_registers(description.get("registers") or {}, description.get("fullpath", VLNV))
        # pynq's own interrupts need a running event loop, and PYNQ.remote has none
        super().__init__({**description, "interrupts": {}})
        self._uio: _Uio | None = None

    # Registers

    def get(self, name: str) -> int:
        """A register's value. BusError where it cannot be read."""
        register = REGISTERS[name]
        words = range(register.bits // 32)
        return sum(self._read_word(register.offset + WORD_BYTES * word, name) << 32 * word for word in words)

    def put(self, name: str, value: int) -> None:
        """Set a register. BusError where it cannot be written."""
        register = REGISTERS[name]
        for word in range(register.bits // 32):
            self._write_word(register.offset + WORD_BYTES * word, value >> 32 * word & 0xFFFFFFFF, name)

    def _read_word(self, offset: int, name: str) -> int:
        try:
            return int(self.mmio.read(offset)) & 0xFFFFFFFF  # PYNQ.remote 3.1 reads signed words
        except Exception as error:  # OSError, RuntimeError or gRPC's own, by the kind of device
            raise _bus_error("read", name, error) from error

    def _write_word(self, offset: int, value: int, name: str) -> None:
        try:
            self.mmio.write(offset, value)
        except Exception as error:
            raise _bus_error("written", name, error) from error

    # Runs

    def start(self) -> None:
        """Begin a run with the registers as they are. DeviceError while another is in progress."""
        control = self.get("ap_ctrl")  # reading clears what the last run left
        if control & AP_START or not control & AP_IDLE:
            raise DeviceError("the accelerator was started while it was running: wait for its run first.")
        if self._uio is not None:
            pending = self.get("isr")
            if pending:
                self.put("isr", pending)  # a written 1 toggles
            self._uio.arm()
        self.put("ap_ctrl", AP_START)

    def finished(self) -> bool:
        """Whether no run is in progress. Reading clears done; idle remains for whoever missed it."""
        control = self.get("ap_ctrl")
        return bool(control & AP_DONE) or control & (AP_START | AP_IDLE) == AP_IDLE

    def wait(self, seconds: float) -> None:
        """Wait until no run is in progress. DeviceTimeoutError after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not self.finished():
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeviceTimeoutError(
                    f"the accelerator did not finish in {seconds:g} s: it hangs, or timeout= is too short."
                )
            if self._uio is None:
                time.sleep(min(POLL_SECONDS, left))
            else:
                self._uio.wait(min(LOOK_SECONDS, left))

    def outcome(self) -> tuple[int, int, int, int]:
        """The registers ``status``, ``error``, ``position`` and ``cycles`` that the last run left."""
        return self.get("status"), self.get("error"), self.get("position"), self.get("cycles")

    def identify(self, seconds: float) -> tuple[str, int]:
        """Hash of the accelerator's configuration, and version of its instruction set.

        A run without a program leaves them in their registers, which hold nothing after reset.
        """
        for name in ("program_records", "weight_beats", "image_bytes", "output_bytes"):
            self.put(name, 0)
        self.start()
        self.wait(seconds)
        return f"{self.get('config_id'):016x}", self.get("version")

    # Interrupt

    def use_interrupt(self, number: int) -> None:
        """Wait by interrupt ``number`` of Linux from now on. BackendError when the device has none."""
        if self.device.has_capability("REMOTE"):
            raise BackendError("PYNQ.remote carries no interrupts: open the board with wait='poll'.")
        path = pynq.interrupt.get_uio_irq(number)
        if path is None:
            raise BackendError(
                f"no UIO device has interrupt {number}: its device tree node is missing; use wait='poll'."
            )
        self._uio = _Uio(path)
        self.enable_interrupt()

    def enable_interrupt(self) -> None:
        """Set the interrupt registers, which a reset clears; no effect when waiting polls."""
        if self._uio is not None:
            self.put("ier", _DONE_INTERRUPT)
            self.put("gie", 1)

    def close(self) -> None:
        """Close the interrupt's file."""
        if self._uio is not None:
            self._uio.close()
            self._uio = None


class _Uio:
    """An interrupt as a file of Linux's generic UIO driver; it is disabled from its arrival to ``arm``."""

    def __init__(self, path: str) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise BackendError(f"'{path}' cannot be opened: {error.strerror or error}.") from None

    def arm(self) -> None:
        """Let the next interrupt through."""
        try:
            os.write(self._file, (1).to_bytes(4, "little"))
        except OSError as error:
            raise BusError(f"the interrupt could not be armed: {error.strerror or error}.") from error

    def wait(self, seconds: float) -> None:
        """Wait for the interrupt; an earlier one that nobody waited for ends the wait as well."""
        ready, _, _ = select.select([self._file], [], [], seconds)
        try:
            if ready:
                os.read(self._file, 4)
        except OSError as error:
            raise BusError(f"the interrupt could not be read: {error.strerror or error}.") from error

    def close(self) -> None:
        os.close(self._file)


def check_registers(described: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """ConfigurationError unless a hardware handoff has every register where this package expects it.

    Vitis HLS numbers the words of wide arguments, and appends to names that are reserved in Verilog.
    """
    names = {entry["address_offset"]: name for name, entry in described.items()}
    for register in REGISTERS.values():
        stem = _CONTROL_NAMES[register.name] if register in CONTROL else register.name
        found = names.get(register.offset)
        if not register.name.endswith("_ctrl") and (found is None or not found.startswith(stem)):
            there = f"'{found}'" if found else "nothing"
            raise ConfigurationError(
                f"register '{register.name}' of '{where}' is expected at {register.offset:#x}, but the "
                f"overlay has {there} there: build overlay and package from the same version."
            )


def _bus_error(access: str, name: str, error: Exception) -> BusError:
    return BusError(
        f"register '{name}' could not be {access}: {reason(error)}; the next frame loads the overlay again."
    )
