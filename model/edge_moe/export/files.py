# SPDX-License-Identifier: Apache-2.0
"""``edge-moe export``: the ONNX files of each task, verified before they are written."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_moe.export.path import build_path_model, flat_model
from edge_moe.export.qdq import build_qdq_model
from edge_moe.export.verify import PathCounts, QdqAgreement, verify_path, verify_qdq
from edge_moe.quant.network import IntegerNetwork
from edge_moe_host.files import replacing

PATH_FILE = "path.onnx"
QDQ_FILE = "path.qdq.onnx"
FLAT_FILE = "path.flat.onnx"


def export_path(
    network: IntegerNetwork,
    task: str,
    out: Path,
    images: np.ndarray,
    *,
    classes: Sequence[tuple[str, Sequence[int]]] = (),
    trace_images: int = 3,
    flat: bool = False,
    progress: bool = True,
) -> str:
    """Write OUT/TASK/path.onnx and OUT/TASK/path.qdq.onnx; returns a summary of the checks.

    ``flat`` adds OUT/TASK/path.flat.onnx, its functions inlined; without it an older one is removed.
    ``images`` uint8 [n, H, W, 3] are held-out pictures on which the models are compared with the golden
    model, every intermediate tensor on the first ``trace_images`` of them. ``classes``: name and colour
    of each class, which are copied to path.onnx. The files are written after all models passed.
    Raises EdgeMoEError for an unknown task, images of another shape, a model that disagrees, or a folder that
    cannot be written.
    """
    models = {PATH_FILE: build_path_model(network, task, classes), QDQ_FILE: build_qdq_model(network, task)}
    counts = verify_path(models[PATH_FILE], network, task, images, trace_images, progress=progress)
    agreement = verify_qdq(models[QDQ_FILE], network, task, images, progress=progress)
    if flat:
        models[FLAT_FILE] = flat_model(models[PATH_FILE])
        verify_path(models[FLAT_FILE], network, task, images, trace_images, file=FLAT_FILE, progress=progress)
    folder = Path(out) / task
    for name, model in models.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
    if not flat:
        (folder / FLAT_FILE).unlink(missing_ok=True)
    return _summary(folder, counts, agreement, flat)


def _summary(folder: Path, counts: PathCounts, agreement: QdqAgreement, flat: bool) -> str:
    def size(name: str) -> str:
        return f"{folder / name} ({(folder / name).stat().st_size / 1e6:.1f} MB)"

    pixels = f", {100 * agreement.agreement:.2f} % of the pixels" if agreement.agreement is not None else ""
    inlined = f"\n{size(FLAT_FILE)}: the same, with functions inlined" if flat else ""
    return (
        f"{size(PATH_FILE)}: {counts.values:,} values equal the golden model's: all {counts.tensors} tensors "
        f"of {_images(counts.traced_images)}, the results of {_images(counts.images)}\n"
        f"{size(QDQ_FILE)}: {agreement.snr:.1f} dB against the golden model{pixels}{inlined}"
    )


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
