# SPDX-License-Identifier: Apache-2.0
"""Exceptions of the host runtime: each message is one sentence meant for its user.

Everything that the public functions raise on bad input or bad devices derives from
:class:`EdgeMoEError`.
"""

import difflib
import functools
import sys
from collections.abc import Callable, Iterable
from typing import ParamSpec

P = ParamSpec("P")


class EdgeMoEError(Exception):
    """One sentence: what is wrong, where, and what to do."""


class BundleError(EdgeMoEError, ValueError):
    """A bundle that cannot be used."""


class BackendError(EdgeMoEError):
    """A backend that is unknown, lacks what it needs here, or was given options that it does not take."""


class TaskError(BundleError):
    """A task that the bundle does not have."""


class ImageError(EdgeMoEError, ValueError):
    """A picture, a video or an array that cannot be read as an image."""


class SourceError(EdgeMoEError):
    """A stream's source raised an exception of its own, which is this one's ``__cause__``."""


class ClosedError(EdgeMoEError):
    """An accelerator was used after it was closed."""


class DeviceError(EdgeMoEError):
    """A backend's device failed; the next frame works again or says why it cannot."""


class DeviceTimeoutError(DeviceError):
    """The device did not finish in time."""


class DeviceStoppedError(DeviceError):
    """The device stopped a program: its registers ``status``, ``error`` and ``position``."""

    def __init__(self, message: str, status: int, error: int, position: int) -> None:
        super().__init__(message)
        self.status, self.error, self.position = status, error, position


class ConfigurationError(DeviceError):
    """The device is not the one that the bundle was compiled for."""


class AllocationError(DeviceError):
    """Memory that the device shares with the host could not be allocated."""


class BusError(DeviceError):
    """An access to the device's registers or memory failed."""


class DeviceBusyError(DeviceError):
    """Another process, or another accelerator of this process, is using the device."""


def reason(error: BaseException) -> str:
    """The first line of a foreign exception's text without its full stop, or else its class."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:300] if lines else type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy, OpenCV or PyTorch, which have no common class for it, ran out of memory."""
    texts = ("out of memory", "not enough memory", "allocate memory", "insufficient memory")
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in texts)


def listed(known: Iterable[str], name: str) -> str:
    """The names that ``name`` is not among, and the one that was probably meant."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    return ", ".join(names) + (f" (did you mean '{near[0]}'?)" if near else "")


def one_line_errors(command: Callable[P, int]) -> Callable[P, int]:
    """The command, printing an EdgeMoEError as one sentence and returning exit status 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return command(*args, **kwargs)
        except EdgeMoEError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return run
