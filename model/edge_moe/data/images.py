# SPDX-License-Identifier: Apache-2.0
"""Reading pictures, label maps, arrays and video frames; a bad file is an error that names it."""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.io
from PIL import Image, ImageOps, UnidentifiedImageError

from edge_moe.errors import EdgeMoEError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

# What Pillow's decoders raise on damaged files, beside its own classes (which derive from OSError).
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def _open(path: Path) -> Image.Image:
    """Open and decode a whole picture, so that a truncated one fails here."""
    if not path.is_file():
        raise EdgeMoEError(f"image '{path}' does not exist or is not a file.")
    try:
        image = Image.open(path)
        image.load()
    except UnidentifiedImageError:
        raise EdgeMoEError(f"'{path}' is not a picture that can be read (PNG, JPEG, ...).") from None
    except Image.DecompressionBombError as error:
        raise EdgeMoEError(f"image '{path}' is too large: {error}") from None
    except _DECODE_ERRORS as error:
        raise EdgeMoEError(f"image '{path}' is damaged or truncated: {error}.") from None
    return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Bring Pillow's wide single-channel modes (16-bit, 32-bit, float) to 8 bits."""
    values = np.asarray(image)
    if values.dtype.kind == "f":
        scaled = np.nan_to_num(values) * (255.0 if np.nanmax(values, initial=0.0) <= 1.0 else 1.0)
        return Image.fromarray(np.rint(scaled.clip(0, 255)).astype(np.uint8))
    # Mode "I" also carries 16-bit data; 65535 / 257 = 255.
    wide = image.mode.startswith("I;16") or int(values.max(initial=0)) > 255
    scaled = np.rint(values.astype(np.float64) / 257.0) if wide else values
    return Image.fromarray(scaled.clip(0, 255).astype(np.uint8))


def read_image(path: Path | str, *, upright: bool = True) -> np.ndarray:
    """Read a picture as uint8 H x W x 3 RGB.

    Grey, palette, 16-bit and CMYK pictures are converted; transparency is dropped. ``upright``
    applies the EXIF orientation: right for photographs, wrong for data sets whose label maps were
    drawn on the stored pixels. Raises :class:`EdgeMoEError` for a missing, damaged or truncated
    file.
    """
    path = Path(path)
    image = _open(path)
    try:
        if upright:
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":
            image = _to_8_bit(image)
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return np.array(image.convert("RGB"))
    except _DECODE_ERRORS as error:
        raise EdgeMoEError(f"image '{path}' cannot be converted to RGB: {error}.") from None


def read_label(path: Path | str) -> np.ndarray:
    """Read a single-channel label map H x W as stored.

    Palette images give their indices, 1-bit images 0 and 1, 16-bit images uint16 values. Raises
    :class:`EdgeMoEError` for a missing or damaged file and for one with several channels.
    """
    path = Path(path)
    image = _open(path)
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


def read_mat(path: Path | str, key: str) -> Any:
    """Read one variable of a MATLAB file (version 7 or older).

    Structures come as objects with attributes, with length-one dimensions removed.
    """
    path = Path(path)
    if not path.is_file():
        raise EdgeMoEError(f"MATLAB file '{path}' does not exist or is not a file.")
    try:
        content = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)
    except Exception as error:  # scipy raises whatever its parsers meet in a damaged file
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


def iter_frames(path: Path | str) -> Iterator[tuple[str, np.ndarray]]:
    """Pictures at ``path`` as (name, uint8 H x W x 3 RGB).

    ``path`` is a picture, a folder of pictures (in order of name, not searched recursively), or a
    video file. Names are unique and usable as file names: the stem of a picture (the whole name
    where two stems are equal), or STEM_NNNNNN for frame N of a video. Raises
    :class:`EdgeMoEError` at once for a missing path, an empty folder, or an undecodable video.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise EdgeMoEError(f"folder '{path}' has no pictures ({', '.join(IMAGE_SUFFIXES)}).")
        return _iter_pictures(files)
    if not path.is_file():
        raise EdgeMoEError(f"'{path}' does not exist: give a picture, a folder of pictures or a video file.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _iter_pictures([path])
    return _iter_video(path, *_open_video(path))


def _iter_pictures(files: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    stems = Counter(file.stem for file in files)
    for file in files:
        yield file.stem if stems[file.stem] == 1 else file.name.replace(".", "_"), read_image(file)


def _open_video(path: Path) -> tuple[cv2.VideoCapture, np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    decoded, frame = capture.read() if capture.isOpened() else (False, None)
    if not decoded or frame is None:
        capture.release()
        raise EdgeMoEError(f"'{path}' is neither a picture nor a video that can be decoded.")
    return capture, frame


def _iter_video(path: Path, capture: cv2.VideoCapture, first: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    try:
        index, decoded, frame = 0, True, first
        while decoded:
            yield f"{path.stem}_{index:06d}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            decoded, frame = capture.read()
            index += 1
    finally:
        capture.release()
