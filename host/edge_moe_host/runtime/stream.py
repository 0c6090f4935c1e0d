# SPDX-License-Identifier: Apache-2.0
"""Frames of a source through an accelerator, with reading, device and consumer at work at the same time.

::

    reader thread              worker thread                    the caller
    source -> resize -> [queue] -> launch ... land -> result -> [queue] -> next()

Only the worker uses the device, and it always finishes the frames that it launched. When the caller stops, by
closing the iterator or by Ctrl-C, the worker ends before the caller goes on. A reader that is blocked in the
caller's own source is abandoned; it ends as soon as the source gives it the next frame.
"""

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np

from edge_moe_host.errors import EdgeMoEError, SourceError
from edge_moe_host.runtime.images import Frame, frames, is_camera, resize_image
from edge_moe_host.runtime.result import Result

if TYPE_CHECKING:
    from edge_moe_host.runtime.accelerator import Accelerator

Policy = Literal["block", "latest"]
BLOCK_QUEUE, LATEST_QUEUE = 2, 1  # frames that wait on either side of the device, unless asked for otherwise
READER_SECONDS = 5.0  # to wait for a reader: longer than a camera or a disk takes for a frame
T = TypeVar("T")


class Channel(Generic[T]):
    """A bounded queue with an end. When it is full, ``put`` waits, or with ``latest`` drops the oldest."""

    def __init__(self, capacity: int, latest: bool) -> None:
        self.capacity, self.latest = capacity, latest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = False  # nothing will be put any more
        self._closed = False  # nothing will be taken any more
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """False, without waiting, when nobody will take it."""
        with self._changed:
            while len(self._items) >= self.capacity and not self.latest and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            if len(self._items) >= self.capacity:
                self._items.popleft()
            self._items.append(item)
            self._changed.notify_all()
            return True

    def take(self, wait: bool = True) -> T | None:
        """The oldest item; None at the end, or when there is none yet and ``wait`` is off.

        Raises the error with which the other side ended, after the items before it are taken.
        """
        with self._changed:
            while wait and not (self._items or self._finished or self._closed):
                self._changed.wait()
            if self._items and not self._closed:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._finished and self._error is not None and not self._closed:
                raise self._error
            return None

    def finish(self, error: BaseException | None = None) -> None:
        """Say that nothing more will be put; ``error`` is the reason, None for a regular end."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Say that nothing more will be taken."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


# a frame, and its picture at each input size of the stream's tasks
_Prepared = tuple[Frame, dict[tuple[int, int], np.ndarray]]


def run_stream(
    accelerator: "Accelerator", source: Any, tasks: Sequence[str], queue: int | None, policy: Policy | None
) -> Iterator[Result]:
    """See :meth:`edge_moe_host.runtime.accelerator.Accelerator.stream`. Bad arguments are errors at once."""
    if policy not in (None, "block", "latest"):
        raise EdgeMoEError(f"policy '{policy}' is unknown: it is 'block' or 'latest'.")
    latest = is_camera(source) if policy is None else policy == "latest"
    capacity = (LATEST_QUEUE if latest else BLOCK_QUEUE) if queue is None else queue
    if capacity < 1:
        raise EdgeMoEError(f"queue = {queue} is not allowed: at least one frame must have a place.")
    return _results(accelerator, frames(source), tasks, capacity, latest)


def _results(
    accelerator: "Accelerator", source: Iterator[Frame], tasks: Sequence[str], capacity: int, latest: bool
) -> Iterator[Result]:
    prepared: Channel[_Prepared] = Channel(capacity, latest)
    results: Channel[Result] = Channel(capacity, latest)
    sizes = {accelerator.image_size(task) for task in tasks}
    reader = threading.Thread(
        target=_read, args=(source, sizes, prepared), daemon=True, name="edge-moe reader"
    )
    worker = threading.Thread(
        target=_work, args=(accelerator, tasks, prepared, results), daemon=True, name="edge-moe worker"
    )
    try:
        reader.start()
        worker.start()
        while (result := results.take()) is not None:
            yield result
    finally:
        prepared.close()
        results.close()
        _join(worker)
        if reader.is_alive():
            reader.join(READER_SECONDS)


def _join(thread: threading.Thread) -> None:
    """Wait for a thread that ends within a frame, through any number of Ctrl-C."""
    interrupted: KeyboardInterrupt | None = None
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _read(source: Iterator[Frame], sizes: set[tuple[int, int]], prepared: Channel[_Prepared]) -> None:
    """Body of the reader thread."""
    error: BaseException | None = None
    try:
        for frame in source:
            if not prepared.put((frame, {size: resize_image(frame.image, size) for size in sizes})):
                break
    except EdgeMoEError as own:
        error = own
    except BaseException as foreign:
        error = SourceError(f"the source of the pictures failed: {type(foreign).__name__}: {foreign}.")
        error.__cause__ = foreign
    finally:
        prepared.finish(error)
        close = getattr(source, "close", None)
        if callable(close):
            close()


def _work(
    accelerator: "Accelerator", tasks: Sequence[str], prepared: Channel[_Prepared], results: Channel[Result]
) -> None:
    """Body of the worker thread: keeps as many frames in flight as the device has slots."""
    turns, launched, more = itertools.cycle(tasks), deque[Any](), True
    error: BaseException | None = None
    try:
        while more or launched:
            while more and len(launched) < accelerator.slots:
                try:
                    item = prepared.take(wait=not launched)
                except EdgeMoEError as ended:
                    item, error = None, ended
                if item is None:
                    more = bool(launched) and error is None
                    break
                frame, images = item
                task = next(turns)
                image = images[accelerator.image_size(task)]
                launched.append(accelerator.launch(frame.name, frame.image, image, task))
            if launched and not results.put(accelerator.land(launched.popleft())):
                break
    except BaseException as failure:
        error = failure
    finally:
        for launch in launched:  # the stream is abandoned: leave the device idle
            with contextlib.suppress(Exception):
                accelerator.land(launch)
        results.finish(error)
