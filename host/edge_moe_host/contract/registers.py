# SPDX-License-Identifier: Apache-2.0
"""Register map of the accelerator's AXI4-Lite port, and the meaning of its status and error codes.

The registers are the arguments of the top function (hls/src/edge_moe.cpp) in their order; Vitis HLS assigns
offsets by a fixed rule, which :func:`_place` states. Control is ap_ctrl_hs.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from edge_moe_host.errors import DeviceStoppedError

WORD_BYTES = 4
FIRST_ARGUMENT = 0x10  # after the control registers


class Status(enum.IntEnum):
    """Register ``status``: how the last run ended. 0 before any run."""

    DONE = 1
    STOPPED = 2


class Error(enum.IntEnum):
    """Register ``error``: why a program was stopped; ``position`` holds the instruction."""

    NONE = 0
    UNFINISHED = 1
    CHECKSUM = 2
    UNKNOWN = 3
    RANGE = 4
    SHAPE = 5
    SCRATCH = 6
    OVERLAP = 7
    WEIGHTS = 8
    ENTRY = 9
    IMAGE = 10
    OUTPUT = 11
    ORDER = 12


REASONS = {
    Error.UNFINISHED: "the program has no END where its buffer or the accelerator's max_instructions ends",
    Error.CHECKSUM: "its checksum does not match",
    Error.UNKNOWN: "its opcode, epilogue or some bits mean nothing to this accelerator",
    Error.RANGE: "a field exceeds its range or the accelerator's limit",
    Error.SHAPE: "its fields do not fit each other",
    Error.SCRATCH: "an address is not a multiple of 64, or rows reach beyond the scratch memory",
    Error.OVERLAP: "it would overwrite rows that it reads",
    Error.WEIGHTS: "its weight block is not of its shape's length or reaches beyond the weight image",
    Error.ENTRY: "an entry of its expert table is damaged or does not fit it",
    Error.IMAGE: "the image buffer does not have the size that it takes",
    Error.OUTPUT: "the output buffer is too small for what it stores",
    Error.ORDER: "PATCHES and STORE must each come exactly once before END",
}


def describe(error: int, position: int) -> str:
    """One clause: why the accelerator stopped, and at which instruction."""
    known = error in Error.__members__.values()
    reason = REASONS.get(Error(error), "no error") if known else f"unknown error code {error}"
    return f"stopped at instruction {position}: {reason}"


def require_done(task: str, bundle: object, status: int, error: int, position: int) -> None:
    """DeviceStoppedError unless these registers say that the run of a bundle's task ended regularly."""
    if status != Status.DONE or error != Error.NONE:
        raise DeviceStoppedError(
            f"task '{task}' of '{bundle}' {describe(error, position)} (status {status}, error {error}).",
            *(status, error, position),
        )


@dataclass(frozen=True)
class Register:
    """``bits`` from byte ``offset`` on, in 32-bit words, low word first. ``access``: rw or r."""

    name: str
    offset: int
    bits: int
    access: str
    doc: str


_ARGUMENTS = (
    ("program", 64, "rw", "address of the program buffer"),
    ("tables", 64, "rw", "address of the weight image, for expert tables"),
    ("weights0", 64, "rw", "address of the weight image, first port"),
    ("weights1", 64, "rw", "the same, second port"),
    ("weights2", 64, "rw", "the same, third port"),
    ("image", 64, "rw", "address of the image: uint8 [height, width, 3], padded to 16 bytes"),
    ("output", 64, "rw", "address of the output buffer"),
    ("program_offset", 32, "rw", "first instruction of the task, from the program buffer's start"),
    ("program_records", 32, "rw", "instructions from there to the end of the task's program"),
    ("weight_beats", 32, "rw", "size of the weight image in beats of 64 bytes"),
    ("image_bytes", 32, "rw", "size of the image"),
    ("output_bytes", 32, "rw", "size of the output buffer"),
    ("config_id", 64, "r", "hash of the accelerator's configuration"),
    ("version", 32, "r", "version of the instruction set"),
    ("status", 32, "r", "how the run ended: Status"),
    ("error", 32, "r", "why it stopped: Error"),
    ("position", 32, "r", "instruction that stopped it, or END"),
    ("cycles", 32, "r", "clock cycles of the run"),
)


def _place() -> Iterator[Register]:
    """The arguments at their offsets, as Vitis HLS assigns them.

    An input takes its words and one reserved word. An output takes its words, one word ``NAME_ctrl`` with the
    valid flag, and the same number of reserved words.
    """
    offset = FIRST_ARGUMENT
    for name, bits, access, doc in _ARGUMENTS:
        yield Register(name, offset, bits, access, doc)
        if access == "r":
            flag = f"bit 0: {name} is valid; reading clears it"
            yield Register(f"{name}_ctrl", offset + bits // 32 * WORD_BYTES, 32, "r", flag)
        offset += (bits // 32 + 1) * WORD_BYTES * (2 if access == "r" else 1)


CONTROL = (
    Register("ap_ctrl", 0x00, 32, "rw",
             "0 start, 1 done (cleared by reading), 2 idle, 3 ready, 7 restart, 9 interrupt"),
    Register("gie", 0x04, 32, "rw", "bit 0: interrupts are enabled"),
    Register("ier", 0x08, 32, "rw", "interrupts that are enabled: 0 done, 1 ready"),
    Register("isr", 0x0C, 32, "rw", "interrupts that have come; writing 1 toggles a bit"),
)  # fmt: skip
AP_START, AP_DONE, AP_IDLE, AP_READY = 1, 2, 4, 8  # bits of ap_ctrl

REGISTERS: dict[str, Register] = {register.name: register for register in (*CONTROL, *_place())}
SIZE = max(register.offset + register.bits // 8 for register in REGISTERS.values())  # bytes that are used
MASTERS = ("program", "tables", "weights0", "weights1", "weights2", "image", "output")  # m_axi_gmem_NAME
INTERRUPTS = {"pl_ps_irq0": 121, "pl_ps_irq1": 136}  # inputs of the processing system, and Linux's numbers
