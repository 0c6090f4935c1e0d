# SPDX-License-Identifier: Apache-2.0
"""Exported models against the golden model: ``path.onnx`` exactly, ``path.qdq.onnx`` within limits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from tqdm import tqdm

from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe_host.backends.onnx import Session
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.trace import Trace

RESULTS = ("head.out", "output")  # names of a model's outputs
GOLDEN = "the golden model"
QDQ_SNR = 25.0  # least dB of path.qdq.onnx's head.out against golden's, over all images
QDQ_AGREEMENT = 0.98  # least share of equal pixels, over all class maps


@dataclass(frozen=True)
class PathCounts:
    """What was compared: ``values`` integers in all, ``tensors`` for each traced image."""

    images: int
    traced_images: int
    tensors: int
    values: int


@dataclass(frozen=True)
class QdqAgreement:
    """``snr`` of head.out in dB; ``agreement``: share of equal pixels in class maps, else None."""

    images: int
    snr: float
    agreement: float | None


def traced_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a path model that has every tensor between its nodes as an output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(model.graph.value_info)
    del copy.graph.value_info[:]
    return copy


def verify_path(
    model: onnx.ModelProto,
    network: IntegerNetwork,
    task: str,
    images: np.ndarray,
    trace_images: int = 3,
    *,
    file: str = "path.onnx",
    progress: bool = False,
) -> PathCounts:
    """Run stock onnxruntime on uint8 ``images`` [n, H, W, 3] and compare with golden for equality.

    Compares every tensor of the first ``trace_images`` images, then the results of all. EdgeMoEError
    names the first tensor that differs, where and how.
    """
    _check_images(images)
    name = f"{file} of task '{task}'"
    traced = min(trace_images, len(images))
    session = Session(traced_model(model).SerializeToString(), name)
    values, tensors = 0, 0
    for index in _bar(range(traced), f"{task}: every tensor", progress):
        trace = Trace()
        run_network(network, images[index : index + 1], task, trace)
        actual = session.run(images[index : index + 1])
        values += require_equal(name, GOLDEN, actual, trace.tensors, trace.tensors, index)
        tensors = len(trace.tensors)
    session = Session(model.SerializeToString(), name)
    for index in _bar(range(len(images)), f"{task}: results", progress):
        golden = run_network(network, images[index : index + 1], task)
        actual = session.run(images[index : index + 1])
        expected = dict(zip(RESULTS, (golden.raw, golden.output), strict=True))
        values += require_equal(name, GOLDEN, actual, expected, RESULTS, index)
    return PathCounts(len(images), traced, tensors, values)


def verify_qdq(
    model: onnx.ModelProto,
    network: IntegerNetwork,
    task: str,
    images: np.ndarray,
    *,
    snr: float = QDQ_SNR,
    agreement: float = QDQ_AGREEMENT,
    progress: bool = False,
) -> QdqAgreement:
    """Measure the agreement of the QDQ model with golden on uint8 ``images`` [n, H, W, 3].

    Raises EdgeMoEError when head.out or the class maps fall short of ``snr`` or ``agreement``.
    """
    _check_images(images)
    name = f"path.qdq.onnx of task '{task}'"
    session = Session(model.SerializeToString(), name)
    scale = network.path(task).heads[task].scale
    signal, noise, same, pixels = 0.0, 0.0, 0, 0
    for index in _bar(range(len(images)), f"{task}: QDQ form", progress):
        golden = run_network(network, images[index : index + 1], task)
        actual = session.run(images[index : index + 1])
        raw = golden.raw * scale
        signal += float(np.square(raw).sum())
        noise += float(np.square(actual["head.out"] - raw).sum())
        if golden.output.dtype == np.uint8:
            same += int((actual["output"] == golden.output).sum())
            pixels += golden.output.size
    measured = 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30)))
    share = same / pixels if pixels else None
    if not measured >= snr:
        raise EdgeMoEError(
            f"{name} agrees with the golden model to {measured:.1f} dB only, where {snr:.1f} dB are required."
        )
    if share is not None and share < agreement:
        raise EdgeMoEError(
            f"{name} gives {100 * share:.2f} % of the pixels the class of the golden model, where "
            f"{100 * agreement:.2f} % are required."
        )
    return QdqAgreement(len(images), measured, share)


def _bar(steps: Iterable[int], text: str, progress: bool) -> Iterable[int]:
    return tqdm(steps, desc=text, unit="img", disable=not progress or None)  # None: on a terminal only


def _check_images(images: np.ndarray) -> None:
    if not len(images):
        raise EdgeMoEError("there are no images to verify an export on: give at least one.")


def require_equal(
    title: str,
    reference: str,
    actual: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    order: Iterable[str],
    image: int,
) -> int:
    """Check that all tensors are equal in both; returns their number of values.

    EdgeMoEError names the first one in ``order`` in which ``title`` differs from ``reference``.
    """
    if set(actual) != set(expected):
        names = ", ".join(sorted(set(actual) ^ set(expected)))
        raise EdgeMoEError(f"{title} differs from {reference}: {names} are in one of the two only.")
    for name in order:
        value, right = actual[name], expected[name]
        if value.shape != right.shape or value.dtype != right.dtype:
            raise EdgeMoEError(
                f"{title} differs from {reference} in '{name}': {value.dtype} {list(value.shape)} where "
                f"{right.dtype} {list(right.shape)} is right."
            )
        wrong = np.argwhere(value != right)
        if len(wrong):
            place = tuple(int(axis) for axis in wrong[0])
            raise EdgeMoEError(
                f"{title} differs from {reference} in {len(wrong)} of {value.size} values of '{name}', first "
                f"at {list(place[1:])} of image {image}: {value[place]} where {right[place]} is right."
            )
    return sum(value.size for value in actual.values())
