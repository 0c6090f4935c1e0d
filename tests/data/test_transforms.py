# SPDX-License-Identifier: Apache-2.0
"""Joint augmentation with answers computed by hand, on every kind of label."""

import numpy as np
import pytest
import torch

from edge_moe.config import TrainConfig
from edge_moe.data.base import DepthKind
from edge_moe.data.sample import Sample, collate, resize_image, to_tensors
from edge_moe.data.transforms import (
    IMAGE_FILL,
    Augmentation,
    View,
    apply_view,
    evaluation_resize,
    jitter_colors,
)
from edge_moe_host.errors import EdgeMoEError

SIZE = (4, 6)


def make_sample(size: tuple[int, int] = SIZE, seed: int = 0) -> Sample:
    """Every task, with ignored pixels in each."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(*size, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[rng.random(size) < 0.2] = 0
    depth = rng.uniform(1, 50, size).astype(np.float32)
    depth[rng.random(size) < 0.2] = 0
    depth[0, 0] = -1
    return {
        "image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "semseg": rng.choice([0, 1, 6, 255], size).astype(np.uint8),
        "human_parts": rng.choice([0, 3, 255], size).astype(np.uint8),
        "saliency": rng.choice([0, 1, 255], size).astype(np.uint8),
        "edge": rng.choice([0, 1, 255], size).astype(np.uint8),
        "normals": normals,
        "depth": depth,
    }


def assert_same(actual: Sample, expected: Sample) -> None:
    assert actual.keys() == expected.keys()
    for key, array in expected.items():
        assert actual[key].dtype == array.dtype
        if key == "normals":
            np.testing.assert_allclose(actual[key], array, atol=1e-6)
        else:
            np.testing.assert_array_equal(actual[key], array)


def labels_of(values: list[list[int]]) -> Sample:
    """A picture whose image and semseg both have the values."""
    array = np.array(values, dtype=np.uint8)
    return {"image": np.repeat(array[..., None], 3, axis=2), "semseg": array}


def test_default_view_is_the_identity_and_copies() -> None:
    sample = make_sample()
    result = apply_view(sample, View(), SIZE)
    assert_same(result, sample)
    for key, array in result.items():
        assert array.flags["C_CONTIGUOUS"]
        assert not np.shares_memory(array, sample[key])


def test_flip_mirrors_everything_and_negates_x() -> None:
    sample = make_sample()
    result = apply_view(sample, View(flip=True), SIZE)
    for key in ("image", "semseg", "human_parts", "saliency", "edge", "depth"):
        np.testing.assert_array_equal(result[key], sample[key][:, ::-1])
    np.testing.assert_allclose(result["normals"], sample["normals"][:, ::-1] * [-1, 1, 1], atol=1e-6)


@pytest.mark.parametrize("degrees", [0.0, 180.0])
def test_flip_twice_is_the_identity(degrees: float) -> None:
    sample = make_sample()
    once = apply_view(sample, View(flip=True, degrees=degrees), SIZE)
    twice = apply_view(once, View(flip=True, degrees=degrees), SIZE)
    assert_same(twice, sample)


def test_quarter_turn_goes_counter_clockwise() -> None:
    sample = labels_of([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    expected = [[3, 6, 9], [2, 5, 8], [1, 4, 7]]
    result = apply_view(sample, View(degrees=90), (3, 3))
    np.testing.assert_array_equal(result["semseg"], expected)
    np.testing.assert_array_equal(result["image"][..., 0], expected)
    back = apply_view(result, View(degrees=-90), (3, 3))
    np.testing.assert_array_equal(back["semseg"], sample["semseg"])


def test_rotation_turns_normals_with_the_picture() -> None:
    # x right, y down: turned counter-clockwise by 90 degrees, right becomes up and down becomes right.
    vectors = np.array([(1, 0, 0), (0, 1, 0), (0, 0, -1), (0.6, 0, -0.8)], dtype=np.float32)
    turned = np.array([(0, -1, 0), (1, 0, 0), (0, 0, -1), (0, -0.6, -0.8)], dtype=np.float32)
    for vector, expected in zip(vectors, turned, strict=True):
        sample: Sample = {"image": np.zeros((3, 3, 3), np.uint8), "normals": np.tile(vector, (3, 3, 1))}
        result = apply_view(sample, View(degrees=90), (3, 3))["normals"]
        np.testing.assert_allclose(result, np.tile(expected, (3, 3, 1)), atol=1e-6)


def test_rotation_of_normals_by_30_degrees() -> None:
    sample: Sample = {
        "image": np.zeros((5, 5, 3), np.uint8),
        "normals": np.tile(np.array([0.6, 0, -0.8], np.float32), (5, 5, 1)),
    }
    result = apply_view(sample, View(degrees=30), (5, 5))["normals"]
    np.testing.assert_allclose(result[2, 2], [0.6 * 3**0.5 / 2, -0.3, -0.8], atol=1e-6)
    assert (result[0, 0] == 0).all()  # the corner shows what was outside the picture
    mirrored = apply_view(sample, View(flip=True, degrees=30), (5, 5))["normals"]
    np.testing.assert_allclose(mirrored[2, 2], [-0.6 * 3**0.5 / 2, 0.3, -0.8], atol=1e-6)


def test_normals_are_normalised_and_zero_vectors_stay_zero() -> None:
    normals = np.zeros((2, 2, 3), dtype=np.float32)
    normals[0, 0] = (0, 0, -3)
    sample: Sample = {"image": np.zeros((2, 2, 3), np.uint8), "normals": normals}
    result = apply_view(sample, View(), (2, 2))["normals"]
    np.testing.assert_array_equal(result[0, 0], [0, 0, -1])
    assert (result.reshape(-1, 3)[1:] == 0).all()


def test_rotation_leaves_ignored_corners() -> None:
    sample = make_sample((9, 9))
    for task in ("semseg", "human_parts", "saliency", "edge"):
        sample[task][:] = 1
    sample["depth"][:] = 2
    result = apply_view(sample, View(degrees=45), (9, 9))
    for y, x in ((0, 0), (0, 8), (8, 0), (8, 8)):
        for task in ("semseg", "human_parts", "saliency", "edge"):
            assert result[task][y, x] == 255
        assert result["depth"][y, x] == 0
        np.testing.assert_array_equal(result["image"][y, x], IMAGE_FILL)
    assert result["semseg"][4, 4] == 1
    assert result["depth"][4, 4] == 2


def test_zoom_by_two_shows_the_chosen_quarter() -> None:
    sample = labels_of([[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33]])
    top_left = apply_view(sample, View(zoom=2, shift=(0, 0)), (4, 4))
    np.testing.assert_array_equal(
        top_left["semseg"], [[0, 0, 1, 1], [0, 0, 1, 1], [10, 10, 11, 11], [10, 10, 11, 11]]
    )
    bottom_right = apply_view(sample, View(zoom=2, shift=(0.999, 0.999)), (4, 4))
    np.testing.assert_array_equal(bottom_right["semseg"][[0, 3]], [[22, 22, 23, 23], [32, 32, 33, 33]])
    # Linear interpolation between pixel centres: a quarter of the way from 0 to 1 rounds to 0.
    np.testing.assert_array_equal(bottom_right["image"][3, 3], [33, 33, 33])


def test_zoom_out_pads_and_averages_the_image() -> None:
    sample = labels_of([[0, 4, 8, 12]] * 4)
    sample["depth"] = np.full((4, 4), 3, dtype=np.float32)
    sample["normals"] = np.tile(np.array([0, 0, -1], np.float32), (4, 4, 1))
    result = apply_view(sample, View(zoom=0.5, shift=(0, 0)), (4, 4))
    # The 2 x 2 picture is in the top left corner; the rest is outside.
    np.testing.assert_array_equal(result["image"][:2, :2, 0], [[2, 10], [2, 10]])
    np.testing.assert_array_equal(result["semseg"][:2, :2], [[4, 12], [4, 12]])
    outside = np.ones((4, 4), dtype=bool)
    outside[:2, :2] = False
    assert (result["semseg"][outside] == 255).all()
    assert (result["depth"][outside] == 0).all()
    assert (result["normals"][outside] == 0).all()
    np.testing.assert_array_equal(result["image"][outside], np.tile(IMAGE_FILL, (12, 1)))
    np.testing.assert_array_equal(result["depth"][:2, :2], 6)  # twice as far
    corner = apply_view(sample, View(zoom=0.5, shift=(0.999, 0.999)), (4, 4))["semseg"]
    assert (corner[2:, 2:] != 255).all()
    assert (corner[:2] == 255).all()


@pytest.mark.parametrize(("kind", "expected"), [("metric", 20.0), ("inverse", 45.0)])
def test_zoom_scales_depth_but_never_ignored_values(kind: DepthKind, expected: float) -> None:
    depth = np.array([[30, 0], [-1, 30]], dtype=np.float32)
    sample: Sample = {"image": np.zeros((2, 2, 3), np.uint8), "depth": depth}
    result = apply_view(sample, View(zoom=1.5, shift=(0, 0)), (2, 2), kind)["depth"]
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [[expected, 0], [-1, expected]])


def test_depth_is_not_scaled_by_a_mere_change_of_resolution() -> None:
    sample: Sample = {"image": np.zeros((2, 2, 3), np.uint8), "depth": np.full((2, 2), 7, dtype=np.float32)}
    np.testing.assert_array_equal(apply_view(sample, View(), (8, 8))["depth"], np.full((8, 8), 7))


def test_shrinking_keeps_thin_edges_connected_and_ignored_pixels() -> None:
    edge = np.zeros((12, 12), dtype=np.uint8)
    edge[:, 5] = 1  # nearest sampling of every third pixel (1, 4, 7, 10) would miss column 5
    edge[:, 9:] = 255
    sample: Sample = {"image": np.zeros((12, 12, 3), np.uint8), "edge": edge}
    result = apply_view(sample, View(), (4, 4))["edge"]
    np.testing.assert_array_equal(result, [[0, 1, 0, 255]] * 4)
    for column in range(12):
        sample["edge"] = np.zeros((12, 12), dtype=np.uint8)
        sample["edge"][:, column] = 1
        found = apply_view(sample, View(zoom=0.75), (12, 12))["edge"]
        assert (found == 1).any(axis=1).sum() == 9


def test_enlarging_keeps_edges_as_they_are() -> None:
    edge = np.eye(4, dtype=np.uint8)
    sample: Sample = {"image": np.zeros((4, 4, 3), np.uint8), "edge": edge}
    np.testing.assert_array_equal(apply_view(sample, View(), (8, 8))["edge"], np.kron(edge, np.ones((2, 2))))


@pytest.mark.parametrize("seed", range(20))
def test_no_view_invents_or_changes_label_values(seed: int) -> None:
    train = TrainConfig(scales=(0.5, 1.0, 1.7), scale_range=(0.75, 1.25), rotate=30.0, color_jitter=0.4)
    rng = np.random.default_rng(seed)
    sample = make_sample((17, 23), seed)
    augmentation = Augmentation(train, (16, 32))
    view = augmentation.draw(np.random.default_rng(seed))
    result = augmentation(sample, rng)
    for task in ("semseg", "human_parts", "saliency"):
        assert set(np.unique(result[task])) <= set(np.unique(sample[task])) | {255}
    assert set(np.unique(result["edge"])) <= {0, 1, 255}
    measured = result["depth"][result["depth"] > 0] * np.float32(view.zoom)
    distance = np.abs(measured[:, None] - sample["depth"][sample["depth"] > 0][None])
    assert (distance.min(axis=1) < 1e-3).all()
    lengths = np.linalg.norm(result["normals"], axis=-1)
    assert (np.isclose(lengths, 1, atol=1e-5) | (lengths == 0)).all()
    # Every label knows the same pixels as outside.
    alone = {
        "image": sample["image"],
        "semseg": np.zeros((17, 23), np.uint8),
        "depth": np.ones((17, 23), np.float32),
    }
    seen = apply_view(alone, view, (16, 32))
    np.testing.assert_array_equal(seen["semseg"] == 255, seen["depth"] == 0)


def test_image_and_labels_stay_aligned_under_every_step() -> None:
    """A bright square is found at the same place in the image and in its label."""
    sample: Sample = {"image": np.zeros((60, 80, 3), np.uint8), "semseg": np.zeros((60, 80), np.uint8)}
    sample["image"][12:40, 30:66] = 255
    sample["semseg"][12:40, 30:66] = 1
    train = TrainConfig(scales=(0.6, 1.0, 1.6), rotate=45.0)
    augmentation = Augmentation(train, (48, 96))
    rng = np.random.default_rng(1)
    compared = 0
    for _ in range(20):
        result = augmentation(sample, rng)
        inside = result["semseg"] != 255
        agree = (result["image"][..., 0] > 127)[inside] == (result["semseg"] == 1)[inside]
        assert agree.mean() > 0.985
        compared += int(inside.sum())
    assert compared > 20000


def test_augmentation_depends_on_the_generator_alone_and_keeps_the_input() -> None:
    train = TrainConfig(scales=(1.0, 1.2, 1.5), rotate=10.0, color_jitter=0.3)
    sample, untouched = make_sample(), make_sample()
    augmentation = Augmentation(train, (8, 8))
    np.random.seed(0)
    first = augmentation(sample, np.random.default_rng(5))
    np.random.seed(1)
    second = augmentation(sample, np.random.default_rng(5))
    third = augmentation(sample, np.random.default_rng(6))
    assert_same(first, second)
    assert any(not np.array_equal(first[key], third[key]) for key in first)
    assert_same(sample, untouched)


def test_draw_follows_the_recipe() -> None:
    train = TrainConfig(flip=True, scales=(1.0, 1.2, 1.5), scale_range=(1.0, 1.0), rotate=20.0)
    rng = np.random.default_rng(0)
    views = [Augmentation(train, SIZE).draw(rng) for _ in range(400)]
    assert {view.zoom for view in views} == {1.0, 1.2, 1.5}
    assert 140 < sum(view.flip for view in views) < 260
    angles = [view.degrees for view in views]
    assert -20 <= min(angles) < -15
    assert 15 < max(angles) <= 20
    still = Augmentation(TrainConfig(flip=False), SIZE).draw(rng)
    assert (still.flip, still.degrees, still.zoom) == (False, 0.0, 1.0)
    ranged = [Augmentation(TrainConfig(scale_range=(0.75, 1.25)), SIZE).draw(rng).zoom for _ in range(200)]
    assert 0.75 <= min(ranged) < 0.8
    assert 1.2 < max(ranged) <= 1.25


def test_every_cut_of_a_zoomed_picture_is_reached() -> None:
    sample = labels_of([[0, 1, 2, 3]] * 4)
    seen = set()
    rng = np.random.default_rng(0)
    augmentation = Augmentation(TrainConfig(flip=False, scales=(1.5,)), (4, 4))
    for _ in range(60):
        seen.add(tuple(augmentation(sample, rng)["semseg"][0]))
    assert len(seen) == 3  # 6 wide, cut to 4: offsets 0, 1, 2


def test_color_jitter_changes_the_image_only() -> None:
    sample = make_sample()
    result = Augmentation(TrainConfig(flip=False, color_jitter=0.5), SIZE)(sample, np.random.default_rng(0))
    assert not np.array_equal(result["image"], sample["image"])
    for key in sample.keys() - {"image", "normals"}:
        np.testing.assert_array_equal(result[key], sample[key])


def test_color_jitter_of_a_grey_picture_changes_brightness_only() -> None:
    grey = np.full((3, 3, 3), 100, dtype=np.uint8)
    results = [jitter_colors(grey, 0.5, np.random.default_rng(seed)) for seed in range(50)]
    levels = [int(result[0, 0, 0]) for result in results]
    for result, level in zip(results, levels, strict=True):
        np.testing.assert_array_equal(result, np.full((3, 3, 3), level))
    assert 50 <= min(levels) < 65
    assert 135 < max(levels) <= 150
    np.testing.assert_array_equal(jitter_colors(grey, 0.0, np.random.default_rng(0)), grey)


def test_evaluation_resize_touches_the_image_only() -> None:
    sample = make_sample((8, 12))
    result = evaluation_resize(sample, (4, 6))
    assert result["image"].shape == (4, 6, 3)
    means = sample["image"].reshape(4, 2, 6, 2, 3).mean(axis=(1, 3))
    assert np.abs(result["image"] - means).max() <= 0.5
    for key in sample.keys() - {"image"}:
        assert result[key] is sample[key]


def test_the_whole_picture_takes_labels_from_pixel_centres() -> None:
    sample = labels_of([[1, 2, 3, 4, 5, 6]])
    np.testing.assert_array_equal(apply_view(sample, View(), (1, 2))["semseg"], [[2, 5]])
    np.testing.assert_array_equal(
        apply_view(sample, View(), (2, 12))["semseg"], np.repeat([[1, 2, 3, 4, 5, 6]] * 2, 2, axis=1)
    )
    np.testing.assert_array_equal(
        apply_view(sample, View(), (1, 3))["image"][..., 0], [[2, 4, 6]]
    )  # 1.5, 3.5, 5.5 to even
    same = apply_view(sample, View(), (1, 6))
    assert_same(same, sample)
    assert not np.shares_memory(same["image"], sample["image"])


def test_resize_image_enlarges_linearly() -> None:
    image = np.zeros((1, 2, 3), dtype=np.uint8)
    image[0, 1] = 100
    np.testing.assert_array_equal(resize_image(image, (1, 4))[0, :, 0], [0, 25, 75, 100])


def test_to_tensors_and_collate() -> None:
    tensors = [to_tensors(make_sample(seed=seed)) for seed in (0, 1)]
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in tensors[0].items()}
    assert shapes == {
        "image": ((3, *SIZE), torch.uint8),
        "semseg": (SIZE, torch.uint8),
        "human_parts": (SIZE, torch.uint8),
        "saliency": (SIZE, torch.uint8),
        "edge": (SIZE, torch.uint8),
        "normals": ((3, *SIZE), torch.float32),
        "depth": (SIZE, torch.float32),
    }
    np.testing.assert_array_equal(tensors[0]["image"][2], make_sample()["image"][..., 2])
    batch = collate(tensors)
    assert batch["normals"].shape == (2, 3, *SIZE)
    assert torch.equal(batch["depth"][1], tensors[1]["depth"])
    with pytest.raises(EdgeMoEError, match=r"different labels"):
        collate([tensors[0], {"image": tensors[1]["image"]}])
