# SPDX-License-Identifier: Apache-2.0
"""The common part of all importers: their result, and a model's state dict, built name by name."""

from collections.abc import Sequence
from dataclasses import dataclass

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


class Assembly:
    """The state dict of ``build_model(cfg)`` while it is filled."""

    def __init__(self, cfg: ModelConfig) -> None:
        self._cfg = cfg
        with torch.device("meta"):  # shapes only: the real initialisation is needed for gaps alone
            self._spec = build_model(cfg).state_dict()
        self._state: dict[str, Tensor] = {}

    def shape(self, name: str) -> torch.Size:
        """Shape of the model's parameter or buffer ``name``."""
        return self._spec[name].shape

    def put(self, name: str, value: Tensor) -> None:
        """Set ``name``; the caller has checked the shape of what it read."""
        spec = self._spec[name]
        assert value.shape == spec.shape, (name, value.shape, spec.shape)
        self._state[name] = value.detach().to("cpu", spec.dtype, copy=True).contiguous()

    def finish(self) -> tuple[dict[str, Tensor], list[str]]:
        """The whole state dict in the model's order, and the names that had to be initialised."""
        gaps = [name for name in self._spec if name not in self._state]
        if gaps:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(FILL_SEED)
                fresh = build_model(self._cfg).state_dict()
            self._state.update({name: fresh[name].clone() for name in gaps})
        # the batch counter is no weight: it changes nothing at inference
        filled = [name for name in gaps if not name.endswith("num_batches_tracked")]
        return {name: self._state[name] for name in self._spec}, filled


def listing(names: Sequence[str]) -> str:
    """The first names and the number of others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def refuse_missing(where: str, missing: Sequence[str]) -> None:
    """Raise EdgeMoEError that lists the missing names."""
    raise EdgeMoEError(f"{where} lacks {listing(missing)}: --allow-missing initialises what is missing.")
