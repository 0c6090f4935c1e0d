# SPDX-License-Identifier: Apache-2.0
"""Streams: order, bounds, dropped frames, errors of source and device, and how they end."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_moe.testing import scripted
from edge_moe.testing.scripted import Scripted
from edge_moe_host.contract.bundle import Bundle
from edge_moe_host.errors import (
    ClosedError,
    DeviceError,
    DeviceTimeoutError,
    EdgeMoEError,
    ImageError,
    SourceError,
)
from edge_moe_host.runtime import accelerator as accelerator_module
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.result import Result
from edge_moe_host.runtime.stream import Channel


@pytest.fixture(params=[1, 2, 3], ids=["1 slot", "2 slots", "3 slots"])
def acc(
    request: pytest.FixtureRequest, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scripted]:
    monkeypatch.setitem(accelerator_module.BUILTIN, "scripted", f"{scripted.__name__}:Scripted")
    with Accelerator.open("scripted", bundle) as opened:
        assert isinstance(opened, Scripted)
        opened.slots = request.param
        yield opened
    assert threads() == []


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edge-moe")]


def picture(value: int) -> np.ndarray:
    return np.full((16, 32, 3), value, np.uint8)


def value(result: Result) -> int:
    return int(result.raw[0, 0])


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_order_and_turns(acc: Scripted) -> None:
    results = list(acc.stream(map(picture, range(20)), ["semseg", "depth"]))
    assert [value(result) for result in results] == list(range(20))
    assert [result.task for result in results] == ["semseg", "depth"] * 10
    assert acc.counters()["depth"].frames == 10
    assert acc.counters()["depth"].cycles == 100
    assert threads() == []
    assert list(acc.stream([])) == []


def test_all_slots_are_used(acc: Scripted) -> None:
    list(acc.stream(map(picture, range(20))))
    depth, deepest = 0, 0
    for entry in acc.log:
        depth += 1 if entry.startswith("submit") else -1
        deepest = max(deepest, depth)
    assert deepest == acc.slots
    assert depth == 0


@pytest.mark.parametrize("queue", [1, 4])
def test_a_slow_caller_bounds_what_is_read(acc: Scripted, queue: int) -> None:
    read = []

    def source() -> Iterator[np.ndarray]:
        for number in range(60):
            read.append(number)
            yield picture(number)

    stream = acc.stream(source(), queue=queue)
    assert value(next(stream)) == 0
    # taken 1, results waiting and in the worker's hand, frames on their way, prepared, in the reader's hand
    bound = 1 + queue + 1 + acc.slots + queue + 1
    time.sleep(0.2)
    assert len(read) <= bound
    assert [value(result) for result in stream] == list(range(1, 60))


def test_the_latest_frames(acc: Scripted) -> None:
    ready, seen = threading.Event(), []

    def source() -> Iterator[np.ndarray]:
        yield picture(0)
        ready.wait(20)
        for number in range(1, 200):
            yield picture(number)

    stream = acc.stream(source(), policy="latest")
    seen.append(value(next(stream)))
    ready.set()
    wait_until(lambda: acc.log and "edge-moe reader" not in threads() and "edge-moe worker" not in threads())
    seen += [value(result) for result in stream]
    assert seen == [0, 199]  # the caller was slower than all of them


def test_cameras_take_the_latest_by_default(acc: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []
    original = Channel.__init__

    def spy(self: Channel, capacity: int, latest: bool) -> None:
        made.append(latest)
        assert capacity == (1 if latest else 2)
        original(self, capacity, latest)

    monkeypatch.setattr(Channel, "__init__", spy)
    monkeypatch.setattr("edge_moe_host.runtime.stream.frames", lambda source: iter([]))
    for source in (0, "/dev/video0", "clip.mp4", [picture(0)]):
        assert list(acc.stream(source)) == []
    assert made == [True] * 4 + [False] * 4


def test_bad_arguments_are_errors_at_once(acc: Scripted, tmp_path: Path) -> None:
    with pytest.raises(EdgeMoEError, match="policy 'newest' is unknown"):
        acc.stream([], policy="newest")  # type: ignore[arg-type]
    with pytest.raises(EdgeMoEError, match="queue = 0 is not allowed"):
        acc.stream([], queue=0)
    with pytest.raises(EdgeMoEError, match="at least one task"):
        acc.stream([], [])
    with pytest.raises(ImageError, match="has no pictures"):
        acc.stream(tmp_path)
    assert threads() == []


# Errors


def test_an_error_of_the_source_comes_after_its_frames(acc: Scripted) -> None:
    def source() -> Iterator[np.ndarray]:
        yield picture(1)
        yield picture(2)
        raise ConnectionError("gone")

    stream = acc.stream(source())
    assert [value(next(stream)), value(next(stream))] == [1, 2]
    with pytest.raises(
        SourceError, match=r"source of the pictures failed: ConnectionError: gone\."
    ) as caught:
        next(stream)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert threads() == []
    assert value(acc.run(picture(7))) == 7


def test_a_bad_frame_is_the_readers_own_error(acc: Scripted) -> None:
    with pytest.raises(ImageError, match="float64"):
        list(acc.stream([picture(1), np.zeros((2, 2, 3))]))
    with pytest.raises(SourceError, match="SystemExit"):
        list(acc.stream(iter(_exits())))
    assert value(acc.run(picture(7))) == 7


def _exits() -> Iterator[np.ndarray]:
    yield picture(1)
    raise SystemExit(3)


@pytest.mark.parametrize("where", ["fail", "refuse"])
def test_an_error_of_the_device(acc: Scripted, where: str) -> None:
    getattr(acc, where)[3] = DeviceTimeoutError("too late.")
    seen: list[int] = []
    stream = (seen.append(value(result)) for result in acc.stream(map(picture, range(50))))
    with pytest.raises(DeviceTimeoutError, match=r"too late\."):
        list(stream)
    assert seen == list(range(len(seen)))
    assert len(seen) <= 3
    assert acc.log.count("reset") == 1
    assert acc.waiting == []
    assert threads() == []
    assert [value(result) for result in acc.stream([picture(8), picture(9)])] == [8, 9]


def test_frames_after_a_failed_one_are_lost_with_it(acc: Scripted) -> None:
    acc.fail[0] = DeviceTimeoutError("too late.")
    launches = [acc.launch("", picture(n), picture(n), "depth") for n in range(acc.slots)]
    for launch in launches:
        with pytest.raises(DeviceTimeoutError):
            acc.land(launch)
    assert acc.log.count("reset") == 1
    assert value(acc.run(picture(7))) == 7


def test_landing_out_of_order(acc: Scripted) -> None:
    launches = [acc.launch("", picture(n), picture(n), "depth") for n in range(5)]
    assert [value(acc.land(launch)) for launch in reversed(launches)] == [4, 3, 2, 1, 0]
    assert [entry for entry in acc.log if entry.startswith("collect")] == [f"collect {n}" for n in range(5)]


def test_an_interrupt_inside_the_device(acc: Scripted) -> None:
    acc.fail[0] = KeyboardInterrupt()
    launches = [acc.launch("", picture(n), picture(n), "depth") for n in range(acc.slots)]
    with pytest.raises(KeyboardInterrupt):
        acc.land(launches[-1])
    for launch in launches:
        with pytest.raises(DeviceError, match="interrupted"):
            acc.land(launch)
    assert acc.log.count("reset") == 1
    assert value(acc.run(picture(7))) == 7


# Ends


def test_closing_the_iterator(acc: Scripted) -> None:
    closed = []

    def source() -> Iterator[np.ndarray]:
        try:
            for number in range(10**6):
                yield picture(number % 256)
        finally:
            closed.append(threading.current_thread().name)

    stream = acc.stream(source())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threads() == []
    assert closed == ["edge-moe reader"]
    assert acc.waiting == []
    assert value(acc.run(picture(7))) == 7


def test_leaving_the_loop_and_never_entering_it(acc: Scripted) -> None:
    for result in acc.stream(map(picture, range(1000))):
        if value(result) == 3:
            break
    del result
    assert threads() == []
    acc.stream(map(picture, range(1000)))
    assert threads() == []


def test_ctrl_c_while_the_caller_waits(acc: Scripted) -> None:
    held = threading.Event()

    def source() -> Iterator[np.ndarray]:
        yield picture(1)
        threading.Timer(0.05, lambda: signal.raise_signal(signal.SIGINT)).start()
        held.wait(20)
        yield picture(2)

    stream = acc.stream(source())
    assert value(next(stream)) == 1
    threading.Timer(0.3, held.set).start()  # the source gives its next frame after the interrupt
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert threads() == []
    assert value(acc.run(picture(7))) == 7


def test_a_source_that_never_answers_does_not_hold_the_caller(
    acc: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_moe_host.runtime.stream.READER_SECONDS", 0.05)
    held = threading.Event()

    def source() -> Iterator[np.ndarray]:
        yield picture(1)
        held.wait(20)

    stream = acc.stream(source())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threads() == ["edge-moe reader"]
    assert value(acc.run(picture(7))) == 7
    held.set()
    wait_until(lambda: threads() == [])


def test_a_slow_source_does_not_hold_back_results(acc: Scripted) -> None:
    more = threading.Event()

    def source() -> Iterator[np.ndarray]:
        yield picture(1)
        more.wait(20)
        yield picture(2)

    stream = acc.stream(source())
    assert value(next(stream)) == 1
    more.set()
    assert value(next(stream)) == 2


def test_single_frames_within_a_stream(acc: Scripted) -> None:
    seen = []
    for result in acc.stream(map(picture, range(30)), "depth"):
        seen.append(value(result))
        assert value(acc.run(picture(200 + value(result) % 50), "semseg")) == 200 + value(result) % 50
    assert seen == list(range(30))


def test_two_streams_at_once(acc: Scripted) -> None:
    first, second = acc.stream(map(picture, range(20))), acc.stream(map(picture, range(100, 120)))
    pairs = [(value(a), value(b)) for a, b in zip(first, second, strict=True)]
    assert pairs == [(n, 100 + n) for n in range(20)]


def test_many_threads_and_one_accelerator(acc: Scripted) -> None:
    wrong: list[int] = []

    def body(start: int) -> None:
        wrong.extend(n for n in range(start, start + 40) if value(acc.run(picture(n))) != n)

    workers = [threading.Thread(target=body, args=(50 * n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert wrong == []
    assert acc.counters()["depth"].frames == 160


def test_closing_with_frames_on_their_way(acc: Scripted) -> None:
    launches = [acc.launch("", picture(n), picture(n), "depth") for n in range(acc.slots)]
    acc.close()
    for launch in launches:
        with pytest.raises(ClosedError, match="on its way"):
            acc.land(launch)
    assert acc.log[-1] == "close"


def test_the_accelerator_is_closed_within_a_stream(acc: Scripted) -> None:
    stream = acc.stream(map(picture, range(1000)))
    next(stream)
    acc.close()
    with pytest.raises(ClosedError):
        for _ in stream:
            pass
    assert acc.log.count("close") == 1
    assert threads() == []
