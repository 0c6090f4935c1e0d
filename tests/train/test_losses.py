# SPDX-License-Identifier: Apache-2.0
"""Losses against values worked out by hand, ignored pixels, and batches without valid pixels."""

import math

import pytest
import torch

from edge_moe import EdgeMoEError
from edge_moe.tasks import TASKS
from edge_moe.train.losses import task_loss

CHANNELS = {"semseg": 5, "human_parts": 7, "saliency": 1, "edge": 1, "normals": 3, "depth": 1}


def random_pair(task: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(2, CHANNELS[task], 4, 6, generator=generator, requires_grad=True)
    kind = TASKS[task].kind
    if kind == "classes":
        label = torch.randint(0, CHANNELS[task], (2, 4, 6), generator=generator).to(torch.uint8)
    elif kind == "binary":
        label = (torch.rand(2, 4, 6, generator=generator) < 0.3).to(torch.uint8)
    elif kind == "vector":
        label = torch.nn.functional.normalize(torch.randn(2, 3, 4, 6, generator=generator), dim=1)
    else:
        label = torch.rand(2, 4, 6, generator=generator) * 50 + 1
    return prediction, label


def ignored(task: str, label: torch.Tensor) -> torch.Tensor:
    return torch.full_like(label, 255 if TASKS[task].kind in ("classes", "binary") else 0)


def test_cross_entropy_by_hand() -> None:
    prediction = torch.tensor([[[[0.0, 1.0, 9.0]], [[0.0, 3.0, -9.0]]]])  # 1 x 2 x 1 x 3
    label = torch.tensor([[[1, 0, 255]]], dtype=torch.uint8)
    expected = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert task_loss("semseg", prediction, label).item() == pytest.approx(expected, abs=1e-6)


def test_saliency_is_balanced_by_the_positive_share_of_the_batch() -> None:
    prediction = torch.tensor([0.5, -1.0, 2.0, 0.0, 7.0]).view(1, 1, 1, 5)
    label = torch.tensor([1, 0, 0, 0, 255], dtype=torch.uint8).view(1, 1, 5)
    softplus = [math.log1p(math.exp(x)) for x in (-0.5, -1.0, 2.0, 0.0)]
    expected = (0.75 * softplus[0] + 0.25 * sum(softplus[1:])) / 4
    assert task_loss("saliency", prediction, label).item() == pytest.approx(expected, abs=1e-6)


def test_edge_weighs_positives_095() -> None:
    prediction = torch.tensor([0.5, -1.0, 2.0, 7.0]).view(1, 1, 1, 4)
    label = torch.tensor([1, 0, 0, 255], dtype=torch.uint8).view(1, 1, 4)
    softplus = [math.log1p(math.exp(x)) for x in (-0.5, -1.0, 2.0)]
    expected = (0.95 * softplus[0] + 0.05 * (softplus[1] + softplus[2])) / 3
    assert task_loss("edge", prediction, label).item() == pytest.approx(expected, abs=1e-6)


def test_normals_are_normalised_and_zero_vectors_ignored() -> None:
    prediction = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 2.0]]).T.reshape(1, 3, 1, 2)
    label = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).T.reshape(1, 3, 1, 2)
    expected = (0.6 + 0.0 + 0.2) / 3  # mean over the components of the one valid pixel
    assert task_loss("normals", prediction, label).item() == pytest.approx(expected, abs=1e-5)


def test_depth_ignores_what_was_not_measured() -> None:
    prediction = torch.tensor([1.0, 5.0, 3.0, 4.0, 9.0]).view(1, 1, 1, 5)
    label = torch.tensor([2.0, 0.0, math.nan, -1.0, math.inf]).view(1, 1, 5)
    prediction.requires_grad_()
    loss = task_loss("depth", prediction, label)
    loss.backward()
    assert loss.item() == 1.0
    assert prediction.grad is not None
    assert prediction.grad.flatten().tolist() == [-1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("task", list(TASKS))
def test_ignored_pixels_change_nothing(task: str) -> None:
    prediction, label = random_pair(task)
    before = task_loss(task, prediction, label)
    other, _ = random_pair(task, seed=1)
    joint = task_loss(task, torch.cat([prediction, other]), torch.cat([label, ignored(task, label)]))
    assert before.item() > 0
    torch.testing.assert_close(joint, before, rtol=1e-6, atol=0)


@pytest.mark.parametrize("task", list(TASKS))
def test_no_valid_pixel_gives_zero_with_a_graph(task: str) -> None:
    prediction, label = random_pair(task)
    loss = task_loss(task, prediction, ignored(task, label))
    loss.backward()
    assert loss.item() == 0.0
    assert prediction.grad is not None
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


@pytest.mark.parametrize("task", list(TASKS))
def test_gradient_matches_finite_differences(task: str) -> None:
    prediction, label = random_pair(task)
    loss = task_loss(task, prediction, label)
    loss.backward()
    direction = torch.randn(prediction.shape, generator=torch.Generator().manual_seed(3))
    assert prediction.grad is not None
    with torch.no_grad():
        step = 1e-3 * direction
        above, below = (task_loss(task, prediction + s, label) for s in (step, -step))
    slope = (above - below).item() / 2e-3
    assert (prediction.grad * direction).sum().item() == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_zero_normal_prediction_has_a_finite_gradient() -> None:
    prediction = torch.zeros(1, 3, 2, 2, requires_grad=True)
    label = torch.zeros(1, 3, 2, 2)
    label[:, 2] = -1.0
    task_loss("normals", prediction, label).backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


def test_batch_of_positives_only_is_finite() -> None:
    prediction, label = random_pair("saliency")
    assert task_loss("saliency", prediction, torch.ones_like(label)).isfinite()


def test_wrong_shape_and_unknown_task_are_named() -> None:
    prediction, label = random_pair("semseg")
    with pytest.raises(EdgeMoEError, match=r"'semseg' has shape \(2, 4, 5\)"):
        task_loss("semseg", prediction, label[..., :5])
    with pytest.raises(EdgeMoEError, match="'flow' is unknown"):
        task_loss("flow", prediction, label)
