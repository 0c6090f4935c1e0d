# SPDX-License-Identifier: Apache-2.0
"""Power from a board's own sensors, through pynq: watts, and joules over a stretch of time.

Without a sensor, watts are None. The ZCU104's rail ``12V`` carries the power of the whole board.
"""

import math
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

INPUT_RAIL = "12V"
_JOIN_SECONDS = 5.0


@dataclass(frozen=True)
class PowerReading:
    """One reading of the sensors. ``watts``: the whole board. ``simulated``: nothing was measured."""

    watts: float | None
    rails: Mapping[str, float | None]
    simulated: bool


@dataclass
class Energy:
    """Energy over a stretch of time; watts and joules are None when no sensor could be read in it."""

    seconds: float = 0.0
    watts: float | None = None  # mean
    samples: int = 0
    simulated: bool = False

    @property
    def joules(self) -> float | None:
        """Mean power times duration."""
        return None if self.watts is None else self.watts * self.seconds


class PowerMeter:
    """The sensors of the machine to which ``device`` belongs."""

    def __init__(self, device: Any = None) -> None:
        self.simulated = bool(getattr(device, "simulated", False))
        remote = device is not None and device.has_capability("REMOTE")
        # PYNQ.remote carries no sensors, and this machine's are not the board's
        self._rails = {} if remote else _find_rails()

    def read(self) -> PowerReading:
        """Present watts of every rail."""
        rails = {name: _watts(rail) for name, rail in self._rails.items()}
        return PowerReading(rails.get(INPUT_RAIL), rails, self.simulated)

    @contextmanager
    def measure(self, interval: float = 0.05) -> Iterator[Energy]:
        """Sample the input rail every ``interval`` seconds while the block runs."""
        energy, done = Energy(simulated=self.simulated), threading.Event()
        values: list[float] = []

        def sample() -> None:
            while True:
                watts = _watts(self._rails.get(INPUT_RAIL))
                if watts is not None:
                    values.append(watts)
                if done.wait(interval):
                    return

        thread = threading.Thread(target=sample, name="power meter", daemon=True)
        begin = time.monotonic()
        thread.start()
        try:
            yield energy
        finally:
            done.set()
            energy.seconds = time.monotonic() - begin
            thread.join(_JOIN_SECONDS)
            energy.samples = len(values)
            energy.watts = sum(values) / len(values) if values else None


def _find_rails() -> dict[str, Any]:
    """Rails by name; none when libsensors or its chips are missing."""
    from pynq import pmbus  # type: ignore[import-not-found]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that libsensors is missing
        try:
            return dict(pmbus.get_rails())
        except OSError:
            return {}


def _watts(rail: Any) -> float | None:
    """Power of a rail, measured, or from its voltage and current; None when it has neither."""
    if rail is None:
        return None
    try:
        if rail.power is not None:
            value = float(rail.power.value)
        elif rail.voltage is not None and rail.current is not None:
            value = float(rail.voltage.value) * float(rail.current.value)
        else:
            return None
    except (OSError, ValueError):
        return None
    return value if math.isfinite(value) else None
