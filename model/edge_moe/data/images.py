# SPDX-License-Identifier: Apache-2.0
"""Reading label maps and arrays; a bad file is an error that names it."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.runtime import images


def read_label(path: Path | str) -> np.ndarray:
    """Read a single-channel label map H x W as stored.

    Palette images give their indices, 1-bit images 0 and 1, 16-bit images uint16 values. Raises
    :class:`EdgeMoEError` for a missing or damaged file and for one with several channels.
    """
    path = Path(path)
    image = images.open_picture(path)
    if len(image.getbands()) != 1 or image.mode == "F":
        raise EdgeMoEError(
            f"label map '{path}' has {len(image.getbands())} channels ({image.mode}), "
            "but one channel of indices is needed."
        )
    values = np.array(image)
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    # Older encoders make Pillow report 16-bit PNG as 32-bit signed.
    return values.astype(np.uint16) if values.dtype == np.int32 and values.max(initial=0) < 65536 else values


def read_array(path: Path | str) -> np.ndarray:
    """Read a numeric ``.npy`` array; pickled objects are refused."""
    path = Path(path)
    if not path.is_file():
        raise EdgeMoEError(f"array '{path}' does not exist or is not a file.")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise EdgeMoEError(f"array '{path}' is damaged, truncated or not a .npy file: {error}.") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise EdgeMoEError(f"array '{path}' does not hold numbers; a plain numeric .npy array is needed.")
    return values


def read_map(path: Path | str) -> np.ndarray:
    """Read a ``.npy`` array of one value per pixel, H x W or H x W x 1, as H x W."""
    values = read_array(path)
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values


def read_mat(path: Path | str, key: str) -> Any:
    """Read one variable of a MATLAB file (version 7 or older).

    Structures come as objects with attributes, with length-one dimensions removed.
    """
    path = Path(path)
    if not path.is_file():
        raise EdgeMoEError(f"MATLAB file '{path}' does not exist or is not a file.")
    try:
        content = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)
    except Exception as error:  # scipy's parsers raise errors of many types for a damaged file
        raise EdgeMoEError(
            f"'{path}' is damaged, truncated or not a MATLAB file of version 7 or older: {error}."
        ) from None
    if key not in content:
        names = ", ".join(name for name in content if not name.startswith("__")) or "none"
        raise EdgeMoEError(f"MATLAB file '{path}' has no variable '{key}': it has {names}.")
    return content[key]


def read_mat_array(path: Path | str, key: str) -> np.ndarray:
    """Read one numeric variable of a MATLAB file."""
    values = np.asarray(read_mat(path, key))
    if values.dtype.kind not in "biuf":
        raise EdgeMoEError(f"variable '{key}' of MATLAB file '{path}' does not hold an array of numbers.")
    return values
