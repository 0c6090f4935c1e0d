# SPDX-License-Identifier: Apache-2.0
"""The accelerator in C simulation, through ctypes: a shared library that ``make -C hls csim`` builds, or the
package edge-moe at its first use.

It executes a bundle's program and weight image as the hardware does, and shows every intermediate.
"""

import ctypes
import functools
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe_host.contract import layout
from edge_moe_host.contract.bundle import Bundle, TaskProgram
from edge_moe_host.contract.encoding import encode
from edge_moe_host.contract.isa import ISA_VERSION, RECORD_BYTES, Instruction, Opcode
from edge_moe_host.contract.layout import TILE
from edge_moe_host.contract.registers import require_done
from edge_moe_host.contract.scratch import int8_pairs, named
from edge_moe_host.errors import BundleError, reason
from edge_moe_host.files import kind

BUILD = Path(__file__).parents[3] / "build" / "hls"
FOLDER_VARIABLE = "EDGE_MOE_CSIM_FOLDER"  # another folder with libraries
BUILDERS = "edge_moe_host.csim"  # entry points: configuration of an accelerator -> its library
_MESSAGE_BYTES = 1024


class CsimError(BundleError):
    """One sentence: the streams between the accelerator's parts could not go on."""


class _Buffers(ctypes.Structure):
    """Buffers of hls/src/csim.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("program", "weights", "image", "output")),
        *((name, ctypes.c_uint32) for name in ("program_offset", "program_records", "weight_beats")),
        *((name, ctypes.c_uint32) for name in ("image_bytes", "output_bytes")),
    )


class Registers(ctypes.Structure):
    """What the accelerator leaves in its register map; cycles are those of the loops as written."""

    _fields_ = (
        ("config_id", ctypes.c_uint64),
        *((name, ctypes.c_uint32) for name in ("version", "status", "error", "position", "cycles")),
    )


_BYTES, _SUMS = ctypes.POINTER(ctypes.c_uint8), ctypes.POINTER(ctypes.c_int32)
_SEEN = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, _BYTES, ctypes.c_uint32, _SUMS, ctypes.c_uint32
)


class _Tap(ctypes.Structure):
    _fields_ = (("seen", _SEEN), ("user", ctypes.c_void_p))


# instruction, its cycles, scratch memory uint8 [bytes], accumulators int32 [rows, 32]; valid during the call
Watcher = Callable[[int, int, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class CsimRun:
    """One frame: ``raw`` int16 [h*w, C]; cycles of the loops as written, without waiting for memory.

    A traced run also has ``instruction_cycles`` and ``tensors`` (by golden's names, without the batch).
    """

    raw: np.ndarray
    cycles: int
    instruction_cycles: tuple[int, ...]
    tensors: dict[str, np.ndarray]


def library_path(config_hash: str) -> Path:
    """Where ``make -C hls csim`` puts the accelerator of this configuration."""
    return Path(os.environ.get(FOLDER_VARIABLE) or BUILD) / f"libedge_moe_{config_hash}.so"


def how_to_build() -> str:
    """What to do where a library is missing and nothing here can build it."""
    hls = BUILD.parents[1] / "hls"
    if hls.is_dir():
        make = f"make -C {shlex.quote(str(hls))} csim ACCELERATOR=zcu104"
        return f"{make} builds it, with the name or file of another accelerator in place of zcu104"
    return "pip install edge-moe, which builds it at its first use"


class Csim:
    """One build of the accelerator."""

    def __init__(self, library: Path) -> None:
        """BundleError when the library is missing or is not an accelerator's."""
        if kind(library, BundleError) != "file":
            raise BundleError(f"the C simulation '{library}' is missing: {how_to_build()}.")
        try:
            self._run = ctypes.CDLL(str(library)).edge_moe_csim_run
        except (OSError, AttributeError) as error:
            raise BundleError(
                f"'{library}' is no C simulation of the accelerator: {reason(error)}."
            ) from None
        self.library = library
        self._run.restype = ctypes.c_int

    @functools.cached_property
    def identity(self) -> Registers:
        """Registers after a run without a program: configuration and version."""
        empty = np.zeros(0, np.uint8)
        return self.execute(empty, empty, empty, empty)

    def execute(
        self,
        program: np.ndarray,
        weights: np.ndarray,
        image: np.ndarray,
        output: np.ndarray,
        offset: int = 0,
        watch: Watcher | None = None,
    ) -> Registers:
        """Start the accelerator on uint8 buffers; ``output`` is written in place.

        ``program`` [bytes]: executed from instruction ``offset`` to the end of the buffer. ``weights``
        [bytes]: the weight image. ``image`` [H, W, 3]. ``output`` [h*w, row bytes]. CsimError when the
        streams between the accelerator's parts deadlock, overflow or keep leftovers.
        """
        image_bytes = image.nbytes
        if image_bytes % 16:
            image = np.concatenate([image.reshape(-1), np.zeros(-image_bytes % 16, np.uint8)])
        program, weights, image = (np.ascontiguousarray(array) for array in (program, weights, image))
        buffers = _Buffers(
            *(array.ctypes.data for array in (program, weights, image, output)),
            offset,
            len(program) // RECORD_BYTES - offset,
            len(weights) // layout.BEAT,
            image_bytes,
            output.nbytes,
        )
        registers, message = Registers(), ctypes.create_string_buffer(_MESSAGE_BYTES)
        raised: list[Exception] = []

        def seen(_: int, index: int, cycles: int, scratch: Any, size: int, sums: Any, rows: int) -> None:
            memory = np.ctypeslib.as_array(scratch, (size,))
            accumulators = np.ctypeslib.as_array(sums, (rows, TILE))
            try:
                watch(index, cycles, memory, accumulators)  # type: ignore[misc]
            except Exception as error:  # it cannot pass through C
                raised.append(error)

        tap = _Tap(_SEEN(seen), None) if watch else None
        failed = self._run(
            ctypes.byref(buffers), ctypes.byref(registers), tap and ctypes.byref(tap), message, _MESSAGE_BYTES
        )
        if raised:
            raise raised[0]
        if failed:
            raise CsimError(f"the C simulation could not go on: {message.value.decode(errors='replace')}")
        return registers

    def check(self, bundle: Bundle) -> None:
        """BundleError unless the bundle was compiled for this accelerator."""
        wanted = bundle.manifest.accelerator.hash
        built, version = f"{self.identity.config_id:016x}", self.identity.version
        if built != wanted:
            raise BundleError(
                f"'{self.library}' is of the accelerator configuration {built}, bundle '{bundle.path}' "
                f"was compiled for {wanted}: build or compile again."
            )
        if version != ISA_VERSION:
            raise BundleError(
                f"'{self.library}' executes instructions of version {version}, this program knows "
                f"{ISA_VERSION}: build it again."
            )

    def run(self, bundle: Bundle, task: str, image: np.ndarray, trace: bool = False) -> CsimRun:
        """One frame of a task, uint8 RGB [H, W, 3]. BundleError for another task, image or accelerator,
        DeviceStoppedError when the accelerator stops."""
        self.check(bundle)
        program = bundle.task(task)
        if image.dtype != np.uint8 or list(image.shape) != program.entry.image:
            raise BundleError(
                f"the image is {image.dtype} {list(image.shape)}: task '{task}' takes uint8 "
                f"{program.entry.image}."
            )
        out = program.entry.output
        buffer = np.zeros((out.height * out.width, out.row_bytes), np.uint8)
        tracer = _Tracer(program)
        registers = self.execute(
            program_bytes(program), bundle.weights, image, buffer, watch=tracer if trace else None
        )
        require_done(task, bundle.path, registers.status, registers.error, registers.position)
        raw = buffer.view("<i2")[:, : out.channels].astype(np.int16)
        return CsimRun(raw, registers.cycles, tuple(tracer.cycles), tracer.tensors)


def open_csim(bundle: Bundle, library: Path | None = None) -> Csim:
    """The C simulation that a bundle was compiled for, built now if edge-moe is installed and it is missing.

    BundleError when it is missing all the same, or does not match.
    """
    accelerator = bundle.manifest.accelerator
    if library is None:
        library = library_path(accelerator.hash)
        builders = entry_points(group=BUILDERS)
        if builders and not library.is_file():
            library = next(iter(builders)).load()(accelerator.config)
    csim = Csim(library)
    csim.check(bundle)
    return csim


@functools.lru_cache(maxsize=16)
def program_bytes(program: TaskProgram) -> np.ndarray:
    """uint8 [bytes]: the program as it is stored in memory."""
    return np.frombuffer(b"".join(map(encode, program.instructions)), dtype=np.uint8)


class _Tracer:
    """Collects cycles, and from the scratch memory the tensors that the manifest names."""

    def __init__(self, program: TaskProgram) -> None:
        self.program = program
        self.cycles: list[int] = []
        self.tensors: dict[str, np.ndarray] = {}
        self._logits: list[np.ndarray] = []

    def __call__(self, index: int, cycles: int, scratch: np.ndarray, sums: np.ndarray) -> None:
        self.cycles.append(cycles)
        instruction = self.program.instructions[index]
        if instruction.opcode == Opcode.GATE:
            self._logits.append(gate_logits(instruction, sums))
        for tensor in self.program.tensors_after.get(index, ()):
            self.tensors[tensor.name] = named(tensor, scratch, int8_pairs, self._logits)


def gate_logits(instruction: Instruction, sums: np.ndarray) -> np.ndarray:
    """int32 [rows, experts] from the accumulators that GATE leaves: high halves, then low ones with bias."""
    pairs, columns = layout.pairs(instruction.rows), []
    for tile in range(layout.gate_tiles(instruction.experts)):
        start = layout.PAIR * tile * pairs
        block = sums[start : start + instruction.rows].astype(np.int64)
        high, low = block[:, : layout.GATE_EXPERTS], block[:, layout.GATE_EXPERTS :]
        columns.append((high << layout.LOW_BITS) + low)
    return np.concatenate(columns, axis=1)[:, : instruction.experts].astype(np.int32)
