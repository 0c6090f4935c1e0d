# SPDX-License-Identifier: Apache-2.0
"""Places in the scratch memory for buffers of limited life: offline, lowest gap first."""

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
        """Note that the instruction reads, writes or works in the buffer."""
        self.first = instruction if self.first < 0 else self.first
        self.last = instruction

    def lives_with(self, other: "Buffer") -> bool:
        """Whether both are in memory during some instruction."""
        return self.first <= other.last and other.first <= self.last


_ORDERS: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
    lambda buffer: (-buffer.size, buffer.first),
    lambda buffer: (buffer.first - buffer.last, -buffer.size),
    lambda buffer: (buffer.first, -buffer.size),
)


def allocate(buffers: Sequence[Buffer]) -> int:
    """Give every buffer its address; returns the bytes that all of them together need.

    Buffers are placed one after the other, each at the lowest address that no buffer of the same time
    takes. This is tried in several orders; the order with the lowest peak wins.
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
    """The most bytes that live at one time: no placement can need fewer."""
    times = {buffer.first for buffer in buffers}
    return max(
        (sum(buffer.size for buffer in buffers if buffer.first <= time <= buffer.last) for time in times),
        default=0,
    )
