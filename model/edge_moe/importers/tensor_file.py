# SPDX-License-Identifier: Apache-2.0
"""Reading foreign torch files: tensors and plain containers only, never arbitrary pickles."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_moe_host.errors import EdgeMoEError

_ZIP_MAGIC = b"PK\x03\x04"
_WRAPPERS = ("state_dict", "model")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a torch file, or in a folder of expert shards ``0.pth``, ``1.pth``, ...

    The file holds the state dict itself or has it under "state_dict" or "model". In a folder (what
    expert-parallel training writes) the parameters of ``mlp.experts`` are joined along the expert
    axis, all others come from ``0.pth``. Raises EdgeMoEError for a file that is absent, cut short,
    not a torch file, holds other Python objects, or has no state dict.
    """
    if not path.is_dir():
        return _state_dict(path)
    count = len(list(path.glob("*.pth")))
    if not count:
        raise EdgeMoEError(
            f"folder '{path}' holds no 0.pth, 1.pth, ...: give a checkpoint file or such a folder."
        )
    shards = [_state_dict(path / f"{rank}.pth") for rank in range(count)]
    state = shards[0]
    for name, value in state.items():
        if ".mlp.experts." in name and count > 1:
            for rank, shard in enumerate(shards):
                if name not in shard or shard[name].shape[1:] != value.shape[1:]:
                    raise EdgeMoEError(
                        f"'{name}' in '{path / f'{rank}.pth'}' is absent or does not fit that of 0.pth: "
                        "the shards must come from one run."
                    )
            state[name] = torch.cat([shard[name] for shard in shards])
    return state


def _state_dict(path: Path) -> dict[str, Tensor]:
    content = _load(path)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise EdgeMoEError(f"'{path}' holds a {type(content).__name__}, not a state dict of named tensors.")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) != len(content) or not tensors:
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise EdgeMoEError(
            f"'{path}' has no state dict: it must hold named tensors, or have them under "
            f"'state_dict' or 'model', but holds {keys}."
        )
    return tensors


def _load(path: Path) -> Any:
    if not path.is_file():
        raise EdgeMoEError(f"checkpoint '{path}' does not exist.")
    with path.open("rb") as file:
        zipped = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
    if zipped and not zipfile.is_zipfile(path):  # the directory at the end is gone
        raise EdgeMoEError(f"checkpoint '{path}' is cut short: copy or download it again.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError,
            zipfile.BadZipFile) as error:  # fmt: skip
        found = isinstance(error, pickle.UnpicklingError) and re.search(r"GLOBAL (\S+)", str(error))
        raise EdgeMoEError(
            f"'{path}' holds the Python object {found[1]}, and only tensors are read from foreign files: "
            "save its state dict alone with torch.save."
            if found
            else f"'{path}' is not a torch checkpoint, or it is damaged or cut short."
        ) from None
