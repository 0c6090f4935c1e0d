# SPDX-License-Identifier: Apache-2.0
"""Metrics per task, accumulated picture by picture at the label's own resolution.

Every ratio (IoU, accuracy, F, share of pixels) is a fraction in [0, 1]; angles are degrees, depths
are in the label's unit (metres). The metric that :class:`edge_moe.tasks.Task` calls the headline
enters :func:`delta_m`. The class that computes a number says what it means.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from scipy.special import expit

from edge_moe.eval.odsf import BoundaryProtocol, BoundaryScore, f_measure
from edge_moe.tasks import IGNORE_LABEL, TASKS
from edge_moe_host.errors import EdgeMoEError

SALIENCY_THRESHOLDS = np.arange(4, 19) / 20  # 0.20, 0.25, ..., 0.90
BETA_SQUARED = 0.3  # weighs precision over recall (Achanta et al., CVPR 2009)
MIN_DEPTH = 1e-3  # metres; smaller predictions count as this much in logarithms and ratios
ANGLE_BINS = 18000  # of 0.01 degree, for the median
ANGLE_LIMITS = (11.25, 22.5, 30.0)


class Metric(ABC):
    """Accumulates one task over pictures."""

    def __init__(self, task: str, channels: int) -> None:
        self.task = task
        self.channels = channels
        self.count = 0  # labelled pixels or pictures so far

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """Add one picture.

        ``prediction`` float C x H x W: the model's raw output, resized to the label's H x W.
        ``label``: as :mod:`edge_moe.tasks` says. Raises EdgeMoEError for sizes that differ, a
        prediction that is not finite, or a label value that does not exist.
        """
        if prediction.shape != (self.channels, *label.shape[:2]):
            raise EdgeMoEError(
                f"prediction of task '{self.task}' has shape {list(prediction.shape)}: "
                f"its label needs {[self.channels, *label.shape[:2]]}."
            )
        if not np.isfinite(prediction).all():
            raise EdgeMoEError(
                f"prediction of task '{self.task}' contains NaN or infinity: "
                "the weights are damaged or training diverged; use an earlier checkpoint."
            )
        if TASKS[self.task].kind in ("classes", "binary"):
            self._check_indices(label)
        self.count += self._update(prediction, label)

    def compute(self) -> dict[str, float]:
        """The metrics over all pictures so far; EdgeMoEError if none had a labelled pixel."""
        if not self.count:
            raise EdgeMoEError(
                f"task '{self.task}' has no labelled pixel in the evaluated pictures: "
                "leave the task out or evaluate more pictures."
            )
        return self._compute()

    def _check_indices(self, label: np.ndarray) -> None:
        classes = max(self.channels, 2)
        wrong = (label != IGNORE_LABEL) & ((label < 0) | (label >= classes))
        if wrong.any():
            raise EdgeMoEError(
                f"label of task '{self.task}' contains {label[wrong][0]}: "
                f"known are 0 to {classes - 1} and {IGNORE_LABEL} for ignored."
            )

    @abstractmethod
    def _update(self, prediction: np.ndarray, label: np.ndarray) -> int:
        """Add a picture; returns what ``count`` grows by."""

    @abstractmethod
    def _compute(self) -> dict[str, float]: ...


class ClassMetric(Metric):
    """``mIoU`` and ``pixel_accuracy`` from one confusion matrix of all pictures.

    IoU = TP / (TP + FP + FN) over pixels that are not ignored. The mean runs over the classes that
    occur in a label or a prediction; a class absent from both has no IoU. (Public multi-task code
    counts such a class as 0, which makes no difference on complete validation splits.)
    """

    def __init__(self, task: str, channels: int) -> None:
        super().__init__(task, channels)
        self.confusion = np.zeros((channels, channels), dtype=np.int64)  # [label, prediction]

    def class_iou(self) -> dict[int, float]:
        """IoU of each class that occurs, by class index."""
        confusion = self._counted()
        correct = np.diag(confusion)
        union = confusion.sum(0) + confusion.sum(1) - correct
        return {int(index): float(correct[index] / union[index]) for index in np.flatnonzero(union)}

    def _counted(self) -> np.ndarray:
        return self.confusion

    def _total(self, label: np.ndarray) -> np.ndarray:
        """The matrix that a picture with this label is added to."""
        return self.confusion

    def _update(self, prediction: np.ndarray, label: np.ndarray) -> int:
        valid = label != IGNORE_LABEL
        pair = label[valid].astype(np.int64) * self.channels + prediction.argmax(axis=0)[valid]
        total = self._total(label)
        total += np.bincount(pair, minlength=self.channels**2).reshape(self.channels, self.channels)
        return len(pair)

    def _compute(self) -> dict[str, float]:
        confusion = self._counted()
        return {
            "mIoU": float(np.mean(list(self.class_iou().values()))),
            "pixel_accuracy": float(np.trace(confusion) / confusion.sum()),
        }


class HumanPartsMetric(ClassMetric):
    """:class:`ClassMetric` over the pictures that show a human part; background is one of the classes.

    The published figures leave out pictures whose label holds nothing but background, so that they
    do not measure the detection of people. Where no picture has a part, all pictures count.
    """

    def __init__(self, task: str, channels: int) -> None:
        super().__init__(task, channels)
        self.without_parts = np.zeros_like(self.confusion)

    def _counted(self) -> np.ndarray:
        return self.confusion if self.confusion.any() else self.without_parts

    def _total(self, label: np.ndarray) -> np.ndarray:
        shows_part = ((label != 0) & (label != IGNORE_LABEL)).any()
        return self.confusion if shows_part else self.without_parts


class SaliencyMetric(Metric):
    """``maxIoU``, ``maxF`` and ``mIoU``; a pixel is salient where sigmoid(logit) > threshold.

    Foreground IoU, precision and recall are computed per picture and averaged over pictures, for
    each of the 15 :data:`SALIENCY_THRESHOLDS`. ``maxIoU`` is the largest of the mean IoUs, ``maxF``
    the largest F of mean precision and mean recall with beta^2 = 0.3, ``mIoU`` the mean IoU at
    threshold 0.5. A ratio without pixels (0 / 0) is 1 where prediction and label are both empty
    and 0 otherwise. Pictures without valid pixels do not count.
    """

    def __init__(self, task: str, channels: int = 1) -> None:
        super().__init__(task, channels)
        self.sums = np.zeros((3, len(SALIENCY_THRESHOLDS)))  # IoU, precision, recall

    def _update(self, prediction: np.ndarray, label: np.ndarray) -> int:
        valid = label != IGNORE_LABEL
        if not valid.any():
            return 0
        truth = label[valid] == 1
        # number of thresholds that each pixel passes; counts[j] then sums those passing the j-th
        passed = np.searchsorted(SALIENCY_THRESHOLDS, expit(prediction[0][valid].astype(np.float64)))
        size = len(SALIENCY_THRESHOLDS) + 1
        hit, miss = (np.bincount(passed[mask], minlength=size) for mask in (truth, ~truth))
        true_positive, false_positive = (counts[::-1].cumsum()[::-1][1:] for counts in (hit, miss))
        predicted, positive = true_positive + false_positive, np.count_nonzero(truth)
        empty = (predicted == 0) & (positive == 0)
        for index, total in enumerate((positive + false_positive, predicted, np.full(size - 1, positive))):
            self.sums[index] += np.where(empty, 1.0, true_positive / np.maximum(total, 1))
        return 1

    def _compute(self) -> dict[str, float]:
        iou, precision, recall = self.sums / self.count
        return {
            "maxIoU": float(iou.max()),
            "maxF": float(f_measure(precision, recall, BETA_SQUARED).max()),
            "mIoU": float(iou[SALIENCY_THRESHOLDS == 0.5][0]),
        }


class EdgeMetric(Metric):
    """``odsF``, ``oisF``; ``precision``, ``recall``, ``threshold`` of ODS: see :mod:`edge_moe.eval.odsf`."""

    def __init__(self, task: str, channels: int = 1, protocol: BoundaryProtocol | None = None) -> None:
        super().__init__(task, channels)
        self.score = BoundaryScore(protocol or BoundaryProtocol())

    def _update(self, prediction: np.ndarray, label: np.ndarray) -> int:
        return self.score.add(expit(prediction[0].astype(np.float64)), label)

    def _compute(self) -> dict[str, float]:
        return self.score.compute()


class NormalsMetric(Metric):
    """``mean``, ``median``, ``rmse`` angle error in degrees; ``within_11.25``, ``_22.5``, ``_30``.

    Over all pixels of all pictures whose label is not the zero vector. The angle is
    atan2(|p x n|, p . n), exact for small angles and any length of p; a predicted zero vector
    counts as 90 degrees. Mean, rmse and shares (error < limit) are exact; the median is
    interpolated in a histogram with bins of 0.01 degree.
    """

    def __init__(self, task: str, channels: int = 3) -> None:
        super().__init__(task, channels)
        self.sum = self.square_sum = 0.0
        self.within = np.zeros(len(ANGLE_LIMITS), dtype=np.int64)
        self.histogram = np.zeros(ANGLE_BINS, dtype=np.int64)

    def _update(self, prediction: np.ndarray, label: np.ndarray) -> int:
        valid = (label != 0).any(axis=2) & np.isfinite(label).all(axis=2)
        p = prediction[:, valid].astype(np.float64)
        n = label[valid].T.astype(np.float64)
        cross = np.linalg.norm(np.cross(p, n, axis=0), axis=0)
        angle = np.degrees(np.arctan2(cross, (p * n).sum(axis=0)))
        angle[~p.any(axis=0)] = 90.0
        self.sum += float(angle.sum())
        self.square_sum += float((angle**2).sum())
        self.within += [np.count_nonzero(angle < limit) for limit in ANGLE_LIMITS]
        bins = np.minimum((angle * (ANGLE_BINS / 180)).astype(np.int64), ANGLE_BINS - 1)
        self.histogram += np.bincount(bins, minlength=ANGLE_BINS)
        return len(angle)

    def _compute(self) -> dict[str, float]:
        below = np.concatenate([[0], self.histogram.cumsum()])
        median_bin = int(np.searchsorted(below, self.count / 2)) - 1  # the bin in which half is reached
        inside = (self.count / 2 - below[median_bin]) / self.histogram[median_bin]
        shares = {
            f"within_{limit:g}": float(number / self.count)
            for limit, number in zip(ANGLE_LIMITS, self.within, strict=True)
        }
        return {
            "mean": self.sum / self.count,
            "median": float(median_bin + inside) * 180 / ANGLE_BINS,
            "rmse": math.sqrt(self.square_sum / self.count),
            **shares,
        }


class DepthMetric(Metric):
    """``rmse``, ``log_rmse``, ``absErr``, ``absRel``, ``delta1``, over all valid pixels of all pictures.

    Valid: label finite and > 0. Natural logarithm. In ``log_rmse`` and ``delta1`` (share of pixels
    with max(p / d, d / p) < 1.25) the prediction p is at least :data:`MIN_DEPTH`; nothing else is
    clamped, above all not to a largest depth.
    """

    def __init__(self, task: str, channels: int = 1) -> None:
        super().__init__(task, channels)
        self.sums = np.zeros(5)  # squared, squared log, absolute, relative error, delta < 1.25

    def _update(self, prediction: np.ndarray, label: np.ndarray) -> int:
        valid = np.isfinite(label) & (label > 0)
        depth = label[valid].astype(np.float64)
        predicted = prediction[0][valid].astype(np.float64)
        error = np.abs(predicted - depth)
        log_ratio = np.abs(np.log(np.maximum(predicted, MIN_DEPTH)) - np.log(depth))
        self.sums += [
            (error**2).sum(),
            (log_ratio**2).sum(),
            error.sum(),
            (error / depth).sum(),
            np.count_nonzero(log_ratio < math.log(1.25)),
        ]
        return len(depth)

    def _compute(self) -> dict[str, float]:
        square, log_square, absolute, relative, close = (float(value) / self.count for value in self.sums)
        return {
            "rmse": math.sqrt(square),
            "log_rmse": math.sqrt(log_square),
            "absErr": absolute,
            "absRel": relative,
            "delta1": close,
        }


def make_metric(task: str, channels: int, boundaries: BoundaryProtocol | None = None) -> Metric:
    """An empty accumulator for ``task`` with ``channels`` output channels.

    ``boundaries`` sets how edges are matched; the other tasks have no use for it.
    """
    if task == "edge":
        return EdgeMetric(task, channels, boundaries)
    kinds: dict[str, type[Metric]] = {
        "semseg": ClassMetric,
        "human_parts": HumanPartsMetric,
        "saliency": SaliencyMetric,
        "normals": NormalsMetric,
        "depth": DepthMetric,
    }
    if task not in kinds:
        raise EdgeMoEError(f"there is no metric for task '{task}': known are {', '.join(TASKS)}.")
    return kinds[task](task, channels)


def delta_m(result: Mapping[str, Mapping[str, float]], baseline: Mapping[str, Mapping[str, float]]) -> float:
    """Multi-task gain over single-task baselines, in percent (Maninis et al., CVPR 2019).

    Both arguments map the same tasks to their metrics. The mean over tasks of the relative gain of
    the headline metric, counted negative where lower is better; edges are included.
    """
    if not result or set(result) != set(baseline):
        raise EdgeMoEError(
            f"Delta_m compares equal tasks, but the result has {', '.join(result) or 'none'} "
            f"and the baseline {', '.join(baseline) or 'none'}."
        )
    gains = []
    for task in result:
        if task not in TASKS:
            raise EdgeMoEError(f"Delta_m of unknown task '{task}': known are {', '.join(TASKS)}.")
        name = TASKS[task].headline
        pair = []
        for role, metrics in (("result", result[task]), ("baseline", baseline[task])):
            value = metrics.get(name, math.nan)
            if not math.isfinite(value):
                raise EdgeMoEError(f"Delta_m needs '{name}' of task '{task}', which the {role} lacks.")
            pair.append(value)
        if pair[1] == 0:
            raise EdgeMoEError(
                f"Delta_m is undefined: the baseline's '{name}' of task '{task}' is 0, "
                "so there is no relative gain; use another baseline or leave the task out."
            )
        sign = 1 if TASKS[task].higher_is_better else -1
        gains.append(sign * (pair[0] - pair[1]) / pair[1])
    return 100 * sum(gains) / len(gains)
