# SPDX-License-Identifier: Apache-2.0
"""Pictures of any kind and size, and sources of frames."""

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_moe_host.errors import ImageError
from edge_moe_host.runtime import images
from edge_moe_host.runtime.images import Frame, as_image, frames, is_camera, read_image, resize_image


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


# Size


def exact(values: np.ndarray, size: int) -> list[Fraction]:
    """A row of numbers at another length, by the rule."""
    count, result = len(values), []
    for place in range(size):
        if size < count:
            begin, end = Fraction(place * count, size), Fraction((place + 1) * count, size)
            parts = [max(Fraction(0), min(end, i + 1) - max(begin, i)) for i in range(count)]
        else:
            position = Fraction((2 * place + 1) * count, 2 * size) - Fraction(1, 2)
            below = position.numerator // position.denominator
            parts = [Fraction(0)] * count
            parts[min(max(below, 0), count - 1)] += 1 - (position - below)
            parts[min(max(below + 1, 0), count - 1)] += position - below
        assert size >= count or sum(parts) == Fraction(count, size)
        result.append(
            sum((p * v for p, v in zip(parts, values.tolist(), strict=True)), Fraction(0)) / sum(parts)
        )
    return result


SIZES = [((7, 9), (3, 4)), ((3, 4), (7, 9)), ((9, 3), (4, 8)), ((8, 8), (4, 2)), ((1, 1), (5, 3)),
         ((6, 10), (1, 1)), ((5, 7), (5, 3)), ((4, 6), (6, 6))]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_the_rule_in_exact_fractions(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = noise(*old)
    resized = resize_image(image, new)
    assert (resized.shape, resized.dtype) == ((*new, 3), np.uint8)
    assert resized.flags.c_contiguous
    compared = 0
    for channel in range(3):
        columns = [exact(image[:, x, channel], new[0]) for x in range(old[1])]
        for y in range(new[0]):
            row = exact(np.array([column[y] for column in columns], object), new[1])
            expected = [int(value + Fraction(1, 2)) for value in row]
            assert resized[y, :, channel].tolist() == expected
            compared += len(expected)
    assert compared == 3 * new[0] * new[1]


@pytest.mark.parametrize("old", [(256, 512), (270, 480), (1080, 1920), (129, 300)])
def test_shrinking_is_the_area_average_of_opencv(old: tuple[int, int]) -> None:
    image = noise(*old)
    theirs = cv2.resize(image, (256, 128), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(resize_image(image, (128, 256)) - theirs).max() <= 1


def test_a_picture_of_the_right_size_is_not_copied() -> None:
    image = noise(4, 6)
    assert resize_image(image, (4, 6)) is image
    np.testing.assert_array_equal(resize_image(image[:, ::-1], (4, 6)), image[:, ::-1])


def test_large_sides() -> None:
    white = np.full((1, images.MAX_SIDE, 3), 255, np.uint8)
    for size in ((2, 3), (1, 1), (3, images.MAX_SIDE - 1)):
        assert np.unique(resize_image(white, size)).tolist() == [255]
    for size in ((2, 3), (1, 1)):
        tall = np.full((images.MAX_SIDE, 1, 3), 255, np.uint8)
        assert np.unique(resize_image(tall, size)).tolist() == [255]
    assert resize_image(np.full((3000, 3000, 3), 255, np.uint8), (1, 1)).tolist() == [[[255] * 3]]


# Arrays and files


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4, 3)), r"float64 \[4, 4, 3\]"),
        (np.full((4, 4, 3), np.nan, np.float32), "float32"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.zeros((4, 4, 3), object), "object"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\]"),
        (np.zeros((3, 4, 4), np.uint8), r"\[3, 4, 4\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\[1, 4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (np.zeros((1, 2**16 + 1, 3), np.uint8), "1 x 65537 pixels"),
        (np.broadcast_to(np.zeros(3, np.uint8), (2**14, 2**14, 3)), "16384 x 16384"),
        (b"bytes", "not bytes"),
        (7, "not int"),
        (Image.new("RGB", (2, 2)), "not Image"),
    ],
)  # fmt: skip
def test_what_is_no_picture(bad: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        as_image(bad)
    assert "\n" not in str(caught.value)


def test_modes_of_files(tmp_path: Path) -> None:
    picture = noise(5, 7)
    for mode in ("RGB", "RGBA", "L", "P", "1", "CMYK", "HSV", "LAB", "I", "F", "LA", "I;16"):
        source = Image.fromarray(picture)
        image = Image.fromarray(picture[..., 0].astype(np.uint16)) if mode == "I;16" else source.convert(mode)
        path = tmp_path / "p.tif"
        try:
            image.save(path)
        except OSError:
            continue
        result = read_image(path)
        assert (result.shape, result.dtype) == ((5, 7, 3), np.uint8), mode
    image = np.asarray(Image.fromarray(picture).convert("L"))
    Image.fromarray(image).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.dstack([image] * 3))


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    Image.new("L", (9000, 9000)).save(path)
    with pytest.raises(ImageError, match=r"image '.*big\.png' has 9000 x 9000 pixels: at most"):
        read_image(path)


def test_without_pillow_and_opencv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(4, 4)).save(tmp_path / "a.png")
    (tmp_path / "clip.avi").write_bytes(b"no video")
    for name in ("PIL", "PIL.Image", "PIL.ImageOps", "cv2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImageError, match="needs Pillow: install it, or give arrays"):
        read_image(tmp_path / "a.png")
    for source in (tmp_path / "clip.avi", 0, "/dev/video0"):
        with pytest.raises(ImageError, match="needs OpenCV: install opencv-python-headless"):
            frames(source)
    assert as_image(noise(2, 2)).shape == (2, 2, 3)


# Sources


def test_cameras() -> None:
    assert [is_camera(source) for source in (0, 3, "/dev/video1", Path("/dev/video0"))] == [True] * 4
    assert [is_camera(source) for source in ("video.mp4", Path("a"), True, [0], None)] == [False] * 5


def test_an_absent_camera() -> None:
    with pytest.raises(
        ImageError, match=r"camera /dev/video77 gives no picture: is it connected, and free\?"
    ):
        frames("/dev/video77")


class Camera:
    """OpenCV's object for a camera with three frames."""

    released = 0

    def __init__(self, device: object) -> None:
        self.left = 3

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.full((2, 2, 3), (1, 2, self.left), np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        Camera.released += 1


def test_frames_of_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    Camera.released = 0
    seen = list(frames(0))
    assert [frame.name for frame in seen] == ["camera_000000", "camera_000001", "camera_000002"]
    assert [frame.image[0, 0].tolist() for frame in seen] == [[2, 2, 1], [1, 2, 1], [0, 2, 1]]
    assert Camera.released == 1
    some = frames(0)
    next(some)
    some.close()  # type: ignore[attr-defined]
    assert Camera.released == 2


def test_iterables(tmp_path: Path) -> None:
    Image.fromarray(noise(3, 3)).save(tmp_path / "a.png")
    seen = list(
        frames([noise(2, 2), tmp_path / "a.png", Frame("named", noise(4, 4)), str(tmp_path / "a.png")])
    )
    assert [frame.name for frame in seen] == ["000000", "a", "named", "a"]
    assert [frame.image.shape[0] for frame in seen] == [2, 3, 4, 3]
    assert [frame.image.shape[0] for frame in frames(noise(2, 5))] == [2]
    assert len(list(frames(np.stack([noise(2, 2)] * 3)))) == 3
    assert list(frames([])) == []
    for bad in (None, 1.5, True):
        with pytest.raises(ImageError, match=r"a source of pictures is a file, .* not "):
            frames(bad)
    source = frames([noise(2, 2), "none.png"])
    assert next(source).name == "000000"
    with pytest.raises(ImageError, match=r"'none\.png' does not exist"):
        next(source)


def test_a_generator_is_closed() -> None:
    closed = []

    def source() -> Any:
        try:
            while True:
                yield noise(2, 2)
        finally:
            closed.append(True)

    some = frames(source())
    next(some)
    some.close()  # type: ignore[attr-defined]
    assert closed == [True]


# Files as people have them


def test_the_content_decides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for name in ("a.jfif", "b", "c.txt", "d.jpg"):
        Image.fromarray(noise(4, 6)).save(tmp_path / name, format="JPEG", exif=exif)
    (tmp_path / "notes.md").write_text("no picture")
    for name in ("._a.jpg", ".DS_Store", ".hidden.png"):
        (tmp_path / name).write_text("of a Mac")
    (tmp_path / "folder").mkdir()
    seen = list(frames(tmp_path))
    assert [frame.name for frame in seen] == ["a", "b", "c", "d"]
    for frame in seen:
        assert frame.image.shape == (6, 4, 3)
        np.testing.assert_array_equal(frame.image, seen[0].image)
    assert [next(frames(tmp_path / name)).image.shape for name in ("a.jfif", "b")] == [(6, 4, 3)] * 2
    assert caplog.messages == [
        f"folder '{tmp_path}': 1 of 5 files are no pictures and are skipped: notes.md."
    ]
    (tmp_path / "e.png").write_text("damaged")  # its name promises a picture
    with pytest.raises(ImageError, match=r"e\.png' is not a picture that can be read"):
        list(frames(tmp_path))


def test_a_folder_of_hidden_files_has_no_pictures(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 6)).save(tmp_path / "._a.png")
    with pytest.raises(ImageError, match=r"has no pictures \(\.png"):
        frames(tmp_path)


def test_half_a_video(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(30):
        writer.write(noise(48, 64, number))
    writer.release()
    assert len(list(frames(path))) == 30
    assert caplog.messages == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    count = len(list(frames(path)))
    assert 5 < count < 20
    (message,) = caplog.messages
    assert message.startswith(f"video 'a' announces 30 frames, but only {count} can be decoded")


def test_pixels_of_a_float_picture_that_are_not_finite(tmp_path: Path) -> None:
    for scale in (1.0, 200.0):
        values = np.array([[0.5, np.inf, 1.0], [np.nan, -np.inf, 0.0]], np.float32) * np.float32(scale)
        Image.fromarray(values).save(tmp_path / "a.tif")
        top = 255 if scale == 1 else 200
        grey = [[round(top / 2), top, top], [0, 0, 0]]
        assert read_image(tmp_path / "a.tif")[..., 0].tolist() == grey


def test_paths_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ask in (frames, read_image):
        with pytest.raises(ImageError, match="File name too long"):
            ask(tmp_path / ("x" * 5000))
    Image.fromarray(noise(4, 6)).save(tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("PIL.Image.open", refuse)
    with pytest.raises(ImageError, match=r"cannot read '.*a\.png': Permission denied\.$"):
        read_image(tmp_path / "a.png")
