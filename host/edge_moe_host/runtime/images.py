# SPDX-License-Identifier: Apache-2.0
"""Pictures from arrays, files, folders, videos and cameras, and their resizing for the model.

Everything becomes uint8 RGB [h, w, 3]. Files need Pillow; videos and cameras need OpenCV; arrays and
:func:`resize_image` need only NumPy.
"""

import functools
import itertools
import logging
import math
import os
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_moe_host.errors import ImageError, reason
from edge_moe_host.files import kind, unreadable, visible

if TYPE_CHECKING:
    from PIL import Image

_LOG = logging.getLogger(__name__)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Formats by which a file under any other name is known for a picture; an animated GIF is a video.
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "WEBP", "TIFF", "PPM")
MAX_PIXELS, MAX_SIDE = 2**26, 2**16  # of a picture; a board has no memory for more

# Exceptions of Pillow's decoders on damaged files, besides its own classes (which derive from OSError).
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
                  NotImplementedError, struct.error, zlib.error)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source; ``name`` is unique in it and usable as a file name. ``rate``: a video's frames
    a second."""

    name: str
    image: np.ndarray
    rate: float | None = None


def unused_name(name: str, source: Path, used: set[str]) -> str:
    """``name``, with its source's folder or a number where it is ``used`` already; it is used from now on."""
    folder = (source if os.path.isdir(source) else source.absolute().parent).absolute().name
    numbered = (f"{folder}_{name}_{number}" for number in itertools.count(2))
    names = itertools.chain((name, f"{folder}_{name}"), numbered)
    chosen = next(text for text in names if text.casefold() not in used)
    used.add(chosen.casefold())
    return chosen


# Pictures


def as_image(source: Any) -> np.ndarray:
    """uint8 RGB [h, w, 3] from such an array or from a picture file. ImageError for anything else."""
    if isinstance(source, str | Path):
        return read_image(source)
    if not isinstance(source, np.ndarray):
        raise ImageError(
            f"a picture is an array uint8 [height, width, 3] or a file, not {type(source).__name__}."
        )
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
        raise ImageError(
            f"the picture is {source.dtype} {list(source.shape)}: uint8 [height, width, 3], RGB, is needed."
        )
    _check_size("the picture", source.shape[0], source.shape[1])
    return np.asarray(source)


def _check_size(what: str, height: int, width: int) -> None:
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise ImageError(
            f"{what} has {height} x {width} pixels: at most {MAX_PIXELS}, and {MAX_SIDE} a side, are taken."
        )


def open_picture(path: Path) -> "Image.Image":
    """Open and decode a whole picture file with Pillow, so that a truncated one fails here."""
    pillow = _pillow()
    if kind(path, ImageError) != "file":
        raise ImageError(f"image '{path}' does not exist or is not a file.")
    try:
        with warnings.catch_warnings():  # of large pictures and odd metadata
            warnings.simplefilter("ignore")
            image: Image.Image = pillow.Image.open(path)
            _check_size(f"image '{path}'", image.height, image.width)
            image.load()
    except ImageError:
        raise
    except pillow.UnidentifiedImageError:
        raise ImageError(f"'{path}' is not a picture that can be read (PNG, JPEG, ...).") from None
    except pillow.Image.DecompressionBombError as error:
        raise ImageError(f"image '{path}' is too large: {error}") from None
    except (*_DECODE_ERRORS, MemoryError) as error:
        if getattr(error, "errno", None):  # the system's, not the decoder's
            raise unreadable(path, error, ImageError) from None
        raise ImageError(f"image '{path}' is damaged or truncated: {reason(error)}.") from None
    return image


def read_image(path: Path | str, *, upright: bool = True) -> np.ndarray:
    """Read a picture file as uint8 RGB [h, w, 3].

    Grey, palette, 16-bit and CMYK pictures are converted; transparency is dropped. ``upright``
    applies the EXIF orientation: right for photographs, wrong for data sets with labels drawn on the
    stored pixels. ImageError for a missing, damaged or truncated file.
    """
    return to_rgb(Path(path), open_picture(Path(path)), upright)


def to_rgb(path: Path, image: "Image.Image", upright: bool) -> np.ndarray:
    """:func:`read_image` of an opened picture."""
    try:
        if upright:
            image = _pillow().ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":
            image = _to_8_bit(image)
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return np.array(image.convert("RGB"))
    except _DECODE_ERRORS as error:
        raise ImageError(f"image '{path}' cannot be converted to RGB: {reason(error)}.") from None


def _to_8_bit(image: "Image.Image") -> "Image.Image":
    """Bring Pillow's wide single-channel modes (16-bit, 32-bit, float) to 8 bits."""
    from_array: Callable[[np.ndarray], Image.Image] = _pillow().Image.fromarray
    values = np.asarray(image)
    if values.dtype.kind == "f":
        top = values.max(where=np.isfinite(values), initial=0.0)
        scaled = np.nan_to_num(values, posinf=top).clip(0, top) * (255.0 if top <= 1.0 else 1.0)
        return from_array(np.rint(scaled.clip(0, 255)).astype(np.uint8))
    # Mode "I" also carries 16-bit data; 65535 / 257 = 255.
    wide = image.mode.startswith("I;16") or int(values.max(initial=0)) > 255
    scaled = np.rint(values.astype(np.float64) / 257.0) if wide else values
    return from_array(scaled.clip(0, 255).astype(np.uint8))


def _pillow() -> ModuleType:
    try:
        import PIL
        import PIL.Image
        import PIL.ImageOps
    except ImportError:
        raise ImageError("reading picture files needs Pillow: install it, or give arrays.") from None
    return PIL


def _cv2() -> ModuleType:
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # the errors here say what is wrong
    try:
        import cv2
    except ImportError:
        raise ImageError("reading videos and cameras needs OpenCV: install opencv-python-headless.") from None
    return cv2


# Sources of frames


def is_camera(source: Any) -> bool:
    """Whether a source is live: a camera's index or its /dev/video file."""
    if isinstance(source, str | Path):
        return str(source).startswith("/dev/video")
    return isinstance(source, int) and not isinstance(source, bool)


def frames(source: Any) -> Iterator[Frame]:
    """Frames of a picture, a folder of pictures, a video, a camera (index or /dev/videoN), an array, or an
    iterable of arrays, files and Frames.

    A folder is read in the order of its names, without its subfolders and hidden files. The content decides
    what is a picture, whatever its name. Names are the stem of a picture (the
    whole name where two stems are equal), STEM_NNNNNN for frame N of a video, and a number otherwise.
    ImageError at once for a source that does not exist, an empty folder, or an undecodable video.
    """
    if is_camera(source):
        return _camera(source)
    if isinstance(source, str | Path):
        return _path_frames(Path(source))
    if isinstance(source, np.ndarray) and source.ndim == 3:
        return iter([Frame("000000", as_image(source))])
    if isinstance(source, Iterable):
        return _numbered(iter(source))
    raise ImageError(
        "a source of pictures is a file, a folder, a video, a camera's number or an iterable of pictures, "
        f"not {type(source).__name__}."
    )


def _numbered(source: Iterator[Any]) -> Iterator[Frame]:
    try:
        for number, item in enumerate(source):
            if isinstance(item, Frame):
                yield Frame(item.name, as_image(item.image))
            else:
                name = Path(item).stem if isinstance(item, str | Path) else f"{number:06d}"
                yield Frame(name, as_image(item))
    finally:
        close = getattr(source, "close", None)  # a generator may hold a file or a camera
        if callable(close):
            close()


def _path_frames(path: Path) -> Iterator[Frame]:
    found = kind(path, ImageError)
    if found == "folder":
        return _pictures(pictures_in(path))
    if found != "file":
        raise ImageError(f"'{path}' does not exist: give a picture, a folder of pictures or a video file.")
    if is_picture(path):
        return _pictures([path])
    refusal = f"'{path}' is neither a picture nor a video that can be decoded."
    capture, first = _open_capture(str(path), refusal)
    cv2 = _cv2()
    rate, announced = float(capture.get(cv2.CAP_PROP_FPS)), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return _video(path.stem, capture, first, rate if 0 < rate < math.inf else 25.0, announced)


def is_picture(path: Path) -> bool:
    """Whether a file is a picture: by its suffix, so that a damaged one is not skipped, or its content."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _pillow().Image.open(path, formats=_FORMATS).close()
    except (*_DECODE_ERRORS, ImageError):
        return False
    except Exception as error:
        return type(error).__name__ == "DecompressionBombError"
    return True


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted by name; ImageError if it has none. Hidden files are passed over; how
    many other files are skipped is logged."""
    files = [path for path in visible(folder, ImageError) if kind(path, ImageError) == "file"]
    pictures = [path for path in files if is_picture(path)]
    if not pictures:
        raise ImageError(f"folder '{folder}' has no pictures ({', '.join(IMAGE_SUFFIXES)}).")
    if skipped := [path.name for path in files if path not in set(pictures)]:
        names = ", ".join(skipped[:3]) + (", ..." if skipped[3:] else "")
        _LOG.warning("folder '%s': %d of %d files are no pictures and are skipped: %s.", folder, len(skipped),
                     len(files), names)  # fmt: skip
    return pictures


def _pictures(files: list[Path]) -> Iterator[Frame]:
    stems = Counter(file.stem for file in files)
    for file in files:
        yield Frame(file.stem if stems[file.stem] == 1 else file.name.replace(".", "_"), read_image(file))


def _camera(source: int | str | Path) -> Iterator[Frame]:
    device = source if isinstance(source, int) else str(source)
    return _video("camera", *_open_capture(device, f"camera {device} gives no picture: is it connected, and "
                                           "free?"))  # fmt: skip


def _open_capture(device: int | str, refusal: str) -> tuple[Any, np.ndarray]:
    cv2 = _cv2()
    capture = cv2.VideoCapture(device)
    decoded, frame = capture.read() if capture.isOpened() else (False, None)
    if not decoded or frame is None:
        capture.release()
        raise ImageError(refusal)
    return capture, frame


def _video(
    stem: str, capture: Any, first: np.ndarray, rate: float | None = None, announced: float = 0
) -> Iterator[Frame]:
    """``announced``: the number of frames by the file's header, which can be inexact."""
    cv2 = _cv2()
    try:
        index, decoded, frame = 0, True, first
        while decoded:
            yield Frame(f"{stem}_{index:06d}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), rate)
            decoded, frame = capture.read()
            index += 1
        if announced > 1.02 * index + 1:
            _LOG.warning("video '%s' announces %d frames, but only %d can be decoded: it is damaged or cut.",
                         stem, announced, index)  # fmt: skip
    finally:
        capture.release()


# Size


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [h, w, 3] at ``size`` = (height, width), contiguous; the picture itself if it fits already.

    An axis that shrinks takes the average of the area that an output pixel covers; one that grows is linear
    between pixel centres, edges repeated. Sums are exact integers, rounded once, halves up: the same bytes on
    every machine.
    """
    if image.shape[:2] == size:
        return np.ascontiguousarray(image)
    rows, units = _resample(np.ascontiguousarray(image), size[0])  # [H, w, 3]
    columns, others = _resample(rows.transpose(1, 0, 2), size[1])  # [W, H, 3]
    total = units * others
    sums = columns.transpose(1, 0, 2)
    return np.ascontiguousarray((2 * sums + total) // (2 * total)).astype(np.uint8)


def _resample(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """``values`` [n, ...] at ``size`` along the first axis, times the returned number."""
    if size == len(values):
        return values.astype(np.int64), 1
    if size < len(values):
        return _average(values, size)
    taps = linear_taps(len(values), size)
    weight, rest = (array.reshape(-1, *(1,) * (values.ndim - 1)) for array in (taps.weight, taps.rest))
    return values[taps.lower] * rest + values[taps.upper] * weight, taps.units


def _average(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Sums over the areas of ``size`` output pixels, in parts of an input pixel: units of n / gcd(n, size).

    Output pixel o covers the parts from o * n' to (o + 1) * n'; an input pixel has m' parts. The sum over
    whole pixels, from the first of o to the first of o + 1, is corrected for the parts at both ends.
    """
    common = math.gcd(len(values), size)
    covers, parts = len(values) // common, size // common
    begin = np.arange(size + 1) * covers
    first, excess = begin // parts, begin % parts
    narrow = values.dtype == np.uint8  # sums of up to MAX_SIDE bytes
    whole = np.add.reduceat(values, first[:-1], axis=0, dtype=np.int32 if narrow else np.int64)
    edge = values[np.minimum(first, len(values) - 1)].astype(np.int64)
    edge *= excess.reshape(-1, *(1,) * (values.ndim - 1))
    return parts * whole.astype(np.int64) - edge[:-1] + edge[1:], covers


@dataclass(frozen=True, eq=False)
class Taps:
    """Linear interpolation of ``count`` values at some places, half-pixel centres, edges repeated.

    For each place: the indices ``lower`` and ``upper`` of its two values, the upper one's weight, and the
    lower one's, ``rest``; both add up to ``units``. ``gap`` is the place's gap between values: 0 before the
    first, ``count`` after the last; these two have the first or last value on both sides. ``around``: the
    indices with first and last repeated, so that gap g is between ``around[g]`` and ``around[g + 1]``.
    ``places[:, g]``: the places in gap g, the last repeated to the largest number; ``filled[g]``: it has one.
    """

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray
    rest: np.ndarray
    gap: np.ndarray
    around: np.ndarray
    places: np.ndarray
    filled: np.ndarray
    units: int


@functools.lru_cache(maxsize=64)
def linear_taps(count: int, size: int, dtype: type = np.int64) -> Taps:
    """Taps of ``size`` places that cover ``count`` values evenly; weights are of ``dtype``.

    ``units`` is ``2 size / gcd(count, size)``. For a whole factor this is an axis of golden's task output.
    """
    common = math.gcd(count, size)
    step, units = count // common, 2 * (size // common)
    position = (2 * np.arange(size, dtype=np.int64) + 1) * step - size // common
    gap, weight = position // units + 1, position % units
    around = np.clip(np.arange(-1, count + 1), 0, count - 1)
    number = np.bincount(gap, minlength=count + 1)
    begin = np.cumsum(number) - number
    places = begin + np.minimum(np.arange(number.max())[:, None], np.maximum(number - 1, 0))
    taps = Taps(
        around[gap], around[gap + 1], weight.astype(dtype), (units - weight).astype(dtype), gap, around,
        np.minimum(places, size - 1), number > 0, units,
    )  # fmt: skip
    for array in vars(taps).values():
        if isinstance(array, np.ndarray):
            array.setflags(write=False)  # they are shared by all callers
    return taps


def read_pictures(paths: Sequence[Path], size: Sequence[int]) -> np.ndarray:
    """uint8 [n, H, W, 3] of ``size``, height and width: pictures, folders of them, or frames of videos.

    ImageError when there is none, or one cannot be read.
    """
    height, width = size
    pictures = [resize_image(frame.image, (height, width)) for path in paths for frame in frames(path)]
    if not pictures:
        raise ImageError("there are no pictures: give at least one.")
    return np.stack(pictures)
