# SPDX-License-Identifier: Apache-2.0
"""Places in the scratch memory for buffers that live for a while: offline, lowest gap first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_moe_host.contract.layout import ALIGNMENT


@dataclass(eq=False)
class Buffer:
    """Bytes that hold their contents from instruction ``first`` to instruction ``last``, both included."""

    name: str
    size: int
    first: int = -1  # not used yet
    last: int = -1
    address: int = -1  # not placed yet

    def use(self, instruction: int) -> None:
        """The instruction reads, writes or works in the buffer."""
        self.first = instruction if self.first < 0 else self.first
        self.last = instruction

    def lives_with(self, other: "Buffer") -> bool:
        """Some instruction finds both in memory."""
        return self.first <= other.last and other.first <= self.last


_ORDERS: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
    lambda buffer: (-buffer.size, buffer.first),
    lambda buffer: (buffer.first - buffer.last, -buffer.size),
    lambda buffer: (buffer.first, -buffer.size),
)


def allocate(buffers: Sequence[Buffer]) -> int:
    """Give every buffer its address; the bytes that all of them together need.

    Buffers are placed one after the other at the lowest address where nothing lives at the same
    time, in several orders; the order of the lowest peak wins.
    """
    best: list[int] | None = None
    peak = 0
    for order in _ORDERS:
        placed: list[Buffer] = []
        for buffer in sorted(buffers, key=order):
            buffer.address = _lowest_gap(buffer, placed)
            placed.append(buffer)
        height = max((buffer.address + buffer.size for buffer in buffers), default=0)
        if best is None or height < peak:
            best, peak = [buffer.address for buffer in buffers], height
    for buffer, address in zip(buffers, best or [], strict=True):
        buffer.address = address
    return peak


def _lowest_gap(buffer: Buffer, placed: Sequence[Buffer]) -> int:
    address = 0
    neighbours = sorted(
        (other for other in placed if other.lives_with(buffer)), key=lambda other: other.address
    )
    for other in neighbours:
        if address + buffer.size <= other.address:
            break
        address = max(address, -(-(other.address + other.size) // ALIGNMENT) * ALIGNMENT)
    return address


def live_bytes(buffers: Sequence[Buffer]) -> int:
    """Most bytes that live at one time: no placement can need less."""
    times = {buffer.first for buffer in buffers}
    return max(
        (sum(buffer.size for buffer in buffers if buffer.first <= time <= buffer.last) for time in times),
        default=0,
    )
