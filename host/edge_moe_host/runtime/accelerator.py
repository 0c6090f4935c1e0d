# SPDX-License-Identifier: Apache-2.0
"""One interface to everything that runs a bundle: integer reference, ONNX, C simulation, board, float model.

::

    with Accelerator.open("csim", "bundle/") as acc:
        result = acc.run("photo.jpg", "depth")
        for result in acc.stream("clip.mp4", "semseg"):
            ...

A backend is a subclass that implements the hooks at the end of :class:`Accelerator`. Its package registers
the class under the backend's name, as an entry point of the group ``edge_moe_host.backends``.
"""

import contextlib
import importlib
import inspect
import threading
import typing
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe_host.contract.bundle import Bundle, load_bundle
from edge_moe_host.errors import BackendError, BundleError, ClosedError, DeviceError, TaskError, listed
from edge_moe_host.runtime.images import as_image, resize_image
from edge_moe_host.runtime.result import Raw, Result, make_result
from edge_moe_host.runtime.stream import Policy, run_stream

GROUP = "edge_moe_host.backends"
BUILTIN = {
    "golden": "edge_moe_host.backends.golden:GoldenAccelerator",
    "csim": "edge_moe_host.backends.csim:CsimAccelerator",
    "onnx": "edge_moe_host.backends.onnx:OnnxAccelerator",
    "pynq": "edge_moe_host.backends.pynq:PynqAccelerator",
}


@dataclass
class TaskCounters:
    """Totals over all finished frames of a task. ``cycles`` stays 0 when the device counts none;
    ``milliseconds`` are the device's own; bytes are the sizes of images and results."""

    frames: int = 0
    cycles: int = 0
    milliseconds: float = 0.0
    image_bytes: int = 0
    output_bytes: int = 0


@dataclass(eq=False)
class Launch:
    """A submitted frame: its name, the picture that it was made from, and what became of it."""

    name: str
    picture: np.ndarray  # as given, uint8 [h, w, 3]
    task: str
    token: Any = field(repr=False)
    raw: Raw | None = field(default=None, repr=False)
    error: Exception | None = None


class Accelerator(ABC):
    """A bundle opened on a backend, by :meth:`open`. Several threads may use it, one frame at a time."""

    slots: int = 1  # frames that may be submitted and not yet collected
    bundle: Bundle

    # Opening and closing

    @staticmethod
    def open(backend: str, bundle: str | Path | Bundle, **options: Any) -> "Accelerator":
        """Open a bundle on a backend; ``options`` are the backend's own.

        BackendError for an unknown backend, one that lacks what it needs here, or an unknown option;
        BundleError for a bundle that cannot be used; DeviceError when the device fails.
        """
        cls = backend_class(backend)
        known = inspect.signature(cls._open).parameters
        for option in options:
            if option not in known or option == "self":
                takes = listed((name for name in known if name != "self"), option) or "none"
                raise BackendError(f"backend '{backend}' has no option '{option}': it takes {takes}.")
        for name, value in options.items():
            options[name] = _converted(backend, name, value, known[name].annotation)
        if not isinstance(bundle, str | Path | Bundle):
            raise BundleError(
                f"bundle = {bundle!r} is not a folder's path: give the folder that compile wrote."
            )
        accelerator = cls()
        accelerator.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
        accelerator._prepare()
        try:
            accelerator._open(**options)
        except BaseException:
            accelerator._close()
            raise
        return accelerator

    def _prepare(self) -> None:
        self._lock = threading.RLock()
        self._flights: deque[Launch] = deque()
        self._counters = {task: TaskCounters() for task in self.bundle.tasks}
        self._current = next(iter(self.bundle.tasks))
        self._closed = False

    def close(self) -> None:
        """Give the device back; a second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._lose_flights(ClosedError("the accelerator was closed with the frame on its way."))
                self._close()

    def __enter__(self) -> "Accelerator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Running

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the bundle, in its order."""
        return tuple(self.bundle.tasks)

    @property
    def task(self) -> str:
        """The default task of :meth:`run`: the bundle's first, or the last that was switched to."""
        return self._current

    def switch(self, task: str) -> None:
        """Make ``task`` the current one. TaskError for a task that the bundle does not have."""
        self._current = self.bundle.task(task).name

    def run(self, image: np.ndarray | str | Path, task: str | None = None) -> Result:
        """Run one task on a picture, a file or uint8 RGB [h, w, 3] of any size; the result has its size.

        ImageError, TaskError, ClosedError or DeviceError say what went wrong; the next call works.
        """
        picture, name = as_image(image), task or self._current
        return self.land(self.launch("", picture, resize_image(picture, self.image_size(name)), name))

    def image_size(self, task: str) -> tuple[int, int]:
        """(height, width) to which pictures are resized for a task. TaskError for an unknown task."""
        height, width, _ = self.bundle.task(task).entry.image
        return height, width

    def run_tasks(
        self, image: np.ndarray | str | Path, tasks: Sequence[str] | None = None
    ) -> dict[str, Result]:
        """Task -> result of :meth:`run` on the same picture, by default for all tasks of the bundle."""
        picture = as_image(image)
        names = [self.bundle.task(task).name for task in (self.tasks if tasks is None else tasks)]
        return {task: self.run(picture, task) for task in names}

    def stream(
        self,
        source: Any,
        task: str | Sequence[str] | None = None,
        *,
        queue: int | None = None,
        policy: Policy | None = None,
    ) -> Iterator[Result]:
        """Results of every frame of ``source``, read and prepared while the device works.

        ``source``: see :func:`edge_moe_host.runtime.images.frames`. ``task``: one, or several that take
        turns frame by frame. ``policy``: ``block`` loses no frame, ``latest`` drops the oldest waiting one;
        the default is ``latest`` for cameras only. At most ``queue`` frames wait on either side of the
        device (2, or 1 with ``latest``).
        Closing the iterator, Ctrl-C, and errors of source or device leave the accelerator usable.
        """
        names = [task or self._current] if task is None or isinstance(task, str) else list(task)
        for name in names:
            self.bundle.task(name)
        if not names:
            raise TaskError("a stream needs at least one task.")
        self._check_open()
        return run_stream(self, source, names, queue, policy)

    def counters(self) -> dict[str, TaskCounters]:
        """Totals of each task since the accelerator was opened."""
        with self._lock:
            return {task: TaskCounters(**vars(counters)) for task, counters in self._counters.items()}

    # Parts of run and stream

    def launch(self, name: str, picture: np.ndarray, image: np.ndarray, task: str) -> Launch:
        """Submit ``image``, uint8 [H, W, 3], which is ``picture`` at the task's size; waits for a slot.

        ClosedError, or DeviceError when the device refuses the frame.
        """
        with self._lock:
            self._check_open()
            while len(self._flights) >= self.slots:
                self._land_oldest()
            try:
                token = self._submit(task, image)
            except BaseException as error:
                self._fail(error)
                raise
            self._flights.append(launch := Launch(name, picture, task, token))
        return launch

    def land(self, launch: Launch) -> Result:
        """Wait for a frame and interpret its result; raises the device's error."""
        with self._lock:
            while launch.raw is None and launch.error is None:
                self._land_oldest()
        if launch.error is not None:
            raise launch.error
        assert launch.raw is not None
        return make_result(self.bundle.task(launch.task), launch.raw, launch.picture, launch.name)

    def _land_oldest(self) -> None:
        flight = self._flights[0]
        try:
            raw = self._collect(flight.token)
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._flights.popleft().raw = raw
            self._count(flight.task, raw)

    def _fail(self, error: BaseException) -> None:
        """Fail every frame in flight with ``error``, and make the device ready for the next one."""
        if not isinstance(error, Exception):  # an interrupt belongs to the thread that received it
            error = DeviceError("the frame was lost, as the one before it was interrupted.")
        self._lose_flights(error)
        self._reset()

    def _lose_flights(self, error: Exception) -> None:
        while self._flights:
            self._flights.popleft().error = error

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the accelerator is closed: open it again.")

    def _count(self, task: str, raw: Raw) -> None:
        counters, entry = self._counters[task], self.bundle.task(task).entry
        height, width, channels = entry.image
        counters.frames += 1
        counters.cycles += raw.cycles or 0
        counters.milliseconds += 1e3 * raw.seconds
        counters.image_bytes += height * width * channels
        counters.output_bytes += raw.values.nbytes

    # Hooks of a backend, called under the lock, never after _close

    @abstractmethod
    def _open(self, *args: Any, **options: Any) -> None:
        """Acquire what running ``self.bundle`` needs. The parameters of a backend's own method, all with
        defaults, are the options of :meth:`open`. ``_close`` is called when it raises.
        """

    @abstractmethod
    def _run_raw(self, task: str, image: np.ndarray) -> Raw:
        """Run one frame; ``image``, uint8 [H, W, 3], contiguous, of the task's size, is unchanged meanwhile.

        ``Raw.values`` must be a new array, which no later frame changes.
        """

    def _submit(self, task: str, image: np.ndarray) -> Any:
        """Start a frame or put it in line; returns the token for :meth:`_collect`.

        At most ``slots`` frames are in flight, and they are collected in the order of submission.
        """
        return self._run_raw(task, image)

    def _collect(self, token: Any) -> Raw:
        """Wait, for a limited time, for the oldest submitted frame."""
        raw: Raw = token
        return raw

    def _reset(self) -> None:  # noqa: B027 - most backends have nothing to forget
        """Forget every frame in flight and be ready for the next one. It is called after an exception from
        ``_submit`` or ``_collect``, KeyboardInterrupt included."""

    def _close(self) -> None:  # noqa: B027 - many backends hold nothing
        """Release everything, even after an ``_open`` that stopped half-way or with frames in flight."""


def parse_option(text: str) -> tuple[str, str]:
    """KEY=VALUE of a command line; :meth:`Accelerator.open` converts values. BackendError without a value."""
    key, equals, value = text.partition("=")
    if not equals:
        raise BackendError(f"option '{text}' has no value: write KEY=VALUE.")
    return key.strip(), value


def _converted(backend: str, name: str, value: Any, hint: Any) -> Any:
    """An option as the backend's ``_open`` declares it; text becomes a number where one is needed."""
    kinds = tuple(kind for kind in typing.get_args(hint) or (hint,) if isinstance(kind, type))
    if hint in (Any, inspect.Parameter.empty) or not kinds or isinstance(value, kinds):
        return value
    for kind in (int, float):
        if kind in kinds and isinstance(value, str | int):
            with contextlib.suppress(ValueError):
                return kind(value)
    wanted = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
    raise BackendError(f"option '{name}' of backend '{backend}' is {value!r}: it must be {wanted}.")


def backend_names() -> tuple[str, ...]:
    """Backends that are registered here, whether or not their requirements are installed."""
    return tuple(sorted({*BUILTIN, *(point.name for point in entry_points(group=GROUP))}))


def backend_class(name: str) -> type[Accelerator]:
    """The class of a backend; BackendError names the known backends, or what is missing."""
    try:
        if name in BUILTIN:
            module, _, attribute = BUILTIN[name].partition(":")
            found = getattr(importlib.import_module(module), attribute)
        else:
            points = [point for point in entry_points(group=GROUP) if point.name == name]
            if not points:
                raise BackendError(
                    f"unknown backend '{name}': known here are {listed(backend_names(), name)}."
                )
            found = points[0].load()
    except ImportError as error:
        raise BackendError(f"backend '{name}' cannot be loaded: {error}.") from None
    cls: type[Accelerator] = found
    return cls
