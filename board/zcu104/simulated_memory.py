# SPDX-License-Identifier: Apache-2.0
"""Memory of the simulated board: DRAM that the accelerator sees, and the processor's cache of it.

The two are separate arrays. Only ``flush`` copies bytes from the processor to DRAM and only ``invalidate``
from DRAM to the processor, so a driver that forgets one computes with stale bytes. Dirty cache lines
overwrite bytes of the accelerator, as a cache may write back at any time. Guard bytes surround every buffer,
and every buffer is accounted for.
"""

import threading
from typing import Any

import numpy as np
from pynq.buffer import PynqBuffer

PAGE = 4096
LINE = 64  # bytes of a cache line
GUARD, FRESH, STALE, FREED = 0x9C, 0xA5, 0x5A, 0xDD  # bytes of guards, new DRAM, new cache lines, freed DRAM


class BusFaultError(OSError):
    """An address at which nothing answers."""


class BufferObject:
    """A piece of memory: the accelerator sees ``dram``, the processor ``cache``."""

    def __init__(self, address: int, size: int, span: np.ndarray) -> None:
        """``span``: DRAM from one page before ``address`` to the end of the last page."""
        self.address, self.size, self.span = address, size, span
        padded = -(-size // LINE) * LINE
        span[:] = GUARD
        self.dram = span[PAGE : PAGE + size]
        self.dram[:] = FRESH
        # the cache, and its contents when it last agreed with DRAM: one array, changed in one step
        self._both = np.full((2, padded), STALE, np.uint8)
        self.cache, self._clean = self._both

    def flush(self, offset: int, size: int) -> None:
        """Write cache lines to DRAM."""
        part = slice(offset, offset + size)
        self.dram[part] = self._clean[part] = self.cache[part]

    def invalidate(self, offset: int, size: int) -> None:
        """Drop cache lines; the processor reads DRAM."""
        self._both[:, offset : offset + size] = self.dram[offset : offset + size]

    def evict(self) -> None:
        """Write dirty lines back, even over bytes that the accelerator wrote."""
        dirty = (self.cache != self._clean).reshape(-1, LINE).any(axis=1).repeat(LINE)
        if dirty.any():
            part = dirty[: self.size]
            self.dram[part] = self.cache[: self.size][part]
            self._clean[dirty] = self.cache[dirty]

    def guards_hold(self) -> bool:
        """Whether nobody wrote before or after the buffer."""
        before, behind = self.span[:PAGE], self.span[PAGE + self.size :]
        return bool((before == GUARD).all() and (behind == GUARD).all())


class PhysicalMemory:
    """DRAM from ``base`` on. Buffers are real ``PynqBuffer``s and are returned by ``freebuffer``."""

    def __init__(self, device: Any, base: int, size: int) -> None:
        self.base, self.size = base, size
        self.fail_next = 0  # number of next allocations to refuse
        self.violations: list[str] = []  # actions of an incorrect driver
        self.peak_bytes = 0
        self._device = device
        self._dram = np.zeros(size, np.uint8)  # pages that are never touched take no memory
        self._live: dict[int, BufferObject] = {}
        self._lock = threading.Lock()

    # Called by pynq

    def allocate(self, shape: Any, dtype: Any, cacheable: int = 1) -> PynqBuffer:
        """A buffer; RuntimeError, like XRT's, when memory does not suffice."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        bo = self._reserve(size)
        place = {"bo": bo, "device": self._device, "device_address": bo.address, "coherent": False}
        buffer = PynqBuffer(shape, dtype, buffer=bo.cache, **place)
        buffer.memory, buffer.pointer, buffer.return_to = self, bo, self
        buffer.freed = True  # for pynq's other way of freeing, which unmaps XRT's memory
        return buffer

    def return_pointer(self, bo: BufferObject) -> None:
        """Free a buffer."""
        with self._lock:
            if self._live.pop(bo.address, None) is not bo:
                self.violations.append(f"the buffer at {bo.address:#x} was freed twice")
                return
            self._check_guards(bo)
            bo.span[:] = FREED

    # Called by the accelerator and by tests

    @property
    def buffers(self) -> int:
        """Number of allocated buffers."""
        return len(self._live)

    @property
    def bytes(self) -> int:
        """Number of allocated bytes."""
        return sum(bo.size for bo in self._live.values())

    def owner(self, address: int, size: int) -> BufferObject:
        """The buffer that holds all of these bytes; BusFaultError outside of DRAM.

        An access to DRAM outside every buffer is a violation and changes nothing.
        """
        if not (self.base <= address and address + size <= self.base + self.size):
            raise BusFaultError(f"no memory answers at {address:#x}")
        with self._lock:
            for bo in self._live.values():
                if bo.address <= address and address + size <= bo.address + bo.size:
                    return bo
        self.violations.append(f"{size} bytes at {address:#x} are outside of every buffer")
        raise BusFaultError(f"there is no buffer at {address:#x}")

    def view(self, address: int, size: int) -> np.ndarray:
        """uint8 [size] of DRAM, as :meth:`owner` allows."""
        bo = self.owner(address, size)
        start = address - bo.address
        return bo.dram[start : start + size]

    def check_guards(self) -> None:
        """Note every buffer whose guards were overwritten."""
        with self._lock:
            for bo in self._live.values():
                self._check_guards(bo)

    def _check_guards(self, bo: BufferObject) -> None:
        if not bo.guards_hold():
            self.violations.append(f"bytes around the buffer at {bo.address:#x} were overwritten")

    def _reserve(self, size: int) -> BufferObject:
        """First fit; a guard page precedes every buffer, and no other buffer shares its last page."""
        if size < 1:
            raise RuntimeError("BO allocation failed: a buffer needs at least one byte")
        need = PAGE + -(-(size + 1) // PAGE) * PAGE
        with self._lock:
            if self.fail_next:
                self.fail_next -= 1
                raise RuntimeError("BO allocation failed: Cannot allocate memory")
            start = 0
            for bo in sorted(self._live.values(), key=lambda live: live.address):
                taken = bo.address - PAGE - self.base
                if taken - start >= need:
                    break
                start = taken + len(bo.span)
            if start + need > self.size:
                raise RuntimeError("BO allocation failed: Cannot allocate memory")
            address = self.base + start + PAGE
            bo = self._live[address] = BufferObject(address, size, self._dram[start : start + need])
            self.peak_bytes = max(self.peak_bytes, self.bytes)
            return bo
