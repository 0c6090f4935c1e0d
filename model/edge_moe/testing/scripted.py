# SPDX-License-Identifier: Apache-2.0
"""An accelerator that fails as told."""

from typing import Any

import numpy as np

from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.result import Raw


class Scripted(Accelerator):
    """A device of several slots whose frames fail as told. A frame's raw values are its first pixel."""

    slots = 2

    def _open(self) -> None:
        self.log: list[str] = []
        self.fail: dict[int, BaseException] = {}  # number of the frame -> what collecting it raises
        self.refuse: dict[int, BaseException] = {}  # ... what submitting it raises
        self.frames = 0
        self.waiting: list[tuple[int, str, int]] = []

    def _run_raw(self, task: str, image: np.ndarray) -> Raw:
        raise AssertionError("it has submission and collection")

    def _submit(self, task: str, image: np.ndarray) -> Any:
        number = self.frames
        self.frames += 1
        self.log.append(f"submit {number}")
        if number in self.refuse:
            raise self.refuse[number]
        self.waiting.append((number, task, int(image[0, 0, 0])))
        assert len(self.waiting) <= self.slots
        return number

    def _collect(self, token: Any) -> Raw:
        number, task, pixel = self.waiting[0]
        assert number == token, "frames are collected in the order of submission"
        self.log.append(f"collect {number}")
        if number in self.fail:
            raise self.fail[number]
        self.waiting.pop(0)
        out = self.bundle.tasks[task].entry.output
        return Raw(np.full((out.height * out.width, out.channels), pixel, np.int16), 10, 0.001)

    def _reset(self) -> None:
        self.log.append("reset")
        self.waiting.clear()

    def _close(self) -> None:
        self.log.append("close")
