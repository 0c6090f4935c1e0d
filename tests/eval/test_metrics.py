# SPDX-License-Identifier: Apache-2.0
"""Every metric against values computed by hand."""

import math

import numpy as np
import pytest

from edge_moe.eval.metrics import ClassMetric, delta_m, make_metric
from edge_moe.tasks import TASKS
from edge_moe_host.errors import EdgeMoEError


def one_hot(classes: np.ndarray, channels: int) -> np.ndarray:
    """Logits float32 C x H x W whose largest channel is ``classes``."""
    return (np.arange(channels)[:, None, None] == classes).astype(np.float32) * 5 - 1


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def measure(task: str, channels: int, *pairs: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    metric = make_metric(task, channels)
    for prediction, label in pairs:
        metric.update(prediction, label)
    return metric.compute()


# --- classes


def test_class_iou_by_hand() -> None:
    label = np.array([[0, 0, 1, 1], [2, 255, 255, 0]], dtype=np.uint8)
    predicted = np.array([[0, 1, 1, 1], [0, 2, 2, 0]])
    metric = ClassMetric("semseg", 3)
    metric.update(one_hot(predicted, 3), label)
    # class 0: 2 of 2 + 1 missed + 1 false; class 1: 2 of 2 + 1 false; class 2: 1 missed, the two
    # predictions are on ignored pixels
    assert metric.class_iou() == {0: 0.5, 1: pytest.approx(2 / 3), 2: 0.0}
    result = metric.compute()
    assert result["mIoU"] == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert result["pixel_accuracy"] == pytest.approx(4 / 6)


def test_class_counts_add_up_over_pictures() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (3, 6, 5)).astype(np.uint8)
    predicted = rng.integers(0, 4, (3, 6, 5))
    apart = measure("semseg", 4, *((one_hot(p, 4), t) for p, t in zip(predicted, labels, strict=True)))
    joined = measure("semseg", 4, (one_hot(predicted.reshape(18, 5), 4), labels.reshape(18, 5)))
    assert apart == joined


def test_class_absent_everywhere_does_not_count() -> None:
    label = np.array([[0, 0, 3]], dtype=np.uint8)
    metric = ClassMetric("semseg", 5)
    metric.update(one_hot(np.array([[0, 0, 3]]), 5), label)
    assert metric.class_iou() == {0: 1, 3: 1}
    assert metric.compute()["mIoU"] == 1


def test_class_that_is_only_predicted_counts_as_zero() -> None:
    result = measure("semseg", 3, (one_hot(np.array([[0, 1]]), 3), np.array([[0, 0]], dtype=np.uint8)))
    assert result["mIoU"] == pytest.approx((0.5 + 0) / 2)


@pytest.mark.parametrize(("predicted", "expected"), [(1, 1.0), (0, 0.0)])
def test_single_pixel(predicted: int, expected: float) -> None:
    result = measure("semseg", 2, (one_hot(np.array([[predicted]]), 2), np.array([[1]], dtype=np.uint8)))
    assert result == {"mIoU": expected, "pixel_accuracy": expected}


def test_human_parts_include_background_and_skip_pictures_without_parts() -> None:
    with_part = np.array([[0, 0, 1, 1]], dtype=np.uint8)
    without = np.array([[0, 0, 0, 255]], dtype=np.uint8)
    wrong_everywhere = one_hot(np.full((1, 4), 2), 3)
    half = one_hot(np.array([[0, 0, 0, 1]]), 3)
    result = measure("human_parts", 3, (half, with_part), (wrong_everywhere, without))
    assert result["mIoU"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert measure("human_parts", 3, (half, without))["mIoU"] == 1  # no part anywhere: all count
    assert measure("semseg", 3, (half, with_part), (wrong_everywhere, without))["mIoU"] < result["mIoU"]


def test_human_parts_order_of_pictures_does_not_matter() -> None:
    with_part, without = np.array([[0, 1]], dtype=np.uint8), np.array([[0, 0]], dtype=np.uint8)
    pairs = [(one_hot(np.array([[1, 1]]), 2), with_part), (one_hot(np.array([[1, 0]]), 2), without)]
    assert measure("human_parts", 2, *pairs) == measure("human_parts", 2, *reversed(pairs))


# --- saliency


def test_saliency_by_hand() -> None:
    label = np.array([[1, 1, 0, 0, 255]], dtype=np.uint8)
    probability = np.array([0.95, 0.42, 0.42, 0.1, 0.99])
    prediction = np.array([[[logit(p) for p in probability]]], dtype=np.float32)
    result = measure("saliency", 1, (prediction, label))
    # threshold up to 0.4: hits 2, false 1 -> IoU 2/3, P 2/3, R 1; above: hit 1 -> IoU 1/2, P 1, R 1/2
    assert result["maxIoU"] == pytest.approx(2 / 3)
    assert result["mIoU"] == pytest.approx(1 / 2)
    low, high = 1.3 * (2 / 3) / (0.3 * 2 / 3 + 1), 1.3 * 0.5 / (0.3 + 0.5)
    assert result["maxF"] == pytest.approx(max(low, high))


def test_saliency_averages_over_pictures_before_the_maximum() -> None:
    label = np.array([[1, 0]], dtype=np.uint8)
    # A is right below 0.6 only, B above 0.6 only
    a = np.array([[[logit(0.58), logit(0.1)]]])
    b = np.array([[[logit(0.95), logit(0.62)]]])
    result = measure("saliency", 1, (a, label), (b, label))
    # up to 0.55: 1 and 1/2; 0.6: 0 and 1/2; from 0.65: 0 and 1
    assert result["maxIoU"] == pytest.approx(0.75)
    assert result["mIoU"] == pytest.approx(0.75)


def test_saliency_perfect_and_worst() -> None:
    label = np.array([[1, 0], [0, 1]], dtype=np.uint8)
    right = np.where(label, 9.0, -9.0)[None]
    assert measure("saliency", 1, (right, label)) == {"maxIoU": 1, "maxF": pytest.approx(1), "mIoU": 1}
    assert measure("saliency", 1, (-right, label)) == {"maxIoU": 0, "maxF": 0, "mIoU": 0}


def test_saliency_without_object() -> None:
    label = np.zeros((2, 2), dtype=np.uint8)
    assert measure("saliency", 1, (np.full((1, 2, 2), -9.0), label))["maxIoU"] == 1
    assert measure("saliency", 1, (np.full((1, 2, 2), 9.0), label)) == {"maxIoU": 0, "maxF": 0, "mIoU": 0}


def test_saliency_threshold_is_exclusive() -> None:
    assert measure("saliency", 1, (np.zeros((1, 1, 1)), np.array([[1]], dtype=np.uint8)))["mIoU"] == 0


# --- normals


def tilted(degrees: np.ndarray) -> np.ndarray:
    """Vectors H x W x 3 that are ``degrees`` away from -z, towards x."""
    angle = np.radians(degrees)
    return np.stack([np.sin(angle), np.zeros_like(angle), -np.cos(angle)], axis=-1)


def test_normals_by_hand() -> None:
    degrees = np.array([[0.0, 10.0, 20.0, 25.0, 120.0, 77.0]])
    label = np.broadcast_to(np.array([0.0, 0.0, -1.0], dtype=np.float32), (1, 6, 3)).copy()
    label[0, 5] = 0  # ignored
    prediction = (tilted(degrees) * np.array([1, 2, 0.3, 50, 1e-4, 1])[:, None]).transpose(2, 0, 1)
    result = measure("normals", 3, (prediction, label))
    assert result["mean"] == pytest.approx(35, abs=1e-4)
    assert result["median"] == pytest.approx(20, abs=0.011)
    assert result["rmse"] == pytest.approx(math.sqrt((100 + 400 + 625 + 14400) / 5), abs=1e-3)
    assert (result["within_11.25"], result["within_22.5"], result["within_30"]) == (0.4, 0.6, 0.8)


def test_normals_median_against_numpy() -> None:
    degrees = np.random.default_rng(4).uniform(0, 180, (5, 20, 20))
    label = np.broadcast_to(np.array([0.0, 0.0, -1.0], dtype=np.float32), (20, 20, 3))
    result = measure("normals", 3, *((tilted(part).transpose(2, 0, 1), label) for part in degrees))
    assert result["median"] == pytest.approx(np.median(degrees), abs=0.2)  # gap between the middle values
    assert result["mean"] == pytest.approx(degrees.mean(), abs=1e-4)


def test_normals_perfect_worst_and_zero() -> None:
    label = np.zeros((1, 1, 3), dtype=np.float32)
    label[..., 1] = -1
    up = label.transpose(2, 0, 1)
    assert measure("normals", 3, (up * 7, label))["mean"] == 0
    assert measure("normals", 3, (up * 7, label))["median"] <= 0.01
    assert measure("normals", 3, (-up, label))["mean"] == pytest.approx(180)
    assert measure("normals", 3, (-up, label))["median"] == pytest.approx(180, abs=0.01)
    assert measure("normals", 3, (up * 0, label))["mean"] == 90
    limit = tilted(np.array([[30.0]])).transpose(2, 0, 1) * np.array([1, 1, 1])[:, None, None]
    forward = np.array([[[0.0, 0.0, -1.0]]], dtype=np.float32)
    assert measure("normals", 3, (limit * 0.5, forward))["within_22.5"] == 0


# --- depth


def test_depth_by_hand() -> None:
    label = np.array([[1.0, 2.0, 4.0, 0.0, -1.0]], dtype=np.float32)
    prediction = np.array([[[1.0, 3.0, 2.0, 9.0, 9.0]]], dtype=np.float32)
    result = measure("depth", 1, (prediction, label))
    assert result["rmse"] == pytest.approx(math.sqrt((0 + 1 + 4) / 3))
    assert result["log_rmse"] == pytest.approx(math.sqrt((math.log(1.5) ** 2 + math.log(2) ** 2) / 3))
    assert result["absErr"] == pytest.approx((0 + 1 + 2) / 3)
    assert result["absRel"] == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert result["delta1"] == pytest.approx(1 / 3)


def test_depth_is_pooled_over_pixels_not_pictures() -> None:
    one = (np.array([[[2.0]]]), np.array([[1.0]], dtype=np.float32))
    three = (np.ones((1, 1, 3)), np.ones((1, 3), dtype=np.float32))
    assert measure("depth", 1, one, three)["rmse"] == 0.5


def test_depth_clamp_of_predictions_that_are_not_positive() -> None:
    result = measure("depth", 1, (np.array([[[-3.0]]]), np.array([[1.0]], dtype=np.float32)))
    assert result["log_rmse"] == pytest.approx(-math.log(1e-3))
    assert result["rmse"] == 4  # not clamped
    assert result["delta1"] == 0


def test_depth_perfect_single_pixel() -> None:
    result = measure("depth", 1, (np.array([[[2.5]]]), np.array([[2.5]], dtype=np.float32)))
    assert result == {"rmse": 0, "log_rmse": 0, "absErr": 0, "absRel": 0, "delta1": 1}


# --- edges


def test_edge_logits() -> None:
    label = np.zeros((20, 20), dtype=np.uint8)
    label[10] = 1
    result = measure("edge", 1, (np.where(label, 4.0, -4.0)[None], label))
    assert (result["odsF"], result["oisF"]) == (1, 1)


# --- all tasks

CHANNELS = {task: spec.channels or 4 for task, spec in TASKS.items()}


def ignored_label(task: str) -> np.ndarray:
    kind = TASKS[task].kind
    if kind in ("classes", "binary"):
        return np.full((3, 4), 255, dtype=np.uint8)
    return np.zeros((3, 4, 3) if kind == "vector" else (3, 4), dtype=np.float32)


@pytest.mark.parametrize("task", TASKS)
def test_all_ignored(task: str) -> None:
    metric = make_metric(task, CHANNELS[task])
    with pytest.raises(EdgeMoEError, match=f"'{task}' has no labelled pixel"):
        metric.compute()
    metric.update(np.ones((CHANNELS[task], 3, 4), dtype=np.float32), ignored_label(task))
    with pytest.raises(EdgeMoEError, match=f"'{task}' has no labelled pixel"):
        metric.compute()


@pytest.mark.parametrize("task", TASKS)
def test_every_headline_is_computed(task: str) -> None:
    label = ignored_label(task)
    label[:2] = 1
    prediction = np.random.default_rng(5).standard_normal((CHANNELS[task], 3, 4))
    result = measure(task, CHANNELS[task], (prediction, label))
    assert TASKS[task].headline in result
    assert all(type(value) is float for value in result.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("task", TASKS)
def test_prediction_that_is_not_finite(task: str, bad: float) -> None:
    prediction = np.ones((CHANNELS[task], 3, 4), dtype=np.float32)
    prediction[0, 1, 2] = bad
    with pytest.raises(EdgeMoEError, match=f"'{task}' contains NaN"):
        make_metric(task, CHANNELS[task]).update(prediction, ignored_label(task))


@pytest.mark.parametrize("task", TASKS)
def test_sizes_that_differ(task: str) -> None:
    with pytest.raises(EdgeMoEError, match=f"'{task}' has shape"):
        make_metric(task, CHANNELS[task]).update(np.ones((CHANNELS[task], 3, 5)), ignored_label(task))


@pytest.mark.parametrize(
    ("task", "value"), [("semseg", 4), ("human_parts", 254), ("edge", 2), ("saliency", 9)]
)
def test_label_value_that_does_not_exist(task: str, value: int) -> None:
    label = np.full((3, 4), value, dtype=np.uint8)
    with pytest.raises(EdgeMoEError, match=f"'{task}' contains {value}"):
        make_metric(task, CHANNELS[task]).update(np.ones((CHANNELS[task], 3, 4)), label)


def test_unknown_task() -> None:
    with pytest.raises(EdgeMoEError, match="'flow'"):
        make_metric("flow", 2)


# --- Delta_m


def test_delta_m_by_hand() -> None:
    baseline = {
        "semseg": {"mIoU": 0.5},
        "depth": {"rmse": 2.0},
        "edge": {"odsF": 0.8},
        "normals": {"mean": 20.0},
    }
    result = {
        "semseg": {"mIoU": 0.55},  # +10 %
        "depth": {"rmse": 1.0},  # +50 %
        "edge": {"odsF": 0.6},  # -25 %
        "normals": {"mean": 21.0},  # -5 %
    }
    assert delta_m(result, baseline) == pytest.approx((10 + 50 - 25 - 5) / 4)
    assert delta_m(baseline, baseline) == 0


@pytest.mark.parametrize(
    ("result", "baseline", "message"),
    [
        ({"semseg": {"mIoU": 1.0}}, {"semseg": {"mIoU": 0.0}}, "baseline's 'mIoU' of task 'semseg' is 0"),
        ({"semseg": {"mIoU": 1.0}}, {"depth": {"rmse": 1.0}}, "equal tasks"),
        ({"semseg": {"mIoU": 1.0}}, {}, "equal tasks"),
        ({}, {}, "equal tasks"),
        ({"semseg": {"mIoU": 1.0}}, {"semseg": {}}, "'semseg', which the baseline lacks"),
        ({"semseg": {"mIoU": math.nan}}, {"semseg": {"mIoU": 1.0}}, "'semseg', which the result lacks"),
        ({"flow": {"epe": 1.0}}, {"flow": {"epe": 1.0}}, "unknown task 'flow'"),
    ],
)
def test_delta_m_errors(result: dict, baseline: dict, message: str) -> None:
    with pytest.raises(EdgeMoEError, match=message):
        delta_m(result, baseline)
