# SPDX-License-Identifier: Apache-2.0
"""Power through pynq's own sensor code: sensors, missing sensors, and the energy of an interval."""

import math
import time
from types import SimpleNamespace

import pynq
import pytest
from simulated import SimulatedDevice

from edge_moe_host.backends.board.power import PowerMeter
from edge_moe_host.runtime.accelerator import Accelerator


def test_the_simulated_rail(accelerator: Accelerator) -> None:
    reading = accelerator.power.read()
    assert (reading.watts, dict(reading.rails), reading.simulated) == (1.0, {"12V": 1.0}, True)
    rail = pynq.pmbus.get_rails()["12V"]
    assert isinstance(rail, pynq.pmbus.Rail)
    assert (rail.voltage.value, rail.power.value) == (12.0, 1.0)
    assert rail.current.value == pytest.approx(1 / 12)


def test_energy(board: SimulatedDevice) -> None:
    meter = PowerMeter(board)
    with meter.measure(interval=0.01) as energy:
        time.sleep(0.05)
        board._sensors.watts = 3.0
        time.sleep(0.05)
    assert energy.simulated
    assert energy.samples >= 3
    assert 1.0 < energy.watts < 3.0
    assert energy.seconds > 0.09
    assert energy.joules == pytest.approx(energy.watts * energy.seconds)


def test_without_sensors_there_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynq.pmbus, "_lib", None)
    meter = PowerMeter()
    assert (meter.read().watts, dict(meter.read().rails), meter.simulated) == (None, {}, False)
    with meter.measure(interval=0.01) as energy:
        time.sleep(0.03)
    assert (energy.watts, energy.joules, energy.samples) == (None, None, 0)
    assert energy.seconds > 0.02


def test_a_remote_board_has_no_sensors_here(board: SimulatedDevice) -> None:
    """The simulated board does not have this machine's sensors."""
    board.capabilities["REMOTE"] = True
    assert PowerMeter(board).read().watts is None


def failing() -> float:
    raise OSError("no such device")


@pytest.mark.parametrize(
    ("power", "voltage", "current", "watts"),
    [
        (8.0, None, None, 8.0),
        (None, 12.0, 0.5, 6.0),
        (None, 12.0, None, None),
        (None, None, None, None),
        (math.nan, 12.0, 0.5, None),
        (OSError, 12.0, 0.5, None),
    ],
)
def test_rails_of_all_kinds(power, voltage, current, watts, monkeypatch: pytest.MonkeyPatch) -> None:
    def sensor(value):
        if value is OSError:
            return type("Sensor", (), {"value": property(lambda _: failing())})()
        return None if value is None else SimpleNamespace(value=value)

    rails = {
        "12V": SimpleNamespace(power=sensor(power), voltage=sensor(voltage), current=sensor(current)),
        "INT": SimpleNamespace(power=sensor(3.5), voltage=None, current=None),
    }
    monkeypatch.setattr(pynq.pmbus, "get_rails", lambda: rails)
    reading = PowerMeter().read()
    assert reading.watts == watts
    assert dict(reading.rails) == {"12V": watts, "INT": 3.5}
