# SPDX-License-Identifier: Apache-2.0
"""The backend ``pynq`` with the real pynq package on the simulated board: results, buffers, registers."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from simulated import SimulatedDevice, simulated_board
from simulated_design import write_design

from edge_moe.testing.checkout import ROOT
from edge_moe.testing.samples import TIMEOUT, Sample
from edge_moe_host.backends.board.devices import interrupt_number, read_handoff
from edge_moe_host.backends.board.driver import EdgeMoEDriver
from edge_moe_host.errors import BackendError, ClosedError, ConfigurationError, DeviceError, TaskError
from edge_moe_host.runtime.accelerator import Accelerator


def opened(sample: Sample, board: SimulatedDevice, **options: object) -> Accelerator:
    return Accelerator.open("pynq", sample.bundle, device=board, timeout=TIMEOUT, **options)


def test_every_result_is_golden_s(accelerator: Accelerator, small: Sample) -> None:
    assert small.all_frames(accelerator) == small.values == 3072


def test_mini_at_its_full_size(mini: Sample, locks: Path) -> None:
    with simulated_board(mini.bundle) as board:
        with opened(mini, board, locks=locks) as accelerator:
            assert mini.all_frames(accelerator) == mini.values == 65536
            counters = accelerator.counters()
        assert board.default_memory.buffers == 0
    assert board.violations == []
    for task in mini.tasks:
        assert counters[task].frames == len(mini.images)
        assert counters[task].cycles > 1000 * counters[task].frames
        assert counters[task].milliseconds == pytest.approx(counters[task].cycles / 300e3)


@pytest.mark.parametrize("backend", ["csim", "poll", "interrupt", "remote"])
def test_one_program_on_every_backend(
    backend: str, small: Sample, locks: Path, request: pytest.FixtureRequest
) -> None:
    """The same code on every backend: equal raw values, maps at the picture's own size."""
    picture = np.random.default_rng(3).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    serve = request.getfixturevalue("serve") if backend == "remote" else None
    board = simulated_board(small.bundle)
    options: dict[str, object] = {"device": board, "wait": backend}
    if serve:
        server, port = serve(board)
        request.addfinalizer(lambda: server.stop(None).wait())
        options = {"address": f"127.0.0.1:{port}", "bitstream": board.bitstream}
    name = "csim" if backend == "csim" else "pynq"
    extra = {} if backend == "csim" else {"timeout": TIMEOUT, "locks": locks, **options}
    with board, Accelerator.open(name, small.path, **extra) as accelerator:
        assert small.all_frames(accelerator) == small.values
        results = accelerator.run_tasks(picture)
        streamed = list(accelerator.stream(small.images, small.tasks))
    assert [result.task for result in streamed] == small.tasks * 2
    for index, result in enumerate(streamed):
        small.compare(result.raw, result.task, index)
    with Accelerator.open("csim", small.path) as reference:
        for task, result in results.items():
            same = reference.run(picture, task)
            assert result.values.shape[:2] == (50, 70)
            np.testing.assert_array_equal(result.values, same.values)
    assert board.default_memory.buffers == 0
    assert board.violations == []


def test_random_task_switches_copy_no_weights(accelerator: Accelerator, small: Sample) -> None:
    rng = np.random.default_rng(11)
    memory = accelerator.device.default_memory
    buffers, bytes_, kernel = memory.buffers, memory.bytes, accelerator.device.kernel
    before = {name: kernel._values[name] for name in ("program", "tables", "weights0", "weight_beats")}
    count = 0
    for _ in range(40):
        task = small.tasks[rng.integers(2)]
        index = int(rng.integers(len(small.images)))
        accelerator.switch(task)
        assert accelerator.task == task
        count += small.compare(accelerator.run(small.images[index]).raw, task, index)
    assert count > 40 * 100
    assert (memory.buffers, memory.bytes) == (buffers, bytes_)
    assert {name: kernel._values[name] for name in before} == before


def test_six_buffers_and_no_more(board: SimulatedDevice, small: Sample, locks: Path) -> None:
    with opened(small, board, locks=locks) as accelerator:
        assert board.default_memory.buffers == 6
        small.all_frames(accelerator)
        assert board.default_memory.buffers == 6
    assert board.default_memory.buffers == 0


def test_high_addresses(small: Sample, locks: Path) -> None:
    """Both words of an address are written."""
    with (
        simulated_board(small.bundle, memory_base=0x8_7654_0000) as board,
        opened(small, board, locks=locks) as accelerator,
    ):
        assert accelerator.driver.get("program") > 1 << 32
        small.all_frames(accelerator)
    assert board.violations == []


def test_two_frames_are_on_their_way(board: SimulatedDevice, small: Sample, locks: Path) -> None:
    """While the device works on one frame the host prepares the next: the device is hardly ever idle."""
    task = small.tasks[0]
    with opened(small, board, locks=locks) as accelerator:
        board.set_latency(0.05)
        first = accelerator._submit(task, small.images[0])
        begin = time.monotonic()
        second = accelerator._submit(task, small.images[1])
        assert time.monotonic() - begin < 0.04  # did not wait for the first
        raws = [accelerator._collect(first).values]
        assert board.kernel.busy  # with the second, before the host looks at the first's result
        raws.append(accelerator._collect(second).values)
        for index, raw in enumerate(raws):
            small.compare(raw, task, index)
        board.set_latency(0.0)


def test_results_are_not_overwritten_by_later_frames(accelerator: Accelerator, small: Sample) -> None:
    task = small.tasks[0]
    results = [accelerator.run(image, task).raw for image in small.images]
    for index, raw in enumerate(results):
        small.compare(raw, task, index)


def test_the_driver_is_bound_by_pynq(accelerator: Accelerator, small: Sample) -> None:
    assert type(accelerator.driver) is EdgeMoEDriver
    assert accelerator.driver.get("version") == small.bundle.manifest.isa_version
    assert f"{accelerator.driver.get('config_id'):016x}" == small.bundle.manifest.accelerator.hash
    assert accelerator.driver.register_map.CTRL.AP_IDLE == 1  # pynq's own view of the same registers


def test_several_threads(accelerator: Accelerator, small: Sample) -> None:
    wrong: list[object] = []

    def work(task: str, index: int) -> None:
        try:
            for _ in range(10):
                small.frame(accelerator, task, index)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(small.tasks[n % 2], n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []
    assert sum(counters.frames for counters in accelerator.counters().values()) == 40


def test_the_environment_names_the_device(
    small: Sample, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program for a real board runs unchanged; the simulated board closes with the accelerator."""
    monkeypatch.setenv("EDGE_MOE_DEVICE", str(ROOT / "board" / "zcu104" / "simulated.py"))
    with Accelerator.open("pynq", small.path, locks=locks) as accelerator:
        board = accelerator.device
        assert board.simulated
        small.all_frames(accelerator)
    assert board.kernel is None  # closed
    assert board.default_memory.buffers == 0


def test_the_environment_names_something_else(
    small: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MOE_DEVICE", str(tmp_path / "none.py"))
    with pytest.raises(BackendError, match=r"EDGE_MOE_DEVICE names '.*none\.py', which is not a file\.\Z"):
        Accelerator.open("pynq", small.path)
    empty = tmp_path / "empty_device.py"
    empty.write_text("")
    monkeypatch.setenv("EDGE_MOE_DEVICE", str(empty))
    with pytest.raises(BackendError, match=r"has no open_device\.\Z"):
        Accelerator.open("pynq", small.path)


def test_without_a_board(small: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_MOE_DEVICE", raising=False)
    with pytest.raises(DeviceError, match="pynq finds no device here: run this on the board"):
        Accelerator.open("pynq", small.path)


def test_bad_options(board: SimulatedDevice, small: Sample) -> None:
    for options, message in (
        ({"wait": "sleep"}, "wait='sleep' is neither"),
        ({"timeout": 0}, "timeout=0 is not allowed"),
        ({"timeout": 1e9}, r"timeout=1e\+09 is not allowed: give seconds above 0, up to 86400"),
        ({"timeout": float("nan")}, "timeout=nan is not allowed"),
        ({"speed": 3}, "has no option 'speed'"),
    ):
        with pytest.raises(BackendError, match=message):
            Accelerator.open("pynq", small.bundle, device=board, **options)
    assert board.downloads == 0


def test_an_address_needs_a_pynq_that_has_it(small: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynq.pl_server.remote_device", None)
    with pytest.raises(
        BackendError, match=r"pynq [\d.]+ has no PYNQ.remote: address= needs pynq 3\.1 or later"
    ):
        Accelerator.open("pynq", small.bundle, address="localhost")


def test_bitstream_that_is_not_there(
    board: SimulatedDevice, small: Sample, tmp_path: Path, locks: Path
) -> None:
    with pytest.raises(DeviceError, match=r"overlay is missing: '.*nothing\.bit' does not exist"):
        opened(small, board, bitstream=tmp_path / "nothing.bit", locks=locks)
    board.bitstream = None
    with pytest.raises(DeviceError, match=r"edge_moe_\w{16}\.bit is neither beside the bundle nor here"):
        opened(small, board, locks=locks)
    lonely = tmp_path / "lonely.bit"
    lonely.write_bytes(b"")
    with pytest.raises(DeviceError, match=r"lonely\.hwh' is missing"):
        opened(small, board, bitstream=lonely, locks=locks)
    for damaged in (b"", b"no XML", b"<EDKSYSTEM><MODULES>", b"<EDKSYSTEM/>", bytes(range(256))):
        lonely.with_suffix(".hwh").write_bytes(damaged)
        with pytest.raises(
            DeviceError, match=r"lonely\.hwh' is damaged: .*; copy it again, with its \.bit\.\Z"
        ):
            opened(small, board, bitstream=lonely, locks=locks)
    good = write_design(tmp_path / "good", small.bundle.manifest.accelerator.hash)
    handoff = good.with_suffix(".hwh").read_text()
    lonely.with_suffix(".hwh").write_text(handoff)
    with pytest.raises(DeviceError, match=r"'lonely\.bit' could not be loaded: "):
        opened(small, board, bitstream=lonely, locks=locks)
    good.with_suffix(".hwh").write_text(handoff.replace("edge-moe:hls:", "else:hls:"))
    with pytest.raises(ConfigurationError, match=r"\.hwh' holds 0 cells of type .*, where one is needed"):
        opened(small, board, bitstream=good, locks=locks)


def test_the_interrupt_is_the_one_that_the_overlay_connects(
    board: SimulatedDevice, small: Sample, tmp_path: Path, locks: Path
) -> None:
    own = write_design(tmp_path, small.bundle.manifest.accelerator.hash)
    handoff = read_handoff(own.with_suffix(".hwh"))
    assert interrupt_number(handoff, "accelerator") == 121
    text = own.with_suffix(".hwh").read_text()
    own.with_suffix(".hwh").write_text(text.replace("pl_ps_irq0", "pl_ps_irq1"))
    assert interrupt_number(read_handoff(own.with_suffix(".hwh")), "accelerator") == 136
    with pytest.raises(BackendError, match="no UIO device has interrupt 136: "):  # the board's is 121
        opened(small, board, bitstream=own, wait="interrupt", locks=locks)
    own.with_suffix(".hwh").write_text(text.replace("pl_ps_irq0", "elsewhere"))
    with pytest.raises(BackendError, match="the overlay connects no interrupt of 'accelerator'"):
        opened(small, board, bitstream=own, wait="interrupt", locks=locks)


def test_bitstream_beside_the_bundle(
    board: SimulatedDevice, small: Sample, tmp_path: Path, locks: Path
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for file in small.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for suffix in (".bit", ".hwh"):
        file = board.bitstream.with_suffix(suffix)
        (tmp_path / file.name).write_bytes(file.read_bytes())
    board.bitstream = None
    with Accelerator.open("pynq", folder, device=board, locks=locks) as accelerator:
        small.frame(accelerator, small.tasks[0])


def test_after_close(board: SimulatedDevice, small: Sample, locks: Path) -> None:
    accelerator = opened(small, board, locks=locks)
    accelerator.close()
    accelerator.close()
    with pytest.raises(ClosedError):
        accelerator.run(small.images[0])
    with opened(small, board, locks=locks) as again:
        small.frame(again, small.tasks[0])


def test_another_task_or_image(accelerator: Accelerator, small: Sample) -> None:
    with pytest.raises(TaskError):
        accelerator.run(small.images[0], "normals")
    small.frame(accelerator, small.tasks[1])


def test_memory_stays_where_it_is(accelerator: Accelerator, small: Sample) -> None:
    memory = accelerator.device.default_memory
    before = memory.peak_bytes
    for _ in range(5):
        small.all_frames(accelerator)
    assert memory.peak_bytes == before
