# SPDX-License-Identifier: Apache-2.0
"""A board in software: a device for the real ``pynq`` package that contains the C-simulated accelerator.

``Overlay``, ``DefaultIP``, ``MMIO``, ``allocate`` and ``get_rails`` are pynq's own and work on it unchanged::

    from simulated import simulated_board
    with simulated_board("bundle/") as board, Accelerator.open("pynq", "bundle/", device=board) as acc:
        result = acc.run(image, "depth")

If the code that opens the accelerator must not change, let the environment variable ``EDGE_MOE_DEVICE``
name this file: the backend then takes the device that :func:`open_device` returns.
"""

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import pynq
import pynq.interrupt
import pynq.pmbus
from pynq.pl_server.embedded_device import (
    DEFAULT_XCLBIN,
    EmbeddedDevice,
    RuntimeMetadataParser,
    _unify_dictionaries,
    bit2bin,
)
from pynq.pl_server.xclbin_parser import XclBin
from pynqmetadata.frontends import Metadata
from simulated_design import BoardFacts, board_facts, configured_hash, write_design
from simulated_kernel import Fault, Injected, Kernel
from simulated_memory import BusFaultError, PhysicalMemory
from simulated_sensors import SimulatedSensors
from simulated_uio import SimulatedUio

from edge_moe_host.contract.bundle import Bundle, load_bundle
from edge_moe_host.contract.registers import INTERRUPTS

MEMORY_BASE, MEMORY_BYTES = 0x10000000, 1 << 28  # of the part of DRAM that Linux leaves to drivers
# Blocks of the processing system that pynq sets at a download: FPD_SLCR, LPD_SLCR, CRF_APB, CRL_APB, AFIFM
_PS_BLOCKS = (0xFD610000, 0xFF410000, 0xFD1A0000, 0xFF5E0000,
              *range(0xFD360000, 0xFD3C0000, 0x10000), 0xFF9B0000)  # fmt: skip
_PS_BLOCK_BYTES = 0x10000
_IOPLL_CTRL, _IOPLL_RESET = 0xFF5E0020, 45 << 8  # 45 times the reference clock of 33.333 MHz
_numbers = itertools.count()


class SimulatedDevice(pynq.Device):
    """The device. ``kernel`` exists after a bitstream was downloaded."""

    simulated = True
    arch = "aarch64"

    def __init__(self, tag: str, memory_base: int = MEMORY_BASE, memory_bytes: int = MEMORY_BYTES) -> None:
        """``tag`` identifies the device, also for locks: two of the same tag are the same board."""
        super().__init__(tag)
        self.name = "simulated board"  # until a design is loaded
        self.capabilities = {"REGISTER_RW": True}
        self.default_memory = PhysicalMemory(self, memory_base, memory_bytes)
        self.kernel: Kernel | None = None
        self.latency = 0.0  # least seconds of a run
        self.register_faults = self.fail_downloads = 0  # this many of the next ones fail
        self.register_skip = 0  # accesses to registers before the ones that fail
        self.downloads = 0
        self.bitstream: Path | None = None
        self._folder: Path | None = None
        self._faults: list[Injected] = []
        self._registers = {_IOPLL_CTRL: _IOPLL_RESET}  # of the processing system
        self._uio: SimulatedUio | None = None
        self._board: BoardFacts | None = None  # of the loaded design
        self._sensors = SimulatedSensors()
        self._replaced: list[tuple[Any, str, Any]] = []

    # Called by pynq

    def read_registers(self, address: int, length: int) -> bytes:
        """One 32-bit register. BusFaultError if nothing answers."""
        kernel = self._decode(address)
        value = kernel.read(address - self._control.start) if kernel else self._registers.get(address, 0)
        return value.to_bytes(4, "little")[:length]

    def write_registers(self, address: int, data: bytes) -> None:
        """Write 32-bit registers. BusFaultError if nothing answers."""
        for start in range(0, len(data), 4):
            place, value = address + start, int.from_bytes(data[start : start + 4], "little")
            kernel = self._decode(place)
            if kernel:
                kernel.write(place - self._control.start, value)
            else:
                self._registers[place] = value

    @property
    def _control(self) -> range:
        """Addresses of the accelerator's registers; none before a design is loaded."""
        board = self._board
        first = board.control_address if board else 0
        return range(first, first + (board.control_bytes if board else 0))

    def _decode(self, address: int) -> Kernel | None:
        """The accelerator, or None for the processing system."""
        if any(block <= address < block + _PS_BLOCK_BYTES for block in _PS_BLOCKS):
            return None
        if address not in self._control or self.kernel is None:
            raise BusFaultError(f"nothing answers at {address:#x}")
        if self.register_faults and self.register_skip:
            self.register_skip -= 1
        elif self.register_faults:
            self.register_faults -= 1
            raise BusFaultError(f"nothing answers at {address:#x}")
        return self.kernel

    def flush(self, bo: Any, offset: int, _: int, size: int) -> None:
        """Copy cache to DRAM."""
        bo.flush(offset, size)

    def invalidate(self, bo: Any, offset: int, _: int, size: int) -> None:
        """Copy DRAM to cache."""
        bo.invalidate(offset, size)

    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False) -> RuntimeMetadataParser:
        """pynq's own parser's result for the .hwh beside a bitstream."""
        parser = RuntimeMetadataParser(Metadata(input=str(Path(bitfile_name).with_suffix(".hwh"))))
        _unify_dictionaries(parser, XclBin(xclbin_data=DEFAULT_XCLBIN))
        parser.refresh_hierarchy_dict()
        parser.bin_data = bit2bin(Path(bitfile_name).read_bytes())
        return parser

    def download(self, bitstream: Any, parser: Any = None) -> None:
        """Configure the programmable logic: a run there ends, registers are as after reset."""
        self.configure(bit2bin(Path(bitstream.bitfile_name).read_bytes()))
        EmbeddedDevice.set_axi_port_width(self, parser)
        self.post_download(bitstream, parser, self.name)

    # In place of Linux and the programmable logic

    def configure(self, configuration: bytes) -> None:
        """Load a configuration whose words are swapped as FPGA manager expects."""
        if self.fail_downloads:
            self.fail_downloads -= 1
            raise RuntimeError("the configuration was refused")
        self._unload()
        self.downloads += 1
        words = b"".join(configuration[n : n + 4][::-1] for n in range(0, len(configuration), 4))
        config_hash = configured_hash(words)
        self._board = board_facts(config_hash)
        self.name = f"{self._board.name} (simulated)"
        self.kernel = Kernel(config_hash, self.default_memory, self._interrupt)
        self.kernel.latency = self.latency
        self.kernel.faults.extend(self._faults)
        self._faults = []

    def _unload(self) -> None:
        self.register_faults = self.register_skip = 0
        if self.kernel is not None:
            self.kernel.stop()
            self.kernel = None

    def _interrupt(self, level: bool) -> None:
        if self._uio is not None:
            self._uio.set_level(level)

    def _uio_path(self, irq: int) -> str | None:
        """The UIO device of an interrupt, as pynq finds it in /proc/interrupts."""
        if self._board is None or irq != INTERRUPTS[self._board.interrupt]:
            return None
        if self._uio is None:
            self._uio = SimulatedUio()
        return self._uio.path

    def activate(self) -> None:
        """Become pynq's device, and its source of interrupts and sensors, until :meth:`close`."""
        stand_ins = (
            (pynq.Device, "_active_device", self),
            (pynq.interrupt, "get_uio_irq", self._uio_path),
            (pynq.pmbus, "_lib", self._sensors),
        )
        for owner, name, value in stand_ins:
            self._replaced.append((owner, name, vars(owner).get(name)))
            setattr(owner, name, value)
        if "_real_instance" in vars(pynq.Clocks):
            del pynq.Clocks._real_instance  # of the device before
        if hasattr(pynq.Clocks, "set_device"):
            pynq.Clocks.set_device(self)
        else:  # pynq 3.0 knows the clocks of the machine that it runs on, and no others
            pynq.Clocks._real_instance = pynq.ps._ClocksUltrascale()

    def close(self) -> None:
        """Stop everything and restore pynq's state."""
        self._unload()
        while self._replaced:
            owner, name, before = self._replaced.pop()
            if before is None and name == "_active_device":
                delattr(owner, name)  # pynq looks for one again
            else:
                setattr(owner, name, before)
        if self._uio is not None:
            self._uio.close()
            self._uio = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> "SimulatedDevice":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()

    # Called by tests and demonstrations

    def inject(self, fault: Fault, count: int = 1, **details: Any) -> None:
        """Make the next ``count`` runs go wrong; ``details`` as in :class:`Injected`."""
        faults = [Injected(fault, **details)] * count
        if self.kernel is None:
            self._faults += faults
        else:
            self.kernel.faults.extend(faults)

    @property
    def violations(self) -> list[str]:
        """Forbidden actions of the driver; read them at the end."""
        self.default_memory.check_guards()
        return self.default_memory.violations

    def set_latency(self, seconds: float) -> None:
        """Make runs take at least ``seconds``."""
        self.latency = seconds
        if self.kernel is not None:
            self.kernel.latency = seconds


def simulated_board(bundle: Bundle | str | Path, *, tag: str | None = None, folder: Path | None = None,
                    latency: float = 0.0, memory_base: int = MEMORY_BASE,
                    memory_bytes: int = MEMORY_BYTES) -> SimulatedDevice:  # fmt: skip
    """A simulated board whose ``bitstream`` is the accelerator that a bundle was compiled for.

    It is pynq's active device until it is closed. ``tag``: its name, by default a unique one; boards of the
    same name exclude each other, in other processes too. ``folder``: where .bit and .hwh are written, by
    default one that is removed with the board. ``latency``: least seconds of a frame.
    """
    opened = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
    device = SimulatedDevice(tag or f"simulated-{os.getpid()}-{next(_numbers)}", memory_base, memory_bytes)
    if folder is None:
        folder = device._folder = Path(tempfile.mkdtemp(prefix="edge_moe_board_"))
    device.bitstream = write_design(Path(folder), opened.manifest.accelerator.hash)
    device.set_latency(latency)
    device.activate()
    return device


def open_device(bundle: Bundle) -> SimulatedDevice:
    """The device of ``EDGE_MOE_DEVICE``: a simulated board, which the backend closes."""
    return simulated_board(bundle)
