# SPDX-License-Identifier: Apache-2.0
"""Reading foreign files of weights: tensors and plain containers only, never arbitrary pickles."""

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from edge_moe.checkpoint import FORMAT, check_archive, require_file
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import kind, unreadable, visible

_ZIP_MAGIC = b"PK\x03\x04"
# The first that is there is read: averages of the weights before the weights.
_WRAPPERS = ("model_ema", "state_dict_ema", "state_dict", "model_state_dict", "model", "teacher")
# Modules that DataParallel, torch.compile, Lightning and others put around a model.
_PREFIXES = re.compile(r"((module|_orig_mod|model|net|network|backbone)\.)+")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a torch or safetensors file, or in a folder of shards ``0.pth``, ``1.pth``, ...

    The file holds the state dict itself or has it under one of the usual names. Prefixes of wrappers are
    dropped. In a folder (what expert-parallel training writes) the parameters of ``mlp.experts`` are
    joined along the expert axis, all others come from ``0.pth``. Raises EdgeMoEError for a file that is
    absent, damaged, of another kind, or has no state dict.
    """
    if kind(path) != "folder":
        return _state_dict(path)
    count = sum(file.suffix == ".pth" for file in visible(path))
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
    content, objects = _load(path)
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        raise EdgeMoEError(f"'{path}' is a checkpoint of this project: use it as it is.")
    while isinstance(content, Mapping):
        key = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        content = content[key]
    if not isinstance(content, Mapping):
        raise EdgeMoEError(f"'{path}' holds a {type(content).__name__}, not a state dict of named tensors.")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) != len(content) or not tensors:
        if objects:
            raise _refused(path, objects[0])
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise EdgeMoEError(
            f"'{path}' has no state dict: it must hold named tensors, or have them under "
            f"'state_dict' or 'model', but holds {keys}."
        )
    result: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            form = "a complex" if value.is_complex() else "a quantised" if value.is_quantized else "a sparse"
            form = "an empty" if value.is_meta else form
            raise EdgeMoEError(
                f"'{name}' in '{path}' is {form} tensor: save it as a dense one of real numbers."
            )
        bare = _PREFIXES.sub("", name, count=1) if _PREFIXES.match(name) else name
        if bare in result:
            raise EdgeMoEError(
                f"'{path}' has '{bare}' twice, under different prefixes: save the state dict of one model."
            )
        result[bare] = value
    return result


class _SetAside:
    """Takes the place of a Python object in a file: an empty mapping, whatever the object is made from.

    The reader accepts such mappings as the target of items and of attributes; no code of the object runs.
    """

    def __new__(cls, *parts: object) -> Any:
        return OrderedDict()


class _SetAsideNumPy:
    """The same for the parts of NumPy's values, whose state is a tuple."""

    def __init__(self, *parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _load(path: Path) -> tuple[Any, list[str]]:
    """The content of a file, and the names of the Python objects that were set aside in it."""
    require_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise unreadable(path, error) from None
    if head[8:] == b"{" or path.suffix == ".safetensors":  # after the header's length
        try:
            return safetensors.torch.load_file(path), []
        except (safetensors.SafetensorError, OSError, ValueError, KeyError):
            raise EdgeMoEError(
                f"'{path}' is not a safetensors file, or it is damaged or cut short."
            ) from None
    zipped = head.startswith(_ZIP_MAGIC)
    if zipped:
        check_archive(path)
    aside: dict[str, type] = {}
    while True:
        try:
            with (
                warnings.catch_warnings(),
                torch.serialization.safe_globals([(stub, name) for name, stub in aside.items()]),
            ):
                warnings.simplefilter("ignore")  # of unusual pickles: the outcome says enough
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped), list(aside)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError,
                TypeError, AttributeError, AssertionError, zipfile.BadZipFile) as error:  # fmt: skip
            found = isinstance(error, pickle.UnpicklingError) and re.search(r"GLOBAL (\S+)", str(error))
            name = found[1] if found and "." in found[1] else f"builtins.{found[1]}" if found else ""
            if not name and not aside:
                raise EdgeMoEError(
                    f"'{path}' is not a torch checkpoint, or it is damaged or cut short."
                ) from None
            if not name or name in aside or "blocked" in str(error):
                raise _refused(path, name or next(iter(aside))) from None
            aside[name] = _SetAsideNumPy if name.startswith("numpy.") else _SetAside


def _refused(path: Path, name: str) -> EdgeMoEError:
    return EdgeMoEError(
        f"'{path}' holds the Python object {name}, and only tensors are read from foreign files: "
        "save its state dict alone with torch.save."
    )
