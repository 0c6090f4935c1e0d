# SPDX-License-Identifier: Apache-2.0
"""One user of a device at a time, across processes of this machine.

The kernel keeps the lock and releases it when the process that holds it ends, for whatever reason.
"""

import fcntl
import os
import re
import tempfile
from pathlib import Path

from edge_moe_host.errors import DeviceBusyError, DeviceError

_SHARED = Path("/run/lock")  # where every user may make files, and which a boot empties


class DeviceLock:
    """Exclusive use of the device called ``name``."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """``folder``: of the lock's file; the same for all users that exclude each other."""
        if folder is None:
            folder = _SHARED if os.access(_SHARED, os.W_OK) else Path(tempfile.gettempdir())
        self.name = name
        self.path = folder / f"edge_moe_{re.sub(r'[^A-Za-z0-9.-]', '_', name)}.lock"
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the device now. DeviceBusyError when another process, or another user in this one, has it."""
        if self._file is not None:
            raise DeviceBusyError(f"device '{self.name}' is in use by this object already.")
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise DeviceError(
                f"device '{self.name}' cannot be locked: '{self.path}': {error.strerror or error}."
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip()
            os.close(file)
            who = f"process {holder}" if holder.isdecimal() else "another process"
            if holder == str(os.getpid()):
                who = "this process"
            raise DeviceBusyError(
                f"device '{self.name}' is in use by {who}: close its accelerator, or end it."
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        """Give the device back; no effect when it is not held."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def __enter__(self) -> "DeviceLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
