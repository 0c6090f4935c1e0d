# SPDX-License-Identifier: Apache-2.0
"""The places of the demo's files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folder:
    """The demo's folder."""

    path: Path

    @property
    def run(self) -> Path:
        """Checkpoints and logs of training."""
        return self.path / "run"

    @property
    def network(self) -> Path:
        """The integer network."""
        return self.path / "model.int.npz"

    @property
    def graphs(self) -> Path:
        """TASK/path.onnx."""
        return self.path / "export"

    @property
    def bundle(self) -> Path:
        """The result of ``edge-moe compile``."""
        return self.path / "bundle"

    @property
    def images(self) -> Path:
        """Pictures that every backend runs, uint8 [n, H, W, 3]."""
        return self.path / "results" / "images.npz"

    def record(self, backend: str) -> Path:
        """Raw results of a backend."""
        return self.path / "results" / f"{backend}.npz"

    def drawing(self, name: str, *parts: str) -> Path:
        """A picture: of the input, or of a task in one form, or of a block's experts."""
        return self.path / "pictures" / ".".join([name, *parts, "png"])

    def usage(self, task: str) -> Path:
        """Heat map of a task's expert usage."""
        return self.path / f"expert_usage.{task}.png"

    def roofline(self, task: str) -> Path:
        """Timeline and roofline of a task."""
        return self.path / f"roofline.{task}.svg"
