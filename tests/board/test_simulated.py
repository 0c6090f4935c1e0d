# SPDX-License-Identifier: Apache-2.0
"""The simulated board itself: registers as Vitis HLS makes them, memory with a cache, the handoff."""

import itertools
import json
import os
import select
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pynq
import pytest
from simulated import SimulatedDevice, simulated_board
from simulated_design import CELL, board_facts, write_design
from simulated_kernel import Fault
from simulated_memory import FRESH, GUARD, STALE, BusFaultError

from edge_moe.testing.samples import BUNDLES, Sample
from edge_moe_host.backends.board.driver import VLNV, EdgeMoEDriver, check_registers
from edge_moe_host.contract.isa import ISA_VERSION
from edge_moe_host.contract.registers import AP_DONE, AP_IDLE, AP_READY, AP_START, MASTERS, REGISTERS
from edge_moe_host.errors import ConfigurationError, DeviceError

SECONDS = 10.0


@pytest.fixture
def overlay(board: SimulatedDevice) -> pynq.Overlay:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return pynq.Overlay(str(board.bitstream), device=board)


@pytest.fixture
def driver(overlay: pynq.Overlay) -> Iterator[EdgeMoEDriver]:
    yield overlay.accelerator
    overlay.accelerator.close()


# The design


def test_the_design_is_that_of_the_board(overlay: pynq.Overlay) -> None:
    """Addresses, name and masters equal those that the code generator gives to the block design."""
    shown = json.loads((BUNDLES / "interface.json").read_text())
    cell = overlay.ip_dict[CELL]
    assert cell["type"] == shown["vlnv"] == VLNV
    assert cell["phys_addr"] == shown["control_address"]
    assert cell["addr_range"] == shown["control_bytes"]
    assert shown["masters"] == [f"gmem_{master}" for master in MASTERS]
    assert {f"m_axi_{master}" for master in shown["masters"]} <= set(overlay.systemgraph.blocks[CELL].ports)


def test_registers_in_the_handoff(overlay: pynq.Overlay) -> None:
    described = overlay.ip_dict[CELL]["registers"]
    offsets = {entry["address_offset"] for entry in described.values()}
    words = {r.offset + 4 * n for r in REGISTERS.values() for n in range(r.bits // 32)}
    assert offsets == words
    assert {
        "CTRL",
        "GIER",
        "IP_IER",
        "IP_ISR",
        "program_1",
        "program_2",
        "output_r_1",
        "version_ctrl",
    } <= set(described)
    check_registers(described, CELL)


@pytest.mark.parametrize("name", [name for name in REGISTERS if not name.endswith("_ctrl")])
def test_registers_elsewhere_are_refused(name: str, overlay: pynq.Overlay) -> None:
    described = dict(overlay.ip_dict[CELL]["registers"])
    offset = REGISTERS[name].offset
    place = next(key for key, entry in described.items() if entry["address_offset"] == offset)
    moved = {**described, place: {**described[place], "address_offset": 0x4000}}
    renamed = {("foreign" if key == place else key): entry for key, entry in described.items()}
    for wrong, there in ((moved, "has nothing there"), (renamed, "has 'foreign' there")):
        with pytest.raises(ConfigurationError, match=f"'{name}' of 'accelerator' .* {offset:#x}, .*{there}"):
            check_registers(wrong, CELL)
    with pytest.raises(ConfigurationError):
        check_registers({}, CELL)


def test_registers_that_are_not_used_may_be_missing(overlay: pynq.Overlay) -> None:
    described = dict(overlay.ip_dict[CELL]["registers"])
    assert described.pop("version_ctrl")
    check_registers(described, CELL)


def test_an_overlay_of_another_version_is_refused(
    board: SimulatedDevice, small: Sample, tmp_path: Path
) -> None:
    registers = {name: register for name, register in REGISTERS.items() if name != "cycles"}
    bitstream = write_design(tmp_path, small.bundle.manifest.accelerator.hash, registers)
    overlay = pynq.Overlay(str(bitstream), device=board)
    with pytest.raises(ConfigurationError, match="'cycles' of 'accelerator' is expected at 0xe4"):
        _ = overlay.accelerator


def test_clocks_and_ports_are_set_by_pynq(overlay: pynq.Overlay, board: SimulatedDevice) -> None:
    assert pynq.Clocks.fclk0_mhz == pytest.approx(100, rel=0.01)
    assert board._registers[0xFD615000] >> 8 & 3 == 0  # 32 bits wide
    assert board.downloads == 1
    assert overlay.is_loaded()


def test_a_foreign_bitstream_is_refused(board: SimulatedDevice, tmp_path: Path, small: Sample) -> None:
    bitstream = write_design(tmp_path, small.bundle.manifest.accelerator.hash)
    bitstream.write_bytes(bitstream.read_bytes().replace(b"edge-moe", b"some-one"))
    with pytest.raises(RuntimeError, match="takes only bitstreams that were made for it"):
        pynq.Overlay(str(bitstream), device=board)


def test_pynq_is_as_it_was_before(small: Sample) -> None:
    before = dict(vars(pynq.Device)), pynq.interrupt.get_uio_irq, pynq.pmbus._lib
    with simulated_board(small.bundle) as outer:
        with simulated_board(small.bundle) as inner:
            assert pynq.Device.active_device is inner
        assert pynq.Device.active_device is outer
        folder = outer.bitstream.parent
        assert folder.is_dir()
    assert (dict(vars(pynq.Device)), pynq.interrupt.get_uio_irq, pynq.pmbus._lib) == before
    assert not folder.exists()


# Registers


def empty_run(driver: EdgeMoEDriver) -> None:
    for name in ("program_records", "weight_beats", "image_bytes", "output_bytes"):
        driver.put(name, 0)
    driver.put("ap_ctrl", AP_START)


def until_idle(board: SimulatedDevice) -> None:
    deadline = time.monotonic() + SECONDS
    while board.kernel.busy:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_control(driver: EdgeMoEDriver, board: SimulatedDevice) -> None:
    assert driver.get("ap_ctrl") == AP_IDLE
    board.set_latency(0.1)
    empty_run(driver)
    assert driver.get("ap_ctrl") == AP_START
    until_idle(board)
    assert driver.get("ap_ctrl") == AP_DONE | AP_READY | AP_IDLE
    assert driver.get("ap_ctrl") == AP_IDLE  # reading cleared them


def test_results_and_their_valid_flags(driver: EdgeMoEDriver, board: SimulatedDevice, small: Sample) -> None:
    results = ("config_id", "version", "status", "error", "position", "cycles")
    assert [driver.get(f"{name}_ctrl") for name in results] == [0] * 6
    assert driver.get("config_id") == 0  # nothing before the first run
    config, version = driver.identify(SECONDS)
    assert (config, version) == (small.bundle.manifest.accelerator.hash, ISA_VERSION)
    assert [driver.get(f"{name}_ctrl") for name in results] == [1] * 6
    assert [driver.get(f"{name}_ctrl") for name in results] == [0] * 6
    driver.put("status", 77)  # read-only
    assert driver.get("status") == 1
    assert board.kernel.runs == 1


def test_arguments_keep_what_is_written(driver: EdgeMoEDriver) -> None:
    rng = np.random.default_rng(0)
    values = {
        name: int(rng.integers(1 << 63 if register.bits == 64 else 1 << 32))
        for name, register in REGISTERS.items()
        if register.access == "rw" and register.offset >= 0x10
    }
    assert len(values) == 12
    for name, value in values.items():
        driver.put(name, value)
    assert {name: driver.get(name) for name in values} == values
    assert driver.mmio.read(0x18) == 0  # between two arguments


def test_interrupt_registers(driver: EdgeMoEDriver, board: SimulatedDevice) -> None:
    levels: list[bool] = []
    board.kernel._interrupt = levels.append
    empty_run(driver)
    until_idle(board)
    assert driver.get("isr") == 0  # not enabled
    driver.put("ier", 1)
    empty_run(driver)
    until_idle(board)
    assert (driver.get("isr"), levels) == (1, [])
    driver.put("gie", 1)
    assert levels == [True]
    assert driver.get("ap_ctrl") & 1 << 9
    driver.put("isr", 1)
    assert (driver.get("isr"), levels) == (0, [True, False])
    driver.put("isr", 1)  # writing toggles: also from 0 to 1
    assert (driver.get("isr"), levels) == (1, [True, False, True])


def test_uio(driver: EdgeMoEDriver, board: SimulatedDevice) -> None:
    """While the pin is high, arming gives one interrupt each time."""
    path = pynq.interrupt.get_uio_irq(121)
    assert pynq.interrupt.get_uio_irq(122) is None
    file = os.open(path, os.O_RDWR | os.O_NOCTTY)

    def comes(seconds: float) -> bool:
        return bool(select.select([file], [], [], seconds)[0])

    try:
        driver.put("ier", 1)
        driver.put("gie", 1)
        empty_run(driver)
        until_idle(board)
        assert not comes(0.1)  # not armed
        os.write(file, bytes([1, 0, 0, 0]))
        assert comes(SECONDS)
        assert int.from_bytes(os.read(file, 4), "little") == 1
        assert not comes(0.1)
        os.write(file, bytes([1, 0, 0, 0]))  # still high
        assert comes(SECONDS)
        assert int.from_bytes(os.read(file, 4), "little") == 2
        driver.put("isr", 1)
        os.write(file, bytes([1, 0, 0, 0]))
        assert not comes(0.1)
    finally:
        os.close(file)


def test_a_start_during_a_run_is_refused_and_noted(driver: EdgeMoEDriver, board: SimulatedDevice) -> None:
    board.set_latency(0.3)
    empty_run(driver)
    with pytest.raises(DeviceError, match="started while it was running"):
        driver.start()
    assert board.violations == []
    driver.put("ap_ctrl", AP_START)
    driver.put("image", 0)
    until_idle(board)
    assert board.kernel.runs == 1
    noted = ["a run was started during another", *["register image was written during a run"] * 2]
    assert board.violations == noted
    board.violations.clear()


def test_nothing_answers_elsewhere(board: SimulatedDevice, driver: EdgeMoEDriver) -> None:
    first, size = driver.mmio.base_addr, driver.mmio.length
    for address in (first - 4, first + size, 0xB0000000):
        with pytest.raises(BusFaultError, match=f"nothing answers at {address:#x}"):
            pynq.MMIO(address, 4, device=board).read()


def test_nothing_answers_before_a_download(board: SimulatedDevice, small: Sample) -> None:
    address = board_facts(small.bundle.manifest.accelerator.hash).control_address
    with pytest.raises(BusFaultError):
        pynq.MMIO(address, 4, device=board).read()


def test_a_download_resets_everything(
    driver: EdgeMoEDriver, overlay: pynq.Overlay, board: SimulatedDevice
) -> None:
    board.inject(Fault.NEVER_DONE)
    driver.put("weight_beats", 3)
    empty_run(driver)
    driver.put("ier", 1)
    time.sleep(0.05)
    overlay.download()
    assert driver.get("ap_ctrl") == AP_IDLE
    assert [driver.get(name) for name in ("weight_beats", "ier", "status")] == [0, 0, 0]


# Memory


def test_stale_bytes_are_read_without_cache_maintenance(board: SimulatedDevice) -> None:
    with pynq.allocate((256,), np.uint8, target=board) as buffer:
        dram = board.default_memory.view(buffer.device_address, 256)
        assert (np.asarray(buffer) == STALE).all()
        assert (dram == FRESH).all()
        buffer[:] = 7
        assert (dram == FRESH).all()
        buffer.flush()
        assert (dram == 7).all()
        dram[:] = 9
        assert (np.asarray(buffer) == 7).all()
        buffer.invalidate()
        assert (np.asarray(buffer) == 9).all()
        buffer[64:70] = 1
        dram[:] = 2
        board.default_memory.owner(buffer.device_address, 1).evict()  # one dirty line
        assert dram[63:129].tolist() == [2] + [1] * 6 + [9] * 58 + [2]


def test_part_of_a_buffer(board: SimulatedDevice) -> None:
    with pynq.allocate((4, 64), np.uint8, target=board) as buffer:
        buffer[:] = 5
        buffer[2].flush()
        dram = board.default_memory.view(buffer.device_address, 256).reshape(4, 64)
        assert [int(row[0]) for row in dram] == [FRESH, FRESH, 5, FRESH]


def test_accounting(board: SimulatedDevice) -> None:
    memory = board.default_memory
    sizes = [1, 64, 4095, 4096, 4097, 100000]
    buffers = [pynq.allocate((size,), np.uint8, target=board) for size in sizes]
    spans = sorted((buffer.device_address, buffer.device_address + buffer.nbytes) for buffer in buffers)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(start % 4096 == 0 for start, _ in spans)
    assert (memory.buffers, memory.bytes) == (6, sum(sizes))
    buffers[2].freebuffer()
    buffers[2].freebuffer()  # pynq frees once
    again = pynq.allocate((4000,), np.uint8, target=board)
    assert again.device_address == spans[2][0]  # its place is taken again
    del again, buffers
    assert (memory.buffers, memory.bytes) == (0, 0)
    assert memory.peak_bytes == sum(sizes)


def test_memory_is_not_endless(small: Sample) -> None:
    with simulated_board(small.bundle, memory_bytes=1 << 16) as board:
        with pytest.raises(RuntimeError, match="Cannot allocate memory"):
            pynq.allocate((1 << 16,), np.uint8, target=board)
        buffer = pynq.allocate((1 << 15,), np.uint8, target=board)
        with pytest.raises(RuntimeError, match="Cannot allocate memory"):
            pynq.allocate((1 << 15,), np.uint8, target=board)
        buffer.freebuffer()
        pynq.allocate((1 << 15,), np.uint8, target=board).freebuffer()


def test_guards(board: SimulatedDevice) -> None:
    buffer = pynq.allocate((100,), np.uint8, target=board)
    bo = board.default_memory.owner(buffer.device_address, 100)
    assert board.violations == []
    for place in (-1, 100):
        bo.span[4096 + place] = 0
        assert len(board.violations) == 1
        bo.span[4096 + place] = GUARD
        board.violations.clear()
    buffer.freebuffer()


def test_accesses_outside_of_buffers(board: SimulatedDevice) -> None:
    memory = board.default_memory
    with pynq.allocate((100,), np.uint8, target=board) as buffer:
        address = buffer.device_address
        for start, size in ((address - 1, 2), (address + 99, 2), (address, 101)):
            with pytest.raises(BusFaultError):
                memory.view(start, size)
        assert len(memory.violations) == 3
        for start in (memory.base - 1, memory.base + memory.size):
            with pytest.raises(BusFaultError, match="no memory answers"):
                memory.view(start, 1)
        assert len(memory.violations) == 3
        memory.violations.clear()
