# SPDX-License-Identifier: Apache-2.0
"""Reading pictures, label maps, arrays, MATLAB files, folders and videos."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_moe.data.images import read_array, read_label, read_mask, read_mat, read_mat_map
from edge_moe.testing.trees import (
    colors,
    cut_short,
    save_jpg,
    save_mat,
    save_npy,
    save_palette_png,
    save_png,
    save_text,
)
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.runtime.images import frames, read_image


def test_rgb_png_is_read_as_stored(tmp_path: Path) -> None:
    picture = colors((5, 7))
    result = read_image(save_png(tmp_path / "a.png", picture))
    assert result.dtype == np.uint8
    assert result.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(result, picture)


def test_grey_is_repeated_and_alpha_dropped(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(
        read_image(save_png(tmp_path / "g.png", grey)), np.repeat(grey[..., None], 3, axis=2)
    )
    rgba = np.dstack([colors((3, 4)), np.full((3, 4), 7, dtype=np.uint8)])
    np.testing.assert_array_equal(read_image(save_png(tmp_path / "rgba.png", rgba)), rgba[..., :3])


def test_16_bit_grey_is_scaled_to_8_bits(tmp_path: Path) -> None:
    wide = np.array([[0, 257, 65535]], dtype=np.uint16)
    result = read_image(save_png(tmp_path / "wide.png", wide))
    np.testing.assert_array_equal(result[..., 0], [[0, 1, 255]])


def test_float_picture_in_unit_range_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.2, 1.0]], dtype=np.float32)).save(tmp_path / "f.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "f.tif")[..., 1], [[0, 51, 255]])


def test_palette_picture_gives_colours_and_palette_label_gives_indices(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    path = save_palette_png(tmp_path / "p.png", indices)
    np.testing.assert_array_equal(read_label(path), indices)
    # The palette of the helper: entry i has R = 37 * 3i mod 256.
    np.testing.assert_array_equal(read_image(path)[..., 0], (37 * 3 * indices.astype(int)) % 256)


def test_exif_orientation_is_applied_unless_refused(tmp_path: Path) -> None:
    picture = np.zeros((8, 16, 3), dtype=np.uint8)
    picture[:, :8] = 255  # left half white
    image = Image.fromarray(picture)
    exif = image.getexif()
    exif[0x0112] = 6  # shown turned 90 degrees clockwise: the left half is then on top
    image.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    upright = read_image(tmp_path / "turned.jpg")
    assert upright.shape == (16, 8, 3)
    assert upright[:6].min() > 200
    assert upright[10:].max() < 50
    assert read_image(tmp_path / "turned.jpg", upright=False).shape == (8, 16, 3)


def test_label_keeps_16_bits_and_turns_1_bit_into_0_and_1(tmp_path: Path) -> None:
    wide = np.array([[0, 1, 300, 65535]], dtype=np.uint16)
    result = read_label(save_png(tmp_path / "wide.png", wide))
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, wide)
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_label(tmp_path / "bits.png"), [[1, 0]])


def test_label_with_three_channels_is_refused(tmp_path: Path) -> None:
    path = save_png(tmp_path / "rgb.png", colors((2, 2)))
    with pytest.raises(EdgeMoEError, match=r"rgb\.png.*3 channels"):
        read_label(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_picture_is_an_error_that_names_it(tmp_path: Path, suffix: str) -> None:
    save = save_png if suffix == "png" else save_jpg
    path = cut_short(save(tmp_path / f"cut.{suffix}", colors((40, 40))))
    for read in (read_image, read_label):
        with pytest.raises(EdgeMoEError, match=rf"cut\.{suffix}' is damaged or truncated"):
            read(path)


def test_text_file_and_missing_file_are_errors(tmp_path: Path) -> None:
    path = save_text(tmp_path / "fake.png", "not a picture")
    with pytest.raises(EdgeMoEError, match=r"fake\.png' is not a picture"):
        read_image(path)
    with pytest.raises(EdgeMoEError, match=r"none\.png' does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(EdgeMoEError, match="does not exist or is not a file"):
        read_image(tmp_path)


def test_arrays_and_their_errors(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = save_npy(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(read_array(path), values)
    with pytest.raises(EdgeMoEError, match=r"a\.npy' is damaged"):
        read_array(cut_short(path, 0.9))
    with pytest.raises(EdgeMoEError, match=r"none\.npy' does not exist"):
        read_array(tmp_path / "none.npy")
    with pytest.raises(EdgeMoEError, match=r"text\.npy' does not hold numbers"):
        read_array(save_npy(tmp_path / "text.npy", np.array(["a"])))
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(EdgeMoEError, match=r"pickle\.npy'"):
        read_array(tmp_path / "pickle.npy")


def test_matlab_files_and_their_errors(tmp_path: Path) -> None:
    path = save_mat(tmp_path / "a.mat", {"depth": np.eye(3), "name": "text"})
    np.testing.assert_array_equal(read_mat_map(path, "depth"), np.eye(3))
    with pytest.raises(EdgeMoEError, match=r"a\.mat' has no variable 'labels': it has depth, name"):
        read_mat(path, "labels")
    with pytest.raises(EdgeMoEError, match=r"'name' .* does not hold an array of numbers"):
        read_mat_map(path, "name")
    with pytest.raises(EdgeMoEError, match=r"a\.mat' is damaged"):
        read_mat(cut_short(path), "depth")
    with pytest.raises(EdgeMoEError, match=r"none\.mat' does not exist"):
        read_mat(tmp_path / "none.mat", "depth")


def test_frames_of_one_picture_and_of_a_folder_in_order(tmp_path: Path) -> None:
    for name, seed in (("b.png", 1), ("a.png", 2), ("c.PNG", 3)):
        save_png(tmp_path / name, colors((4, 4), seed))
    save_text(tmp_path / "notes.txt", "no picture")
    (tmp_path / "sub.png").mkdir()
    found = list(frames(tmp_path))
    assert [frame.name for frame in found] == ["a", "b", "c"]
    np.testing.assert_array_equal(found[1].image, colors((4, 4), 1))
    [frame] = frames(tmp_path / "a.png")
    assert frame.name == "a"
    np.testing.assert_array_equal(frame.image, colors((4, 4), 2))


def test_equal_stems_get_distinct_names(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", colors((2, 2)))
    save_jpg(tmp_path / "a.jpg", colors((2, 2)))
    save_png(tmp_path / "b.png", colors((2, 2)))
    assert [frame.name for frame in frames(tmp_path)] == ["a_jpg", "a_png", "b"]


def test_frames_of_a_video_are_rgb(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 16))
    assert writer.isOpened()
    for _ in range(3):
        writer.write(np.full((16, 32, 3), (0, 0, 255), dtype=np.uint8))  # red in OpenCV's BGR
    writer.release()
    found = list(frames(path))
    assert [frame.name for frame in found] == ["clip_000000", "clip_000001", "clip_000002"]
    for frame in found:
        assert frame.image.shape == (16, 32, 3)
        assert frame.image[..., 0].min() > 240
        assert frame.image[..., 1:].max() < 20


def test_bad_frame_sources_are_errors_before_the_first_frame(tmp_path: Path) -> None:
    with pytest.raises(EdgeMoEError, match="does not exist"):
        frames(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EdgeMoEError, match="has no pictures"):
        frames(tmp_path / "empty")
    path = save_text(tmp_path / "broken.mp4", "not a video")
    with pytest.raises(EdgeMoEError, match=r"broken\.mp4' is neither a picture nor a video"):
        frames(path)


@pytest.mark.parametrize("read", [read_array, lambda path: read_mat(path, "a"), read_label, read_mask])
def test_files_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any) -> None:
    with pytest.raises(EdgeMoEError, match="File name too long"):
        read(tmp_path / ("x" * 5000))
    (tmp_path / "a.png").write_bytes(b"")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("builtins.open", "io.open"):
        monkeypatch.setattr(name, refuse)
    with pytest.raises(EdgeMoEError, match=r"cannot read '.*a\.png': Permission denied\.$"):
        read(tmp_path / "a.png")
