# SPDX-License-Identifier: Apache-2.0
"""pynq's own ``RemoteDevice`` over gRPC, with a simulated board at the other end."""

import functools
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pynq
import pynq.pl_server.global_state as global_state
import pytest
from pynq.pl_server.remote_device import RemoteDevice
from simulated import Fault, SimulatedDevice
from simulated_design import write_design
from simulated_server import serve

from edge_moe.testing.samples import SHORT, TIMEOUT, Sample
from edge_moe_host.errors import (
    AllocationError,
    BackendError,
    BusError,
    DeviceError,
    DeviceStoppedError,
    DeviceTimeoutError,
)
from edge_moe_host.runtime.accelerator import Accelerator


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pynq records in its own folder what it loaded; here in another one."""
    monkeypatch.setattr(global_state, "STATE_DIR", str(tmp_path))


class Far:
    """A board, its server, and how to open it."""

    def __init__(self, sample: Sample, folder: Path, locks: Path) -> None:
        self.device = SimulatedDevice("far")
        self.server, self.port = serve(self.device)
        bitstream = write_design(folder, sample.bundle.manifest.accelerator.hash)
        self.options = {"address": f"127.0.0.1:{self.port}", "bitstream": bitstream, "locks": locks}
        self.sample = sample

    def open(self, timeout: float = TIMEOUT, **options: object) -> Accelerator:
        return Accelerator.open("pynq", self.sample.bundle, timeout=timeout, **{**self.options, **options})


@pytest.fixture
def far(small: Sample, tmp_path: Path, locks: Path) -> Iterator[Far]:
    served = Far(small, tmp_path, locks)
    yield served
    served.server.stop(None).wait(10)
    served.device.close()
    assert served.device.default_memory.buffers == 0
    assert served.device.violations == []


def test_every_result(far: Far, small: Sample) -> None:
    before = vars(pynq.Device).get("_active_device")
    with far.open() as accelerator:
        assert type(accelerator.device) is RemoteDevice
        assert small.all_frames(accelerator) == small.values
        assert far.device.default_memory.buffers == 6
        assert accelerator.power.read().watts is None
    assert vars(pynq.Device).get("_active_device") is before


def test_one_board_after_another(small: Sample, tmp_path: Path, locks: Path) -> None:
    """pynq keeps no state of a board that was closed."""
    for number in range(2):
        there = Far(small, tmp_path / str(number), locks)
        for _ in range(2):
            with there.open() as accelerator:
                small.frame(accelerator, small.tasks[0])
        there.server.stop(None).wait(10)
        assert there.device._registers[0xFF5E00C0]  # its own clock was set
        there.device.close()


def test_faults(far: Far, small: Sample) -> None:
    with far.open() as accelerator:
        far.device.inject(Fault.STOPPED, error=4, position=3)
        with pytest.raises(DeviceStoppedError):
            accelerator.run(small.images[0])
        small.frame(accelerator, small.tasks[0])
        far.device.register_faults = 1
        with pytest.raises(BusError, match="nothing answers at"):
            accelerator.run(small.images[0])
        small.frame(accelerator, small.tasks[1])
        far.device.inject(Fault.NEVER_DONE)
        accelerator._timeout = SHORT
        with pytest.raises(DeviceTimeoutError):
            accelerator.run(small.images[0])
        accelerator._timeout = TIMEOUT
        assert small.all_frames(accelerator) == small.values
        assert far.device.downloads == 2


def test_allocation(far: Far, small: Sample) -> None:
    far.device.default_memory.fail_next = 1
    with pytest.raises(AllocationError, match="contiguous memory for the weight image could not be had"):
        far.open()
    assert far.device.default_memory.buffers == 0
    with far.open() as accelerator:
        small.frame(accelerator, small.tasks[0])


def test_interrupts_are_not_carried(far: Far) -> None:
    with pytest.raises(BackendError, match=r"PYNQ\.remote carries no interrupts"):
        far.open(wait="interrupt")


def test_nobody_at_the_address(small: Sample) -> None:
    begin = time.monotonic()
    for address in ("127.0.0.1:9", "127.0.0.1:none"):
        with pytest.raises(DeviceError, match=rf"the board at '{address}' does not answer: "):
            Accelerator.open("pynq", small.bundle, address=address)
    assert time.monotonic() - begin < 30


def test_a_board_that_goes(far: Far, small: Sample) -> None:
    """Frames fail, closing does not, and neither hangs."""
    accelerator = far.open(timeout=1.0)
    small.frame(accelerator, small.tasks[0])
    far.server.stop(None).wait(10)
    for _ in range(2):
        with pytest.raises(DeviceError):
            accelerator.run(small.images[0])
    begin = time.monotonic()
    accelerator.close()
    assert time.monotonic() - begin < 30
    for buffer in list(far.device.default_memory._live.values()):  # the server's own, which went with it
        far.device.default_memory.return_pointer(buffer)


def test_every_call_has_an_end(far: Far) -> None:
    with far.open() as accelerator:
        calls = [call for stub in accelerator.device._stub.values() for call in vars(stub).values()]
        assert len(calls) > 15
        assert all(isinstance(call, functools.partial) and call.keywords["timeout"] > 0 for call in calls)


def test_a_call_that_is_not_answered(far: Far, monkeypatch: pytest.MonkeyPatch, small: Sample) -> None:
    monkeypatch.setattr("edge_moe_host.backends.board.devices.CALL_SECONDS", 0.5)
    with far.open() as accelerator:
        read = far.device.read_registers
        far.device.read_registers = lambda *arguments: (time.sleep(1.0), read(*arguments))[1]
        with pytest.raises(BusError) as caught:
            accelerator.run(small.images[0])
        assert isinstance(caught.value.__cause__, grpc.RpcError)
        far.device.read_registers = read
        small.frame(accelerator, small.tasks[0])
