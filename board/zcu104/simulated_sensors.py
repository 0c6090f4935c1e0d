# SPDX-License-Identifier: Apache-2.0
"""The power sensors of the simulated board, in place of the libsensors library that pynq reads.

One rail, named like the ZCU104's input rail, always shows the same round figure: it measures nothing.
"""

from typing import Any

from pynq import pmbus

RAIL, VOLTS, WATTS = "12V", 12.0, 1.0  # invented


class SimulatedSensors:
    """The functions of libsensors that ``pynq.pmbus`` calls, for one chip and the values of one rail."""

    SENSORS_FEATURE_IN, SENSORS_FEATURE_POWER, SENSORS_FEATURE_CURR = 0x00, 0x03, 0x05
    SENSORS_SUBFEATURE_IN_INPUT, SENSORS_SUBFEATURE_POWER_INPUT, SENSORS_SUBFEATURE_CURR_INPUT = (
        0,
        0x303,
        0x500,
    )

    def __init__(self) -> None:
        self.watts = WATTS
        ffi = pmbus._ffi
        self._null = ffi.NULL
        self._chip = ffi.new("sensors_chip_name *")
        self._label = ffi.new("char[]", RAIL.encode())
        kinds = (self.SENSORS_FEATURE_IN, self.SENSORS_FEATURE_CURR, self.SENSORS_FEATURE_POWER)
        self._features = [ffi.new("sensors_feature *", {"number": n, "type": kind})
                          for n, kind in enumerate(kinds)]  # fmt: skip
        self._subfeatures = [ffi.new("sensors_subfeature *", {"number": n}) for n in range(len(kinds))]

    def sensors_init(self, _: Any) -> int:
        return 0

    def sensors_get_detected_chips(self, _: Any, number: Any) -> Any:
        number[0] += 1
        return self._chip if number[0] == 1 else self._null

    def sensors_get_features(self, _: Any, number: Any) -> Any:
        number[0] += 1
        return self._features[number[0] - 1] if number[0] <= len(self._features) else self._null

    def sensors_get_label(self, *_: Any) -> Any:
        return self._label

    def sensors_get_subfeature(self, _: Any, feature: Any, __: int) -> Any:
        return self._subfeatures[feature.number]

    def sensors_get_value(self, _: Any, number: int, value: Any) -> int:
        value[0] = (VOLTS, self.watts / VOLTS, self.watts)[number]
        return 0
