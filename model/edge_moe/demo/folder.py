# SPDX-License-Identifier: Apache-2.0
"""The places of the demo's files."""

from pathlib import Path


class Folder:
    """The demo's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path / "run"  # checkpoints and logs of training
        self.network = path / "model.int.npz"
        self.graphs = path / "export"  # TASK/path.onnx
        self.bundle = path / "bundle"  # the result of ``edge-moe compile``
        self.images = path / "results" / "images.npz"  # that every backend runs, uint8 [n, H, W, 3]

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
