# SPDX-License-Identifier: Apache-2.0
"""Integer networks as files: one .npz without pickles, checked byte for byte. Imports no torch.

An .npz is a zip archive of .npy arrays. ``header.npy`` is JSON as uint8: format, version, the
network and ``extra`` as trees with {"array": name} in place of an array, and the SHA-256 of every
other member. ``checksum.npy`` is the SHA-256 of the header.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe.config import ModelConfig
from edge_moe.quant.network import Block, Head, IntegerNetwork, check_network
from edge_moe_host.config import from_dict, to_dict
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import kind, replacing
from edge_moe_host.golden.operators import FFN, Attention, Gate, LayerNorm, Linear

FORMAT = "edge-moe-integer-network"
VERSION = 1
SUFFIX = ".int.npz"
_HEADER, _CHECKSUM = "header.npy", "checksum.npy"
_ARRAY = "array"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # time of every member, so that equal networks give equal files
_NODES: dict[str, type] = {
    node.__name__: node for node in (FFN, Attention, Block, Gate, Head, IntegerNetwork, LayerNorm, Linear)
}


def save_network(network: IntegerNetwork, path: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write a network atomically. ``extra``: further data to keep, of JSON's types and arrays.

    Raises EdgeMoEError when the file cannot be written; an older one is then untouched.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = {"network": _pack(network, "network", arrays), "extra": _pack(dict(extra or {}), "extra", arrays)}
    members = {f"{name}.npy": _npy(value) for name, value in arrays.items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        **tree,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    text = json.dumps(header, allow_nan=False).encode()
    checksum = hashlib.sha256(text).digest()
    members = {_HEADER: _npy(np.frombuffer(text, np.uint8)), **members}
    members[_CHECKSUM] = _npy(np.frombuffer(checksum, np.uint8))
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)


def load_network(path: Path) -> tuple[IntegerNetwork, dict[str, Any]]:
    """(network, extra) of a file that :func:`save_network` wrote.

    Raises EdgeMoEError for a file that is missing, cut short, damaged, newer or something else.
    """
    path = Path(path)
    members = _members(path)
    header = _header(members, path)
    try:
        for name in set(header["sha256"]) | (set(members) - {_HEADER, _CHECKSUM}):
            if hashlib.sha256(members[name]).hexdigest() != header["sha256"][name]:
                raise _damaged(path)
        arrays = {name.removesuffix(".npy"): _array(data) for name, data in members.items()}
        network, extra = _unpack(header["network"], arrays), _unpack(header["extra"], arrays)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _damaged(path) from None
    if not isinstance(network, IntegerNetwork):
        raise _damaged(path)
    check_network(network)
    return network, extra


def is_network(path: Path) -> bool:
    """Whether the file's name says that it holds an integer network."""
    return Path(path).name.endswith(SUFFIX)


def _pack(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """JSON form of ``value``; arrays are moved to ``arrays`` under names that start with ``name``."""
    if isinstance(value, ModelConfig):
        return {"config": to_dict(value)}
    if isinstance(value, np.ndarray | np.generic):
        arrays[name] = np.asarray(value)
        return {_ARRAY: name}
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"node": type(value).__name__, "fields": _pack_fields(fields, name, arrays)}
    if isinstance(value, Mapping):
        return {"map": _pack_fields(value, name, arrays)}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_pack(item, f"{name}/{index}", arrays) for index, item in enumerate(value)]}
    return value


def _pack_fields(fields: Mapping[str, Any], name: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {key: _pack(item, f"{name}/{key}", arrays) for key, item in fields.items()}


def _unpack(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if _ARRAY in tree:
        return arrays[tree[_ARRAY]]
    if "config" in tree:
        return from_dict(ModelConfig, tree["config"], "config")
    if "node" in tree:
        return _NODES[tree["node"]](**{key: _unpack(item, arrays) for key, item in tree["fields"].items()})
    if "map" in tree:
        return {key: _unpack(item, arrays) for key, item in tree["map"].items()}
    if "tuple" in tree:
        return tuple(_unpack(item, arrays) for item in tree["tuple"])
    return [_unpack(item, arrays) for item in tree["list"]]


def _npy(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value, allow_pickle=False)
    return buffer.getvalue()


def _array(data: bytes) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _members(path: Path) -> dict[str, bytes]:
    """Every member's bytes; zipfile checks their CRC."""
    if kind(path) != "file":
        raise EdgeMoEError(f"integer network '{path}' does not exist.")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile:
        raise EdgeMoEError(
            f"integer network '{path}' is cut short, damaged or was not written by Edge-MoE."
        ) from None
    except OSError as error:
        raise EdgeMoEError(f"cannot read integer network '{path}': {error.strerror or error}.") from None
    except Exception:  # a damaged directory makes zipfile raise almost anything
        raise _damaged(path) from None


def _header(members: Mapping[str, bytes], path: Path) -> dict[str, Any]:
    if _HEADER not in members or _CHECKSUM not in members:
        raise _foreign(path)
    try:
        text = _array(members[_HEADER]).tobytes()
        if hashlib.sha256(text).digest() != _array(members[_CHECKSUM]).tobytes():
            raise _damaged(path)
        header = json.loads(text)
    except (ValueError, EOFError):
        raise _damaged(path) from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _foreign(path)
    if header.get("version") != VERSION:
        raise EdgeMoEError(
            f"integer network '{path}' has version {header.get('version')}, "
            f"this program reads version {VERSION}."
        )
    return header


def _foreign(path: Path) -> EdgeMoEError:
    return EdgeMoEError(f"'{path}' is not an integer network: write one with 'edge-moe quantise'.")


def _damaged(path: Path) -> EdgeMoEError:
    return EdgeMoEError(f"integer network '{path}' is damaged: write it anew with 'edge-moe quantise'.")
