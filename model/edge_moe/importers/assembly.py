# SPDX-License-Identifier: Apache-2.0
"""The common part of all importers: their result, and a model's state dict, built name by name."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edge_moe.config import ModelConfig, Preset
from edge_moe.nn import build_model
from edge_moe_host.errors import EdgeMoEError

FILL_SEED = 0  # missing weights are drawn with this seed, so an import is repeatable
SHOWN = 6  # names that a message lists; it counts the others


@dataclass(frozen=True)
class Imported:
    """A model made from foreign weights.

    state: float32 CPU tensors for ``build_model(preset.model).load_state_dict``. filled: its names
    that the source did not have and that were freshly initialised. notes: sentences for the user.
    image: a test image [3, H, W] that came with the weights, values in [0, 1].
    """

    preset: Preset
    state: dict[str, Tensor]
    filled: list[str]
    notes: list[str]
    image: Tensor | None = None


class Porter(ABC):
    """Copies foreign parameters into the state dict of ``build_model(cfg)`` and notes the missing ones."""

    def __init__(self, path: Path, cfg: ModelConfig) -> None:
        self.path, self.cfg = path, cfg
        self.taken: set[str] = set()
        self.missing: list[str] = []
        with torch.device("meta"):  # shapes only: the real initialisation is needed for gaps alone
            self._spec = build_model(cfg).state_dict()
        self._state: dict[str, Tensor] = {}

    def shape(self, name: str) -> torch.Size:
        """Shape of the model's parameter or buffer ``name``."""
        return self._spec[name].shape

    @abstractmethod
    def read(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """The source's parameter, checked for its shape, or None (noted as missing)."""

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """The source's parameter in float32, or None (noted as missing)."""
        self.taken.add(name)
        value = self.read(name, shape)
        if value is None:
            return None
        value = value.float()
        if not value.isfinite().all():
            raise EdgeMoEError(
                f"'{name}' in '{self.path}' holds NaN or infinite values: it cannot be imported."
            )
        return value

    def copy(self, theirs: str, ours: str, *, transpose: bool = False) -> None:
        """Copy one parameter, or a transposed matrix."""
        shape = tuple(self.shape(ours))
        value = self.take(theirs, shape[::-1] if transpose else shape)
        if value is not None:
            self.put(ours, value.T if transpose else value)

    def copy_affine(self, theirs: str, ours: str) -> None:
        """Weight and bias, named as the model names them."""
        for kind in ("weight", "bias"):
            self.copy(f"{theirs}{kind}", f"{ours}.{kind}")

    def put(self, name: str, value: Tensor) -> None:
        """Set ``name``; the caller has checked the shape of what it read."""
        spec = self._spec[name]
        assert value.shape == spec.shape, (name, value.shape, spec.shape)
        self._state[name] = value.detach().to("cpu", spec.dtype, copy=True).contiguous()

    def require(self, allow_missing: bool) -> None:
        """EdgeMoEError that lists the missing names, unless they may be missing."""
        if self.missing and not allow_missing:
            raise EdgeMoEError(
                f"'{self.path}' lacks {listing(self.missing)}: --allow-missing initialises what is missing."
            )

    def finish(self) -> tuple[dict[str, Tensor], list[str]]:
        """The whole state dict in the model's order, and the names that had to be initialised."""
        gaps = [name for name in self._spec if name not in self._state]
        if gaps:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(FILL_SEED)
                fresh = build_model(self.cfg).state_dict()
            self._state.update({name: fresh[name].clone() for name in gaps})
        # the batch counter is no weight: it changes nothing at inference
        filled = [name for name in gaps if not name.endswith("num_batches_tracked")]
        return {name: self._state[name] for name in self._spec}, filled


def listing(names: Sequence[str]) -> str:
    """The first names and the number of others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
