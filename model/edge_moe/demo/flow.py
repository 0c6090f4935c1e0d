# SPDX-License-Identifier: Apache-2.0
"""The demo's steps up to a bundle: training, quantisation, metrics, export, compilation."""

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edge_moe
import edge_moe_host
from edge_moe.bench.csim import build_csim
from edge_moe.checkpoint import LAST, load_model
from edge_moe.compiler.verify import compile_verified
from edge_moe.config import Preset, load_preset
from edge_moe.data import TaskDataset
from edge_moe.data.sample import IMAGE, Sample
from edge_moe.data.transforms import evaluation_resize
from edge_moe.demo.folder import Folder
from edge_moe.eval.evaluate import evaluate
from edge_moe.eval.report import to_dict, write_json
from edge_moe.eval.run import load_for_inference, open_validation
from edge_moe.eval.visualize import usage_heatmap
from edge_moe.export.files import PATH_FILE
from edge_moe.export.source import export_source
from edge_moe.nn import M3ViT
from edge_moe.quant.integer_model import IntegerModel
from edge_moe.quant.prune import weight_bits
from edge_moe.quant.quantise import quantise_checkpoint
from edge_moe.quant.storage import load_network
from edge_moe.train import TrainingInterrupted, run_training
from edge_moe_host.contract.bundle import load_bundle
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import replacing

PRESET, DATA, ACCELERATOR = "mini", "scenes", "zcu104"
_LOG = logging.getLogger(__name__)

Values = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """The float model, and the validation split of its training data."""

    checkpoint: Path
    model: M3ViT
    preset: Preset
    dataset: TaskDataset
    data: str

    @property
    def tasks(self) -> list[str]:
        """Tasks of the model."""
        return list(self.preset.model.tasks)


def train(folder: Folder) -> Values:
    """Train the demo's preset, or continue an interrupted run."""
    resume = (folder.run / LAST).is_file()
    if not resume:
        shutil.rmtree(folder.run, ignore_errors=True)  # stopped before its first checkpoint
    preset = load_preset(PRESET, ["train.workers=1"])
    try:
        run_training(preset, DATA, folder.run, resume=resume)
    except TrainingInterrupted:
        raise TrainingInterrupted("training was stopped and saved: the same command continues it.") from None
    return {"epochs": preset.train.epochs, "images": preset.train.train_images}


def file_hash(path: Path) -> str:
    """SHA-256 of a file. EdgeMoEError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise EdgeMoEError(f"cannot read '{path}': {error.strerror or error}.") from None


def source_hash() -> str:
    """SHA-256 of the Python sources that make the results: both packages."""
    digest = hashlib.sha256()
    for package in (edge_moe, edge_moe_host):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def open_trained(checkpoint: Path) -> Trained:
    """A checkpoint with its data set. EdgeMoEError when it does not say what it was trained on."""
    model, preset, tasks, data = load_for_inference(checkpoint, None, "cpu")
    if not data:
        raise EdgeMoEError(f"'{checkpoint}' does not say what it was trained on: the demo needs its data.")
    return Trained(checkpoint, model, preset, open_validation(preset, data, tasks), data)


def quantise(folder: Folder, trained: Trained) -> Values:
    """Write the integer network."""
    _LOG.info("%s", quantise_checkpoint(trained.checkpoint, folder.network))
    network, extra = load_network(folder.network)
    floats = sum(parameter.numel() for parameter in load_model(trained.checkpoint)[0].parameters())
    return {
        "float_bytes": 4 * floats,
        "integer_bytes": weight_bits(network) // 8,
        "images": extra["images"],
        "observer": extra["options"]["observer"],
    }


def measure(folder: Folder, trained: Trained) -> Values:
    """Metrics of both forms on the whole validation split, and the integer form's expert usage."""
    network = load_network(folder.network)[0]
    values = {}
    for name, model in (("float", trained.model), ("integer", IntegerModel(network))):
        _LOG.info("    %s form on %d validation pictures", name, len(trained.dataset))
        result = evaluate(model, trained.dataset, trained.tasks)
        write_json(result, folder.path / f"metrics.{name}.json")
        values[name] = to_dict(result)
    for task, counts in result.usage.items():
        usage_heatmap({task: counts}, folder.usage(task), result.blocks)
    return values


def export(folder: Folder, trained: Trained, pictures: int) -> Values:
    """Write path.onnx of every task, each compared with golden."""
    text = export_source(folder.network, None, folder.graphs, trained.data, verify_images=pictures)
    _LOG.info("%s", text)
    return {"summary": text.splitlines()}


def compile_tasks(folder: Folder, trained: Trained, pictures: int) -> Values:
    """Compile all tasks into one bundle, compared with onnxruntime."""
    paths = [folder.graphs / task / PATH_FILE for task in trained.tasks]
    text = compile_verified(paths, ACCELERATOR, folder.bundle, data=trained.data, verify_images=pictures)
    _LOG.info("%s", text)
    bundle = load_bundle(folder.bundle)
    size = sum(path.stat().st_size for path in folder.bundle.iterdir())
    clock = bundle.manifest.accelerator.config["clock_mhz"]
    return {"summary": text.splitlines(), "bytes": size, "clock_mhz": clock}


def build_simulation() -> str:
    """Bring the C simulation up to date and return the hash of its library."""
    return file_hash(build_csim(ACCELERATOR).library)


def chosen(dataset: TaskDataset, count: int) -> list[int]:
    """Indices of ``count`` samples, spread over the split."""
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset)))
    return [int(place) for place in np.unique(places.round().astype(int))]


def choose_images(folder: Folder, trained: Trained, count: int) -> Values:
    """Write the pictures that every backend runs, at the model's size."""
    indices = chosen(trained.dataset, count)
    size = trained.preset.model.image_size
    samples: list[Sample] = [trained.dataset[index] for index in indices]
    images = [evaluation_resize({IMAGE: sample[IMAGE]}, size)[IMAGE] for sample in samples]
    with replacing(folder.images) as temporary:
        np.savez(temporary, images=np.stack(images))
    return {"indices": indices, "names": [trained.dataset.image_id(index) for index in indices]}
