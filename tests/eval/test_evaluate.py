# SPDX-License-Identifier: Apache-2.0
"""The evaluation loop on a fake model and data set, and its reports."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_moe.data.base import TaskDataset
from edge_moe.data.sample import Sample
from edge_moe.data.transforms import evaluation_resize
from edge_moe.eval import report
from edge_moe.eval.evaluate import EvaluationResult, evaluate, resize_prediction
from edge_moe.eval.metrics import make_metric
from edge_moe.tasks import TASKS
from edge_moe_host.errors import EdgeMoEError

CHANNELS = {"semseg": 3, "human_parts": 4, "saliency": 1, "normals": 3, "edge": 1, "depth": 1}


class FakeDataset(TaskDataset):
    """Random labels; pictures of two sizes, the second unlike the model's."""

    def __init__(self, count: int = 5, tasks: tuple[str, ...] = tuple(CHANNELS)) -> None:
        self.name, self.split = "fake", "val"
        self.tasks = {task: CHANNELS[task] for task in tasks}
        self.class_names = {"semseg": ("road", "sky", "car")}
        self.palette = {}
        self.count = count

    def __len__(self) -> int:
        return self.count

    def image_id(self, index: int) -> str:
        return f"picture{index}"

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        size = (16, 24) if index % 2 else (20, 28)
        sample: Sample = {"image": rng.integers(0, 256, (*size, 3)).astype(np.uint8)}
        for task, channels in self.tasks.items():
            kind = TASKS[task].kind
            if kind == "vector":
                vectors = rng.standard_normal((*size, 3))
                sample[task] = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)
            elif kind == "scalar":
                sample[task] = rng.uniform(0, 9, size).astype(np.float32)
            else:
                sample[task] = rng.integers(0, max(channels, 2), size).astype(np.uint8)
        return sample


@dataclass
class FakeRouting:
    expert: Tensor


class FakeModel(nn.Module):
    """Predictions from the mean colour of 4 x 4 patches; routing depends on the task and block only."""

    def __init__(self) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(image_size=(16, 24), num_experts=4)
        self.layer = nn.Linear(3, sum(CHANNELS.values()))
        self.frozen = nn.BatchNorm2d(3)
        self.batches: list[int] = []

    def forward(self, images: Tensor, tasks: list[str]) -> SimpleNamespace:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 16, 24)
        self.batches.append(len(images))
        small = F.avg_pool2d(images.float() / 255, 4)
        maps = self.layer(small.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        maps = F.interpolate(maps, scale_factor=4.0)
        parts = dict(zip(CHANNELS, maps.split(list(CHANNELS.values()), dim=1), strict=True))
        routing = {}
        for number, task in enumerate(tasks):
            chosen = torch.tensor([number % 4, 3]).expand(len(images), 6, 2)
            routing[task] = {3: FakeRouting(chosen), 1: FakeRouting(chosen * 0)}
        return SimpleNamespace(predictions={task: parts[task] for task in tasks}, routing=routing)


@pytest.fixture
def model() -> FakeModel:
    torch.manual_seed(0)
    return FakeModel()


def test_equals_metrics_applied_by_hand(model: FakeModel) -> None:
    dataset = FakeDataset()
    result = evaluate(model, dataset, list(CHANNELS), batch_size=2, progress=False)
    assert model.batches == [2, 2, 1]
    assert (result.images, result.dataset, result.split) == (5, "fake", "val")
    assert list(result.metrics) == list(CHANNELS)
    expected = {task: make_metric(task, channels) for task, channels in CHANNELS.items()}
    model.eval()
    with torch.inference_mode():
        for index in range(5):
            sample = dataset[index]
            small = evaluation_resize({"image": sample["image"]}, (16, 24))["image"]
            output = model(torch.from_numpy(small.transpose(2, 0, 1).copy())[None], list(CHANNELS))
            for task, metric in expected.items():
                size = sample[task].shape[:2]
                raw = output.predictions[task]
                resized = F.interpolate(raw, size=size, mode="bilinear", align_corners=False)[0]
                metric.update(resized.numpy(), sample[task])
    for task, metric in expected.items():
        assert result.metrics[task] == pytest.approx(metric.compute(), rel=1e-4, abs=1e-4)


def test_batch_size_does_not_change_the_result(model: FakeModel) -> None:
    one = evaluate(model, FakeDataset(), ["semseg", "depth"], batch_size=1, progress=False)
    many = evaluate(model, FakeDataset(), ["semseg", "depth"], batch_size=8, progress=False)
    assert set(one.metrics) == set(many.metrics) == {"semseg", "depth"}
    for task in one.metrics:
        assert one.metrics[task] == pytest.approx(many.metrics[task], rel=1e-5)


def test_usage_counts(model: FakeModel) -> None:
    result = evaluate(model, FakeDataset(), ["depth", "semseg"], progress=False)
    assert result.blocks == (1, 3)
    # 5 pictures x 6 tokens x 2 experts each
    assert result.usage["depth"].tolist() == [[60, 0, 0, 0], [30, 0, 0, 30]]
    assert result.usage["semseg"].tolist() == [[60, 0, 0, 0], [0, 30, 0, 30]]


def test_only_the_tasks_asked_for(model: FakeModel) -> None:
    result = evaluate(model, FakeDataset(), ["edge"], progress=False)
    assert list(result.metrics) == list(result.usage) == ["edge"]
    assert result.class_iou == {}


def test_class_iou_carries_names(model: FakeModel) -> None:
    result = evaluate(model, FakeDataset(), ["semseg", "human_parts"], progress=False)
    assert set(result.class_iou["semseg"]) == {"road", "sky", "car"}
    assert set(result.class_iou["human_parts"]) == {"0", "1", "2", "3"}
    mean = np.mean(list(result.class_iou["semseg"].values()))
    assert result.metrics["semseg"]["mIoU"] == pytest.approx(mean)


def test_limit(model: FakeModel) -> None:
    assert evaluate(model, FakeDataset(), ["depth"], limit=3, progress=False).images == 3
    assert sum(model.batches) == 3
    assert evaluate(model, FakeDataset(), ["depth"], limit=99, progress=False).images == 5


def test_modes_are_restored(model: FakeModel) -> None:
    model.train()
    model.frozen.eval()
    evaluate(model, FakeDataset(1), ["depth"], progress=False)
    assert (model.training, model.layer.training, model.frozen.training) == (True, True, False)
    with torch.no_grad():
        model.layer.bias.fill_(torch.nan)
    with pytest.raises(EdgeMoEError, match="image 'picture0': prediction of task 'depth' contains NaN"):
        evaluate(model, FakeDataset(1), ["depth"], progress=False)
    assert (model.training, model.frozen.training) == (True, False)
    assert not torch.is_inference_mode_enabled()


def test_image_size_is_required_of_models_without_configuration(model: FakeModel) -> None:
    explicit = evaluate(model, FakeDataset(1), ["depth"], image_size=(16, 24), progress=False)
    assert explicit.metrics == evaluate(model, FakeDataset(1), ["depth"], progress=False).metrics
    del model.cfg
    with pytest.raises(EdgeMoEError, match="image_size is missing"):
        evaluate(model, FakeDataset(1), ["depth"], progress=False)


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        (FakeDataset(tasks=("depth",)), {"tasks": ["edge"]}, "'fake' has no labels for task 'edge'"),
        (FakeDataset(0), {"tasks": ["depth"]}, "'val' of data set 'fake' has no pictures"),
        (FakeDataset(), {"tasks": []}, "no task to evaluate"),
        (FakeDataset(), {"tasks": ["depth"], "limit": 0}, "limit = 0"),
        (FakeDataset(), {"tasks": ["depth"], "batch_size": 0}, "batch size = 0"),
    ],
)
def test_wrong_input(model: FakeModel, dataset: FakeDataset, arguments: dict, message: str) -> None:
    with pytest.raises(EdgeMoEError, match=message):
        evaluate(model, dataset, arguments.pop("tasks"), progress=False, **arguments)


def test_sample_without_a_label(model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = FakeDataset(1, ("depth", "edge"))
    sample = dataset[0]
    del sample["edge"]
    monkeypatch.setattr(FakeDataset, "__getitem__", lambda self, index: sample)
    with pytest.raises(EdgeMoEError, match="image 'picture0' has no label for task 'edge'"):
        evaluate(model, dataset, ["depth", "edge"], progress=False)


def test_resize_prediction_uses_half_pixel_centres() -> None:
    resized = resize_prediction(torch.tensor([[[0.0, 4.0]]]), (1, 4))
    assert resized.tolist() == [[[0, 1, 3, 4]]]


# --- reports


@pytest.fixture
def result() -> EvaluationResult:
    return EvaluationResult(
        metrics={
            "semseg": {"mIoU": 0.5, "pixel_accuracy": 0.75},
            "normals": {"mean": 20.0, "median": 15.0, "rmse": 25.0, "within_30": 0.8},
            "depth": {"rmse": 1.5, "delta1": 0.9},
            "edge": {"odsF": 0.25, "threshold": 0.4},
        },
        class_iou={"semseg": {"road": 0.9, "sky": 0.1}},
        usage={"semseg": np.array([[3, 1], [4, 0]])},
        blocks=(1, 3),
        images=7,
        dataset="fake",
        split="val",
    )


def test_json_round_trip(result: EvaluationResult, tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    report.write_json(result, path, {"delta_m": 1.5})
    data = json.loads(path.read_text())
    assert (data["format"], data["version"], data["delta_m"]) == ("edge-moe-evaluation", 1, 1.5)
    assert data["metrics"] == result.metrics
    assert report.to_dict(report.read_json(path)) == report.to_dict(result)
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read evaluation"),
        ('{"metrics": {"sem', "is not JSON"),
        ("[]", "does not hold metrics"),
        ("{}", "does not hold metrics"),
        ('{"metrics": {"flow": {"epe": 1}}}', "does not hold metrics"),
        ('{"metrics": {"depth": {"rmse": "1"}}}', "does not hold metrics"),
        ('{"metrics": {"depth": 1}}', "does not hold metrics"),
    ],
)
def test_damaged_json(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "result.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(EdgeMoEError, match=message):
        report.read_json(path)


def test_metric_table(result: EvaluationResult) -> None:
    baseline = {task: dict(metrics) for task, metrics in result.metrics.items()}
    baseline["depth"]["rmse"] = 3.0
    text = report.metric_table(result, baseline)
    for row in (
        "| semseg | **mIoU** ↑ | 50.00 % |",
        "| normals | **mean** ↓ | 20.00° |",
        "| normals | within_30 ↑ | 80.00 % |",
        "| depth | **rmse** ↓ | 1.5000 |",
        "| edge | threshold | 0.4000 |",
        "7 images of fake val",
        "Δm against the baseline: +12.50 %",
        "Experts of semseg: busiest has 2.0 times the even share; 1 of 4 unused.",
    ):
        assert row in text


def test_comparison_table(result: EvaluationResult) -> None:
    rows = {"ours": result.metrics, "single": result.metrics}
    lines = report.comparison_table(rows, result.metrics).splitlines()
    assert lines[0] == "| model | semseg mIoU ↑ | normals mean ↓ | depth rmse ↓ | edge odsF ↑ | Δm % |"
    assert lines[2] == "| ours | 50.00 % | 20.00° | 1.5000 | 25.00 % | +0.00 |"
    partial = report.comparison_table({"a": result.metrics, "b": {"depth": {"rmse": 2.0}}}).splitlines()
    assert partial[3] == "| b | - | - | 2.0000 | - |"


def test_class_table(result: EvaluationResult) -> None:
    assert report.class_table(result, "semseg").splitlines()[2:] == ["| road | 90.00 |", "| sky | 10.00 |"]
