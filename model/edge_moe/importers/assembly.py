# SPDX-License-Identifier: Apache-2.0
"""The common part of all importers: their result, and a model's state dict, built name by name."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edge_moe.config import ModelConfig, Preset
from edge_moe.importers.position import infer_grid, interpolate_positions
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

    def copy(self, theirs: str, ours: str, *, transpose: bool = False, divisor: float = 1.0) -> None:
        """Copy one parameter, or a transposed matrix, divided by ``divisor``."""
        shape = tuple(self.shape(ours))
        value = self.take(theirs, shape[::-1] if transpose else shape)
        if value is not None:
            self.put(ours, (value.T if transpose else value) / divisor)

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

    def taken_state(self) -> dict[str, Tensor]:
        """What has been set so far."""
        return dict(self._state)

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


class TensorPorter(Porter):
    """A state dict in memory; ``owner``: whose shapes are expected, in words."""

    def __init__(self, path: Path, cfg: ModelConfig, tensors: Mapping[str, Tensor], owner: str) -> None:
        super().__init__(path, cfg)
        self.tensors, self.owner = tensors, owner

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        if name not in self.tensors:
            self.missing.append(name)
            return None
        value = self.tensors[name]
        if tuple(value.shape) != shape:
            raise EdgeMoEError(
                f"'{name}' in '{self.path}' has shape {list(value.shape)}, {self.owner} needs {list(shape)}."
            )
        return value

    def positions(self, leading: Sequence[int], grid: tuple[int, int] | None) -> list[str]:
        """Set the position embeddings, resampled if the patch grid differs; returns a note about that.

        leading: how many rows may be before the patches', likeliest first. grid: the source's rows and
        columns of patches, where 1:1, 4:3 and 2:1 do not fit. Of the leading rows the model takes the
        first, if it has a CLS token; it is zero if the source has none.
        """
        cfg, given = self.cfg, self.tensors.get("pos_embed")
        rows = given.shape[1] if given is not None and given.ndim == 3 else cfg.num_tokens
        positions = self.take("pos_embed", (1, rows, cfg.embed_dim))
        if positions is None:
            return []
        for extra in leading:
            # as many patches as in the model: assume the model's grid, as loading them would
            same = rows - extra == math.prod(cfg.grid_size)
            source = grid or (cfg.grid_size if same else infer_grid(rows - extra))
            if source is not None and math.prod(source) == rows - extra:
                break
        else:
            raise EdgeMoEError(
                f"'pos_embed' in '{self.path}' is of {rows - leading[0]} patches: "
                "give the source grid (rows, columns), such as --source-grid 24x32."
            )
        head = positions[:, : min(extra, 1)] if extra else positions.new_zeros(1, 1, cfg.embed_dim)
        patches = interpolate_positions(positions[:, extra:], source, cfg.grid_size)
        self.put("pos_embed", torch.cat([head, patches], 1) if cfg.cls_token else patches)
        if source == cfg.grid_size:
            return []
        old, new = (" x ".join(map(str, size)) for size in (source, cfg.grid_size))
        return [f"position embeddings are interpolated (bicubic) from {old} to {new} patches."]


def listing(names: Sequence[str]) -> str:
    """The first names and the number of others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
