# SPDX-License-Identifier: Apache-2.0
"""Every fault of the board gives its own error, and the next frame works."""

import logging
import time
from pathlib import Path

import numpy as np
import pytest
from simulated import Fault, SimulatedDevice

from edge_moe.testing.samples import SHORT, TIMEOUT, Sample
from edge_moe_host.contract.registers import Error, Status
from edge_moe_host.errors import (
    AllocationError,
    BusError,
    ConfigurationError,
    DeviceError,
    DeviceStoppedError,
    DeviceTimeoutError,
)
from edge_moe_host.runtime.accelerator import Accelerator

LONG = 60.0  # seconds that no test lasts


def fails(accelerator: Accelerator, sample: Sample, kind: type[DeviceError], message: str) -> DeviceError:
    """Assert that a frame fails with this error, in one sentence, and that later frames work."""
    with pytest.raises(kind, match=message) as caught:
        accelerator.run(sample.images[0], sample.tasks[0])
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    accelerator._timeout = TIMEOUT
    assert sample.all_frames(accelerator) == sample.values
    return caught.value


def test_never_done(accelerator: Accelerator, small: Sample, board: SimulatedDevice) -> None:
    board.inject(Fault.NEVER_DONE)
    accelerator._timeout = SHORT
    begin = time.monotonic()
    fails(accelerator, small, DeviceTimeoutError, r"did not finish in 0\.3 s")
    assert time.monotonic() - begin < LONG
    assert board.downloads == 2  # the overlay was loaded again


def test_never_done_twice(accelerator: Accelerator, small: Sample, board: SimulatedDevice) -> None:
    for downloads in (2, 3):
        board.inject(Fault.NEVER_DONE)
        accelerator._timeout = SHORT
        fails(accelerator, small, DeviceTimeoutError, "did not finish")
        assert board.downloads == downloads


def test_done_late(accelerator: Accelerator, small: Sample, board: SimulatedDevice) -> None:
    """A late result, for which nobody waits any more, is given to no frame."""
    board.inject(Fault.LATE, seconds=SHORT + 0.5)
    accelerator._timeout = SHORT
    with pytest.raises(DeviceTimeoutError):
        accelerator.run(small.images[0], small.tasks[0])
    time.sleep(1.0)
    accelerator._timeout = TIMEOUT
    small.all_frames(accelerator)
    assert board.downloads == 1  # it ended by itself


def test_late_but_in_time(accelerator: Accelerator, small: Sample, board: SimulatedDevice) -> None:
    board.inject(Fault.LATE, seconds=0.2)
    small.all_frames(accelerator)
    assert board.downloads == 1


@pytest.mark.parametrize("error", [error for error in Error if error])
def test_stopped(error: Error, accelerator: Accelerator, small: Sample, board: SimulatedDevice) -> None:
    board.inject(Fault.STOPPED, error=error, position=7)
    caught = fails(accelerator, small, DeviceStoppedError, "stopped at instruction 7: ")
    assert isinstance(caught, DeviceStoppedError)
    assert (caught.status, caught.error, caught.position) == (Status.STOPPED, error, 7)
    assert board.downloads == 1


def test_an_error_code_of_the_future(accelerator: Accelerator, small: Sample, board: SimulatedDevice) -> None:
    board.inject(Fault.STOPPED, error=200, position=1)
    fails(accelerator, small, DeviceStoppedError, r"unknown error code 200 \(status 2, error 200\)")


def test_stopped_by_the_accelerator_itself(
    accelerator: Accelerator, small: Sample, board: SimulatedDevice
) -> None:
    """A bit of the program in the board's memory changes: the C simulation finds it."""
    program = board.default_memory.view(accelerator._programs.address, 64 * 4)
    program[64 * 3 + 5] ^= 1
    with pytest.raises(DeviceStoppedError, match="stopped at instruction 3: its checksum does not match"):
        accelerator.run(small.images[0], small.tasks[0])
    program[64 * 3 + 5] ^= 1
    small.all_frames(accelerator)


def test_a_frame_after_one_that_stops(
    accelerator: Accelerator, small: Sample, board: SimulatedDevice
) -> None:
    board.inject(Fault.STOPPED, error=4, position=2)
    task, images = small.tasks[0], small.images
    launches = [accelerator.launch("", image, image, task) for image in images[:2]]
    for launch in launches:
        with pytest.raises(DeviceStoppedError):
            accelerator.land(launch)
    small.all_frames(accelerator)


def test_nothing_answers_at_the_program(
    accelerator: Accelerator, small: Sample, board: SimulatedDevice
) -> None:
    board.inject(Fault.DMA)
    fails(accelerator, small, DeviceStoppedError, "stopped at instruction 0: its checksum does not match")


@pytest.mark.parametrize("skip", range(15))
def test_registers_that_do_not_answer(
    skip: int, accelerator: Accelerator, small: Sample, board: SimulatedDevice
) -> None:
    """The bus fails at any place in a frame."""
    board.register_skip, board.register_faults = skip, 1
    fails(accelerator, small, BusError, "register '.*' could not be (read|written): .*nothing answers at")
    assert board.register_faults == 0


def test_registers_that_do_not_answer_for_long(
    accelerator: Accelerator, small: Sample, board: SimulatedDevice
) -> None:
    board.register_faults = 1000
    fails(accelerator, small, BusError, "could not be")
    assert board.downloads == 2


def test_a_lost_interrupt(board: SimulatedDevice, small: Sample, locks: Path) -> None:
    """The register is read nevertheless."""
    with Accelerator.open(
        "pynq", small.bundle, device=board, wait="interrupt", timeout=TIMEOUT, locks=locks
    ) as accelerator:
        board.inject(Fault.LOST_INTERRUPT, count=4)
        assert small.all_frames(accelerator) == small.values


def test_interrupts_come(board: SimulatedDevice, small: Sample, locks: Path) -> None:
    with Accelerator.open(
        "pynq", small.bundle, device=board, wait="interrupt", timeout=TIMEOUT, locks=locks
    ) as accelerator:
        before = board._uio._count
        small.all_frames(accelerator)
        assert board._uio._count - before >= len(small.images) * len(small.tasks)


def test_an_interrupt_that_nobody_took(
    board: SimulatedDevice, small: Sample, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt of a frame that was done before the wait does not hide the next frame's."""
    with Accelerator.open(
        "pynq", small.bundle, device=board, wait="interrupt", timeout=TIMEOUT, locks=locks
    ) as accelerator:
        monkeypatch.setattr("edge_moe_host.backends.board.driver.LOOK_SECONDS", LONG)
        for task in small.tasks:
            token = accelerator._submit(task, small.images[0])
            while board.kernel.busy:
                time.sleep(0.01)
            small.compare(accelerator._collect(token).values, task, 0)
            assert accelerator.driver.get("isr") == 1
            board.set_latency(0.1)
            begin = time.monotonic()
            small.frame(accelerator, task, 1)
            assert time.monotonic() - begin < TIMEOUT / 2
            board.set_latency(0.0)


def test_overlay_that_cannot_be_loaded_again(
    accelerator: Accelerator, small: Sample, board: SimulatedDevice
) -> None:
    """While the device does not return, each frame says so at once; when it returns, frames work."""
    board.inject(Fault.NEVER_DONE)
    board.fail_downloads = 2
    accelerator._timeout = SHORT
    with pytest.raises(DeviceTimeoutError):
        accelerator.run(small.images[0])
    accelerator._timeout = LONG
    begin = time.monotonic()
    for _ in range(2):
        with pytest.raises(DeviceError, match="loading its overlay again failed: the configuration was"):
            accelerator.run(small.images[0])
    assert time.monotonic() - begin < LONG / 2
    small.all_frames(accelerator)


# Opening


def refused(
    sample: Sample, board: SimulatedDevice, locks: Path, kind: type[DeviceError], message: str
) -> None:
    """Opening fails with one sentence and frees everything; the next attempt works."""
    options = {"device": board, "timeout": SHORT, "locks": locks}
    with pytest.raises(kind, match=message) as caught:
        Accelerator.open("pynq", sample.bundle, **options)
    assert type(caught.value) is kind
    assert str(caught.value).endswith(".")
    assert board.default_memory.buffers == 0
    with Accelerator.open("pynq", sample.bundle, **{**options, "timeout": TIMEOUT}) as accelerator:
        sample.frame(accelerator, sample.tasks[0])


def test_another_configuration(board: SimulatedDevice, small: Sample, locks: Path) -> None:
    board.inject(Fault.CONFIG_ID)
    refused(
        small, board, locks, ConfigurationError, "overlay is of the accelerator configuration .* was comp"
    )


def test_another_instruction_set(board: SimulatedDevice, small: Sample, locks: Path) -> None:
    board.inject(Fault.VERSION)
    refused(small, board, locks, ConfigurationError, r"executes instructions of version \d+, this package")


def test_a_bundle_for_another_accelerator(
    board: SimulatedDevice, other: Sample, small: Sample, locks: Path
) -> None:
    assert other.bundle.manifest.accelerator.hash != small.bundle.manifest.accelerator.hash
    with pytest.raises(ConfigurationError, match=other.bundle.manifest.accelerator.hash):
        Accelerator.open("pynq", other.bundle, device=board, bitstream=board.bitstream, locks=locks)
    assert board.default_memory.buffers == 0


@pytest.mark.parametrize("after", range(6))
def test_memory_that_does_not_suffice(
    after: int, board: SimulatedDevice, small: Sample, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If any buffer cannot be allocated, the earlier ones are freed."""
    memory, allocate = board.default_memory, board.default_memory.allocate
    with monkeypatch.context() as patch:

        def counted(*arguments: object, **options: object) -> np.ndarray:
            memory.fail_next = int(memory.buffers == after)
            buffer: np.ndarray = allocate(*arguments, **options)
            return buffer

        patch.setattr(memory, "allocate", counted)
        with pytest.raises(AllocationError, match=r"\d+ bytes of contiguous memory for the .* could not"):
            Accelerator.open("pynq", small.bundle, device=board, locks=locks)
    assert memory.buffers == 0
    with Accelerator.open("pynq", small.bundle, device=board, locks=locks) as accelerator:
        small.frame(accelerator, small.tasks[0])


def test_an_accelerator_that_does_not_answer_at_all(
    board: SimulatedDevice, small: Sample, locks: Path
) -> None:
    board.inject(Fault.NEVER_DONE)
    refused(small, board, locks, DeviceTimeoutError, "did not finish")


def test_registers_that_do_not_answer_at_first(
    board: SimulatedDevice, small: Sample, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure = board.configure

    def broken(data: bytes) -> None:
        configure(data)
        board.register_faults = 1

    with monkeypatch.context() as patch:
        patch.setattr(board, "configure", broken)
        with pytest.raises(BusError):
            Accelerator.open("pynq", small.bundle, device=board, locks=locks)
    assert board.default_memory.buffers == 0
    refused_no_more = Accelerator.open("pynq", small.bundle, device=board, locks=locks)
    refused_no_more.close()


def test_memory_that_forgets(
    board: SimulatedDevice, small: Sample, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written to the board is read back."""
    flush = board.flush

    def broken(bo: object, offset: int, address: int, size: int) -> None:
        flush(bo, offset, address, size)
        bo.dram[size // 2] ^= 4

    with monkeypatch.context() as patch:
        patch.setattr(board, "flush", broken)
        with pytest.raises(BusError, match="weight image in the board's memory is not what was written"):
            Accelerator.open("pynq", small.bundle, device=board, locks=locks)
    assert board.default_memory.buffers == 0


def test_registers_that_may_not_be_mapped(
    board: SimulatedDevice, small: Sample, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise OSError("Root permissions required.")

    with monkeypatch.context() as patch:
        patch.setattr("pynq.overlay.MMIO", forbidden)
        with pytest.raises(DeviceError, match=r"registers of 'accelerator' are out of reach: Root permissio"):
            Accelerator.open("pynq", small.bundle, device=board, locks=locks)
    with Accelerator.open("pynq", small.bundle, device=board, locks=locks) as accelerator:
        small.frame(accelerator, small.tasks[0])


# Closing


def test_close_with_a_frame_that_never_ends(board: SimulatedDevice, small: Sample, locks: Path) -> None:
    """The accelerator is stopped before its buffers are freed."""
    accelerator = Accelerator.open("pynq", small.bundle, device=board, timeout=TIMEOUT, locks=locks)
    board.inject(Fault.NEVER_DONE)
    accelerator._timeout = SHORT
    accelerator._submit(small.tasks[0], small.images[0])
    accelerator.close()
    assert board.downloads == 2
    assert not board.kernel.busy
    assert board.default_memory.buffers == 0


def test_close_with_frames_on_their_way(board: SimulatedDevice, small: Sample, locks: Path) -> None:
    accelerator = Accelerator.open("pynq", small.bundle, device=board, timeout=TIMEOUT, locks=locks)
    board.set_latency(0.1)
    for image in small.images[:2]:
        accelerator._submit(small.tasks[0], image)
    accelerator.close()
    assert not board.kernel.busy
    assert board.downloads == 1


def test_close_of_a_board_that_is_gone(
    board: SimulatedDevice, small: Sample, locks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accelerator = Accelerator.open("pynq", small.bundle, device=board, timeout=TIMEOUT, locks=locks)
    board.register_faults, board.fail_downloads = 1000, 1
    with caplog.at_level(logging.WARNING, "edge_moe_host"):
        accelerator.close()
    assert [record.getMessage() for record in caplog.records] == [
        "the accelerator could not be stopped: the configuration was refused"
    ]
    assert board.default_memory.buffers == 0
    board.register_faults = 0
    with Accelerator.open("pynq", small.bundle, device=board, locks=locks) as again:
        small.frame(again, small.tasks[0])
