# SPDX-License-Identifier: Apache-2.0
"""Two gloo processes give the gradients, weights and validation of one process with the joint batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edge_moe import EdgeMoEError, distributed
from edge_moe.checkpoint import load_checkpoint
from edge_moe.config import Preset, load_preset
from edge_moe.data.loader import epoch_order
from edge_moe.data.sample import Sample
from edge_moe.nn import M3ViT, build_model
from edge_moe.testing.training import Toy, open_toy
from edge_moe.train import engine
from edge_moe.train.engine import LAST, Trainer
from edge_moe.train.gradients import pcgrad_gradients, summed_gradients
from edge_moe.train.losses import task_loss

WORLD = 2
TINY = (
    "model.image_size=[32,64]",
    "model.embed_dim=16",
    "model.depth=4",
    "model.head_channels=8",
    "model.num_experts=4",
    "model.tasks.saliency=1",
    "model.tasks.normals=3",
)


def tiny(*overrides: str) -> Preset:
    return load_preset("mini", [*TINY, *overrides])


def _entry(rank: int, port: int, out: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        WORLD_SIZE=str(WORLD),
        LOCAL_RANK=str(rank),
    )
    torch.set_num_threads(1)
    distributed.start("cpu")
    results = {
        "fixed": gradients("fixed"),
        "pcgrad": gradients("pcgrad"),
        "unused": unused_parameters(),
        "refused": refused(f"{out}/refused"),
        "runs": runs(out),
        "bad": bad_picture(f"{out}/bad"),
    }
    torch.save(results, f"{out}/{rank}.pt")
    distributed.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the two processes wrote to; starting them costs more than their work."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    """The results of each of two processes, by name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__]
    started = [subprocess.Popen([*command, str(rank), str(port), str(folder)]) for rank in range(WORLD)]
    assert [process.wait(timeout=300) for process in started] == [0] * WORLD
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


# ---- gradients -------------------------------------------------------------------------------


def one_sided_model(preset: Preset) -> M3ViT:
    """A model in which only tokens of bright images reach the last expert.

    Position embedding and tokens are scaled down, so that the brightness decides.
    """
    torch.manual_seed(0)
    model = build_model(preset.model)
    with torch.no_grad():
        model.pos_embed.mul_(0.01)
        model.patch_embed.weight.fill_(0.01)
        nn.init.zeros_(model.patch_embed.bias)  # type: ignore[arg-type]
        for parameter in [p for name, p in model.named_parameters() if "heads" in name or "expert" in name]:
            parameter.mul_(3)  # so that the gradients compared are not tiny
        model.patch_embed.weight[1::2].neg_()
        direction = torch.ones(16)
        direction[1::2] = -1
        if model.cls_token is not None:
            model.cls_token.copy_(-direction)
        for gate in model.blocks[1].ffn.gates.values():  # type: ignore[operator, union-attr]
            gate.weight.zero_()
            # expert 3 wins where the token points along the direction, and loses elsewhere
            gate.weight[3] = direction
            gate.weight[0] = 0.05 * torch.randn(16)
            gate.weight[1] = 0.05 * torch.randn(16)
    return model


def joint_batch() -> dict[str, Tensor]:
    """Two dark and two bright images; labels with an unequal number of valid pixels per half."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 32, 64, generator=generator) * 0.1
    images[2:] += 0.9
    semseg = torch.randint(0, 7, (4, 32, 64), generator=generator).to(torch.uint8)
    semseg[0, :20] = 255
    saliency = (torch.rand(4, 32, 64, generator=generator) < 0.2).to(torch.uint8)
    saliency[3] = 1
    depth = torch.rand(4, 32, 64, generator=generator) * 20
    depth[2:] = 0  # the second rank has no valid pixel at all
    normals = nn.functional.normalize(torch.randn(4, 3, 32, 64, generator=generator), dim=1)
    normals[1] = 0
    return {"image": images, "semseg": semseg, "saliency": saliency, "depth": depth, "normals": normals}


def gradients(method: str) -> dict[str, Any]:
    """Gradients of this rank's share of the joint batch, and which experts got tokens."""
    model = one_sided_model(tiny("model.gate_noise=0.0"))
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # in training a rank has the statistics of its share
    rank, world = distributed.rank(), distributed.world_size()
    batch = {key: value.chunk(world)[rank] for key, value in joint_batch().items()}
    output = model(batch["image"])
    weights = {"semseg": 1.0, "saliency": 5.0, "depth": 0.1, "normals": 10.0}
    losses = {
        task: weights[task] * task_loss(task, output.predictions[task], batch[task]) for task in weights
    }
    parameters = list(model.parameters())
    balance = 0.5 * output.balance_loss
    if method == "pcgrad":
        pcgrad_gradients(parameters, losses, balance, torch.Generator().manual_seed(0))
    else:
        summed_gradients(parameters, losses, balance)
    total = torch.stack([*(loss.detach() for loss in losses.values()), balance.detach()])
    experts = {e for blocks in output.routing.values() for e in blocks[1].expert.unique().tolist()}
    return {
        "grads": {name: p.grad for name, p in model.named_parameters()},
        "losses": distributed.sum_over_ranks(total) / world,
        "experts": sorted(experts),
    }


@pytest.mark.parametrize("method", ["fixed", "pcgrad"])
def test_gradients_equal_those_of_one_process(ranks: list[dict[str, Any]], method: str) -> None:
    alone = gradients(method)
    pair = [rank[method] for rank in ranks]
    assert 3 not in pair[0]["experts"]  # the case that a mean over ranks with tokens gets wrong
    assert 3 in pair[1]["experts"]
    compared = 0
    for rank in pair:
        torch.testing.assert_close(rank["losses"], alone["losses"], rtol=1e-5, atol=1e-6)
        assert rank["grads"].keys() == alone["grads"].keys()
        for name, grad in alone["grads"].items():
            scale = max(1.0, grad.abs().max().item())
            torch.testing.assert_close(rank["grads"][name] / scale, grad / scale, rtol=0, atol=1e-5)
            compared += grad.numel()
    assert compared == 2 * sum(p.numel() for p in build_model(tiny().model).parameters())
    expert = alone["grads"]["blocks.1.ffn.experts.weight1"][3]
    assert expert.abs().max() > 1e-4
    torch.testing.assert_close(
        pair[0]["grads"]["blocks.1.ffn.experts.weight1"][3], expert, rtol=1e-3, atol=1e-6
    )
    for name in alone["grads"]:
        assert torch.equal(pair[0]["grads"][name], pair[1]["grads"][name])


def unused_parameters() -> dict[str, Any]:
    """Gradient of a parameter that rank 1 alone reaches, and of one that no rank reaches."""
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    if distributed.rank() == 1:
        used.grad = torch.tensor([2.0, 4.0])
    distributed.average_gradients([used, unused])
    return {"used": used.grad, "unused": unused.grad, "agreed": distributed.agree(distributed.rank() + 7)}


def test_parameter_that_one_rank_reaches(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        result = rank["unused"]
        assert result["used"].tolist() == [1.0, 2.0]
        assert result["unused"] is None
        assert result["agreed"] == 7


# ---- a whole run -----------------------------------------------------------------------------

RUN = (
    *TINY[:5],
    "model.depth=2",
    "train.batch_size=4",
    "train.train_images=8",
    "train.val_images=2",
    "train.epochs=2",
    "train.ema_decay=0.9",
)


def runs(out: str) -> dict[str, Any]:
    """One whole run, and one cut after three of its four steps and resumed."""
    engine.open_dataset = open_toy  # type: ignore[assignment]
    preset = load_preset("mini", RUN)
    device = torch.device("cpu")
    metrics = Trainer(preset, "scenes", Path(out) / "whole", device=device).fit()
    Trainer(preset, "scenes", Path(out) / "cut", device=device, max_steps=3).fit()
    trainer = Trainer(preset, "scenes", Path(out) / "cut", resume=True, device=device)
    trainer.fit()
    return {"metrics": metrics, "model": trainer.model.state_dict()}


def test_a_run_on_two_processes(ranks: list[dict[str, Any]], folder: Path) -> None:
    """Ranks end with the same parameters, resume exactly, and rank 0 alone writes and validates."""
    results = [rank["runs"] for rank in ranks]
    whole, cut = (load_checkpoint(folder / name / LAST) for name in ("whole", "cut"))
    assert whole.step == 4
    parameters = [name for name, _ in build_model(load_preset("mini", RUN).model).named_parameters()]
    for name in whole.model:
        assert torch.equal(whole.model[name], cut.model[name])
        assert torch.equal(whole.model[name], results[0]["model"][name])
        if name in parameters:  # batch-norm statistics are each rank's own on a CPU
            assert torch.equal(results[0]["model"][name], results[1]["model"][name])
    assert results[0]["metrics"] == whole.metrics
    assert results[1]["metrics"] == {}
    assert (folder / "whole" / "log.jsonl").read_text().count('"kind": "val"') == 2


class HalfBroken(Toy):
    """Training picture 4 of 8 cannot be read."""

    def __getitem__(self, index: int) -> Sample:
        if index == 4 and self.split == "train":
            raise EdgeMoEError("image '4.png' is damaged.")
        return super().__getitem__(index)


def bad_picture(out: str) -> str:
    """The message of this rank about a picture that one rank cannot read."""
    engine.open_dataset = lambda spec, split, tasks, size, train, val: HalfBroken(split, 8)  # type: ignore
    device = torch.device("cpu")
    # in the second step, by the second process
    seed = next(seed for seed in range(99) if epoch_order(seed, 0, 8).tolist().index(4) in (6, 7))
    with pytest.raises(EdgeMoEError) as caught:
        Trainer(load_preset("mini", [*RUN, f"train.seed={seed}"]), "scenes", Path(out), device=device).fit()
    return str(caught.value)


def test_a_picture_that_one_process_cannot_read(ranks: list[dict[str, Any]], folder: Path) -> None:
    """Every process stops, and the steps before are saved."""
    messages = [rank["bad"] for rank in ranks]
    assert messages[0].startswith(
        "another process cannot read its pictures: see its message; step 1 of 4 is saved"
    )
    assert messages[1].startswith("image '4.png' is damaged; step 1 of 4 is saved")
    assert load_checkpoint(folder / "bad" / LAST).step == 1


def refused(out: str) -> str:
    """The message about a batch that does not divide by the number of processes."""
    engine.open_dataset = open_toy  # type: ignore[assignment]
    with pytest.raises(EdgeMoEError) as caught:
        Trainer(
            load_preset("mini", [*RUN, "train.batch_size=5"]), "scenes", Path(out), device=torch.device("cpu")
        )
    return str(caught.value)


def test_batch_that_does_not_divide_is_refused(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert "train.batch_size = 5 must be a multiple of the 2 processes" in rank["refused"]


if __name__ == "__main__":
    _entry(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
