# SPDX-License-Identifier: Apache-2.0
"""Gradient methods: the weighted sum, PCGrad by hand, and the order of per-task steps."""

import pytest
import torch
from torch import Tensor, nn

from edge_moe.config import load_preset
from edge_moe.nn import build_model
from edge_moe.train.gradients import pcgrad_gradients, project_conflicts, summed_gradients, task_order


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_conflicting_pair_by_hand() -> None:
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    # first - (-1/2) second = (0.5, 0.5); second - (-1/1) first = (0, 1)
    assert project_conflicts([first, second], seeded()).tolist() == [0.5, 1.5]


def test_agreeing_gradients_are_summed() -> None:
    gradients = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0]), torch.tensor([0.0, 0.0])]
    assert project_conflicts(gradients, seeded()).tolist() == [4.0, 2.0]


def test_projected_pair_no_longer_conflicts() -> None:
    generator = seeded(5)
    conflicts = 0
    for _ in range(20):
        pair = [torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(2)]
        update = project_conflicts(pair, generator)
        if pair[0].dot(pair[1]) < 0:
            conflicts += 1
            assert all(update.dot(gradient) >= -1e-12 for gradient in pair)
    assert 5 <= conflicts <= 15


def test_order_of_projections_comes_from_the_generator() -> None:
    gradients = [torch.tensor(v) for v in ([1.0, 0.2, 0.0], [-1.0, 1.0, 0.3], [-0.5, -1.0, 1.0])]
    results = {tuple(project_conflicts(gradients, seeded(seed)).tolist()) for seed in range(8)}
    assert len(results) > 1
    again = [project_conflicts(gradients, seeded(3)) for _ in range(2)]
    assert torch.equal(again[0], again[1])


class TwoTasks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.own = nn.Parameter(torch.tensor([5.0]))
        self.unused = nn.Parameter(torch.tensor([0.0]))

    def losses(self) -> tuple[dict[str, Tensor], Tensor]:
        first = self.shared[0] * self.own.sum()  # shared (5, 0), own 1
        second = self.shared[1] - self.shared[0]  # shared (-1, 1)
        balance = 0.5 * self.shared[1] + 0.25 * self.own.sum()  # shared (0, 0.5), own 0.25
        return {"a": first, "b": second}, balance


def test_pcgrad_on_a_model_by_hand() -> None:
    model = TwoTasks()
    pcgrad_gradients(list(model.parameters()), *model.losses(), seeded())
    # a: (5, 0) + 5/2 (-1, 1) = (2.5, 2.5); b: (-1, 1) + 1/5 (5, 0) = (0, 1); balance added unchanged
    assert model.shared.grad is not None
    assert model.own.grad is not None
    assert model.shared.grad.tolist() == pytest.approx([2.5, 4.0])
    assert model.own.grad.tolist() == [1.25]
    assert model.unused.grad is None


def test_summed_gradients_are_the_sum() -> None:
    model = TwoTasks()
    summed_gradients(list(model.parameters()), *model.losses())
    assert model.shared.grad is not None
    assert model.own.grad is not None
    assert model.shared.grad.tolist() == [4.0, 1.5]
    assert model.own.grad.tolist() == [1.25]
    assert model.unused.grad is None


def test_pcgrad_on_a_model_changes_shared_weights_only() -> None:
    model = build_model(load_preset("mini").model)
    parameters = list(model.parameters())
    images = torch.rand(2, 3, 128, 256, generator=seeded(1))
    conflicts = []
    for sign in (1.0, -1.0):  # with one sign or the other, the tasks conflict
        grads: list[dict[str, Tensor | None]] = []
        for method in (summed_gradients, pcgrad_gradients):
            model.zero_grad()
            torch.manual_seed(0)
            output = model(images)
            losses = {
                "semseg": output.predictions["semseg"].mean(),
                "depth": sign * output.predictions["depth"].mean(),
            }
            extra = () if method is summed_gradients else (seeded(),)
            method(parameters, losses, 0.01 * output.balance_loss, *extra)
            grads.append({name: p.grad for name, p in model.named_parameters()})
        summed, surgered = grads
        own = [name for name in summed if "heads." in name or ".gates." in name]
        assert len(own) == 2 * (2 + 3 * 3 + 2) + 2 * 2
        for name in own:
            torch.testing.assert_close(surgered[name], summed[name], rtol=1e-5, atol=1e-8)
        assert all(grad is not None for grad in surgered.values())
        first, second = summed["patch_embed.weight"], surgered["patch_embed.weight"]
        assert first is not None
        assert second is not None
        conflicts.append(not torch.allclose(first, second, rtol=1e-3))
    assert any(conflicts)


def test_task_order_rotates() -> None:
    assert [task_order(["a", "b", "c"], step) for step in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
