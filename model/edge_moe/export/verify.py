# SPDX-License-Identifier: Apache-2.0
"""Exported models against the golden model: ``path.onnx`` value by value, ``path.qdq.onnx`` within limits."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from tqdm import tqdm

from edge_moe.export.runtime import Session
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.trace import Trace

RESULTS = ("head.out", "output")  # names of a model's outputs
QDQ_SNR = 25.0  # dB of path.qdq.onnx's head.out against golden's, over all images
QDQ_AGREEMENT = 0.98  # of the pixels of all class maps


@dataclass(frozen=True)
class PathCounts:
    """What was compared for equality: ``values`` integers in all, ``tensors`` of each traced image."""

    images: int
    traced_images: int
    tensors: int
    values: int


@dataclass(frozen=True)
class QdqAgreement:
    """``snr`` in dB of head.out; ``agreement``: share of pixels of the class maps, None of other tasks."""

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
    progress: bool = False,
) -> PathCounts:
    """Run stock onnxruntime on uint8 ``images`` [n, H, W, 3] and compare with golden for equality.

    Every tensor of the first ``trace_images`` images, then the results of all. Raises EdgeMoEError
    naming the first tensor that differs, where and how.
    """
    _check_images(images)
    name = f"path.onnx of task '{task}'"
    traced = min(trace_images, len(images))
    session = Session(traced_model(model).SerializeToString(), name)
    values, tensors = 0, 0
    for index in _bar(range(traced), f"{task}: every tensor", progress):
        trace = Trace()
        run_network(network, images[index : index + 1], task, trace)
        actual = session.run(images[index : index + 1])
        _check_names(name, set(actual), set(trace.tensors))
        tensors = len(trace.tensors)
        for tensor, expected in trace.tensors.items():
            values += _compare(name, tensor, index, expected, actual[tensor])
    session = Session(model.SerializeToString(), name)
    for index in _bar(range(len(images)), f"{task}: results", progress):
        golden = run_network(network, images[index : index + 1], task)
        actual = session.run(images[index : index + 1])
        for tensor, expected in zip(RESULTS, (golden.raw, golden.output), strict=True):
            values += _compare(name, tensor, index, expected, actual[tensor])
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
    """How closely the QDQ model agrees with golden on uint8 ``images`` [n, H, W, 3].

    Raises EdgeMoEError where head.out or the class maps fall short of ``snr`` or ``agreement``.
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
    return tqdm(steps, desc=text, unit="img", disable=not progress)


def _check_images(images: np.ndarray) -> None:
    if not len(images):
        raise EdgeMoEError("there are no images to verify an export on: give at least one.")


def _check_names(name: str, actual: set[str], expected: set[str]) -> None:
    if actual != expected:
        raise EdgeMoEError(
            f"{name} does not have the tensors of the golden model: "
            f"{', '.join(sorted(actual ^ expected))} are in one of the two only."
        )


def _compare(name: str, tensor: str, image: int, expected: np.ndarray, actual: np.ndarray) -> int:
    """Number of values, all of them equal."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise EdgeMoEError(
            f"{name}: '{tensor}' is {actual.dtype} {list(actual.shape)} in onnxruntime and "
            f"{expected.dtype} {list(expected.shape)} in the golden model."
        )
    wrong = np.argwhere(actual != expected)
    if len(wrong):
        place = tuple(int(axis) for axis in wrong[0])
        raise EdgeMoEError(
            f"{name} differs from the golden model in {len(wrong)} of {actual.size} values of '{tensor}', "
            f"first at {list(place[1:])} of image {image}: onnxruntime computes {actual[place]}, "
            f"golden {expected[place]}."
        )
    return int(expected.size)
