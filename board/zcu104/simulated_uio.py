# SPDX-License-Identifier: Apache-2.0
"""The interrupt of the simulated board as Linux shows it: a file that is read and written like ``/dev/uioN``.

Reading waits for a new interrupt and gives the number so far, in four bytes; the interrupt is then off until
four bytes that are not zero are written, as in the kernel's generic UIO driver. The file is one end of a
pseudo-terminal.
"""

import os
import select
import struct
import threading
import tty


class SimulatedUio:
    """One interrupt line. A driver opens ``path``."""

    def __init__(self) -> None:
        self._board, self._driver = os.openpty()
        tty.setraw(self._driver)
        self.path = os.ttyname(self._driver)
        self._wake, self._woken = os.pipe()
        self._lock = threading.Lock()
        self._level, self._enabled, self._count = False, False, 0
        self._thread = threading.Thread(target=self._listen, name="simulated UIO", daemon=True)
        self._thread.start()

    def set_level(self, level: bool) -> None:
        """The interrupt pin went up or down."""
        with self._lock:
            self._level = level
            self._deliver()

    def close(self) -> None:
        """Stop listening."""
        os.close(self._woken)
        self._thread.join()
        for file in (self._wake, self._board, self._driver):
            os.close(file)

    def _deliver(self) -> None:
        if self._level and self._enabled:
            self._enabled = False
            self._count += 1
            os.write(self._board, struct.pack("<I", self._count))

    def _listen(self) -> None:
        while True:
            ready, _, _ = select.select([self._board, self._wake], [], [])
            if self._wake in ready:
                return
            words = os.read(self._board, 4096)
            with self._lock:
                self._enabled = any(words[-4:])
                self._deliver()
