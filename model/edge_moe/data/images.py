# SPDX-License-Identifier: Apache-2.0
"""Reading label maps and arrays; a bad file is an error that names it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from edge_moe_host.errors import EdgeMoEError, reason
from edge_moe_host.files import kind, read_bytes, unreadable
from edge_moe_host.runtime import images


def read_label(path: Path | str, *, floats: bool = False) -> np.ndarray:
    """Read a single-channel label map H x W as stored.

    Palette images give their indices, 1-bit images 0 and 1, 16-bit images uint16 values; ``floats`` takes
    floating-point images too. Raises
    :class:`EdgeMoEError` for a missing or damaged file and for one with several channels.
    """
    path = Path(path)
    image = images.open_picture(path)
    if len(image.getbands()) != 1 or (image.mode == "F" and not floats):
        raise EdgeMoEError(
            f"label map '{path}' has {len(image.getbands())} channels ({image.mode}), "
            "but one channel of indices is needed."
        )
    values = np.array(image)
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    # Older encoders make Pillow report 16-bit PNG as 32-bit signed.
    return values.astype(np.uint16) if values.dtype == np.int32 and values.max(initial=0) < 65536 else values


def read_mask(path: Path | str) -> np.ndarray:
    """Read a mask H x W as stored: a label map, or a colour picture whose three channels are equal."""
    image = images.open_picture(Path(path))
    if image.mode not in ("RGB", "RGBA"):
        return read_label(path)
    pixels = np.array(image.convert("RGB"))
    if (pixels != pixels[..., :1]).any():
        raise EdgeMoEError(
            f"mask '{path}' is a picture with colours: one channel, or greys, are needed, "
            "or the colours of the classes in dataset.toml."
        )
    return pixels[..., 0]


def read_array(path: Path | str) -> np.ndarray:
    """Read a numeric ``.npy`` array; pickled objects are refused."""
    path = Path(path)
    if kind(path) != "file":
        raise EdgeMoEError(f"array '{path}' does not exist or is not a file.")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        if isinstance(error, PermissionError):
            raise unreadable(path, error) from None
        raise EdgeMoEError(
            f"array '{path}' is damaged, truncated or not a .npy file: {reason(error)}."
        ) from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise EdgeMoEError(f"array '{path}' does not hold numbers; a plain numeric .npy array is needed.")
    return values


def read_map(path: Path | str) -> np.ndarray:
    """Read a ``.npy`` array of one value per pixel, H x W, H x W x 1 or 1 x H x W, as H x W."""
    return _plane(f"array '{path}'", read_array(path))


def _plane(what: str, values: np.ndarray) -> np.ndarray:
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[..., 0] if values.shape[2] == 1 else values[0]
    if values.ndim != 2:
        raise EdgeMoEError(
            f"{what} has shape {values.shape}, but one value per pixel, height x width, is needed."
        )
    return values


def read_mat(path: Path | str, key: str) -> Any:
    """Read one variable of a MATLAB file (version 7 or older).

    Structures come as objects with attributes, with length-one dimensions removed.
    """
    path = Path(path)
    if kind(path) != "file":
        raise EdgeMoEError(f"MATLAB file '{path}' does not exist or is not a file.")
    data = io.BytesIO(read_bytes(path))
    try:
        content = scipy.io.loadmat(data, squeeze_me=True, struct_as_record=False)
    except Exception as error:  # scipy's parsers raise errors of many types for a damaged file
        raise EdgeMoEError(
            f"'{path}' is damaged, truncated or not a MATLAB file of version 7 or older: {reason(error)}."
        ) from None
    if key not in content:
        names = ", ".join(name for name in content if not name.startswith("__")) or "none"
        raise EdgeMoEError(f"MATLAB file '{path}' has no variable '{key}': it has {names}.")
    return content[key]


def read_mat_map(path: Path | str, key: str) -> np.ndarray:
    """Read one numeric variable H x W of a MATLAB file."""
    values = np.asarray(read_mat(path, key))
    if values.dtype.kind not in "biuf":
        raise EdgeMoEError(f"variable '{key}' of MATLAB file '{path}' does not hold an array of numbers.")
    return _plane(f"variable '{key}' of MATLAB file '{path}'", values)
