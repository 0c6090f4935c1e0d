# SPDX-License-Identifier: Apache-2.0
"""M3ViT against a plain per-token reference, and limits on what a forward pass computes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_moe import EdgeMoEError
from edge_moe.config import ModelConfig, load_preset
from edge_moe.nn import M3ViT, build_model, load_dense_weights
from edge_moe.nn.moe import Experts, MoEFFN, balance_loss

SMALL = [
    "model.image_size=[32, 64]", "model.embed_dim=16", "model.num_heads=2", "model.depth=4",
    "model.head_channels=8", "model.num_experts=5",
]  # fmt: skip
ROUTINGS = ["dense", "single_gate", "multi_gate", "task_conditioned"]


def small(*overrides: str) -> ModelConfig:
    return load_preset("mini", [*SMALL, *overrides]).model


def random_model(cfg: ModelConfig, seed: int = 0) -> M3ViT:
    """Every parameter and statistic non-trivial, in eval mode, in float64."""
    torch.manual_seed(seed)
    model = build_model(cfg)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.rand_like(tensor) + 0.5 if "running_var" in name else torch.randn_like(tensor) * 0.3
                )
    return model.double().eval()


def reference_ffn(state: dict[str, Tensor], prefix: str, cfg: ModelConfig, x: Tensor, task: str) -> Tensor:
    """Token by token, expert by expert."""
    if f"{prefix}.fc1.weight" in state:
        hidden = F.gelu(x @ state[f"{prefix}.fc1.weight"].T + state[f"{prefix}.fc1.bias"])
        return hidden @ state[f"{prefix}.fc2.weight"].T + state[f"{prefix}.fc2.bias"]
    gate = state[f"{prefix}.gates.{task if cfg.routing == 'multi_gate' else 'shared'}.weight"]
    extra = x.new_zeros(0)
    if cfg.routing == "task_conditioned":
        w0, b0, w1, b1 = (state[f"task_embedding.{n}"] for n in ("0.weight", "0.bias", "2.weight", "2.bias"))
        extra = w1 @ F.gelu(w0[:, list(cfg.tasks).index(task)] + b0) + b1
    out = torch.zeros_like(x)
    for b, image in enumerate(x):
        for n, token in enumerate(image):
            scores = (gate @ torch.cat([token, extra])).softmax(0)
            for e in scores.argsort(descending=True)[: cfg.top_k].tolist():
                p = f"{prefix}.experts."
                hidden = F.gelu(state[p + "weight1"][e] @ token + state[p + "bias1"][e])
                out[b, n] += scores[e] * (state[p + "weight2"][e] @ hidden + state[p + "bias2"][e])
    return out


def reference(state: dict[str, Tensor], cfg: ModelConfig, images: Tensor, task: str) -> Tensor:
    """The paper's equations on the raw state dict, images in [0, 1]."""
    mean, std = (torch.tensor(v, dtype=images.dtype).view(3, 1, 1) for v in (cfg.pixel_mean, cfg.pixel_std))
    P, D, d = cfg.patch_size, cfg.embed_dim, cfg.embed_dim // cfg.num_heads
    patches = F.unfold((images - mean) / std, P, stride=P).transpose(1, 2)
    x = patches @ state["patch_embed.weight"].view(D, -1).T + state["patch_embed.bias"]
    if cfg.cls_token:
        x = torch.cat([state["cls_token"].expand(len(x), 1, D), x], 1)
    x = x + state["pos_embed"]

    def norm(name: str, value: Tensor) -> Tensor:
        return F.layer_norm(value, (D,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    for i in range(cfg.depth):
        p = f"blocks.{i}"
        qkv = norm(f"{p}.norm1", x) @ state[f"{p}.attn.qkv.weight"].T + state[f"{p}.attn.qkv.bias"]
        heads = []
        for h in range(cfg.num_heads):
            q, k, v = (qkv[..., j * D + h * d : j * D + (h + 1) * d] for j in range(3))
            heads.append((q @ k.transpose(1, 2) / d**0.5).softmax(-1) @ v)
        x = x + torch.cat(heads, -1) @ state[f"{p}.attn.proj.weight"].T + state[f"{p}.attn.proj.bias"]
        x = x + reference_ffn(state, f"{p}.ffn", cfg, norm(f"{p}.norm2", x), task)
    h, w = cfg.grid_size
    y = norm(f"heads.{task}.norm", x)[:, int(cfg.cls_token) :].transpose(1, 2).reshape(len(x), D, h, w)
    for i in range({"edge": 3, "pup": 4}[cfg.head]):
        p = f"heads.{task}"
        if i:
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        y = F.conv2d(y, state[f"{p}.convs.{i}.weight"], padding=1)
        mean, var = (state[f"{p}.bns.{i}.running_{n}"].view(-1, 1, 1) for n in ("mean", "var"))
        gain, bias = (state[f"{p}.bns.{i}.{n}"].view(-1, 1, 1) for n in ("weight", "bias"))
        y = F.relu((y - mean) / (var + 1e-5).sqrt() * gain + bias)
    y = F.conv2d(y, state[f"heads.{task}.out.weight"], state[f"heads.{task}.out.bias"])
    scale = cfg.depth_scale if task == "depth" else 1
    return scale * F.interpolate(y, size=cfg.image_size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("extra", [[], ["model.cls_token=false", "model.head=pup", "model.top_k=4"]])
def test_forward_equals_the_plain_reference(routing, extra):
    cfg = small(f"model.routing={routing}", *extra)
    model = random_model(cfg)
    images = torch.rand(2, 3, *cfg.image_size, dtype=torch.float64)
    with torch.no_grad():
        got = model(images).predictions
        for task, channels in cfg.tasks.items():
            want = reference(model.state_dict(), cfg, images, task)
            assert got[task].shape == (2, channels, *cfg.image_size)
            assert got[task].dtype == torch.float32
            # predictions leave in float32; everything before that is float64
            torch.testing.assert_close(got[task], want.float(), rtol=1e-5, atol=1e-5)


def test_uint8_and_unit_interval_images_agree():
    cfg = small()
    model = build_model(cfg).eval()
    images = torch.randint(0, 256, (1, 3, *cfg.image_size), dtype=torch.uint8)
    a, b = model(images).predictions, model(images.float() / 255).predictions
    for task in cfg.tasks:
        assert torch.equal(a[task], b[task])


class Calls:
    """Counts executions of each half of each block, and of each head."""

    def __init__(self, model: M3ViT) -> None:
        self.attention = [0] * model.cfg.depth
        self.ffn = [0] * model.cfg.depth
        self.head = dict.fromkeys(model.cfg.tasks, 0)
        for i in range(model.cfg.depth):
            block = model.block(i)
            block.attn.register_forward_hook(lambda *_, i=i: self._count(self.attention, i))
            block.ffn.register_forward_hook(lambda *_, i=i: self._count(self.ffn, i))
        for task, head in model.heads.items():
            head.register_forward_hook(lambda *_, task=task: self._count(self.head, task))

    @staticmethod
    def _count(counter, key):
        counter[key] += 1


@pytest.mark.parametrize(
    ("routing", "tasks", "attention", "ffn"),
    [
        ("multi_gate", ["depth"], [1, 1, 1, 1], [1, 1, 1, 1]),
        ("multi_gate", ["semseg", "depth"], [1, 1, 2, 2], [1, 2, 2, 2]),
        ("task_conditioned", ["semseg", "depth"], [1, 1, 2, 2], [1, 2, 2, 2]),
        ("single_gate", ["semseg", "depth"], [1, 1, 1, 1], [1, 1, 1, 1]),
        ("dense", ["semseg", "depth"], [1, 1, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_only_the_asked_tasks_are_computed_and_shared_work_runs_once(routing, tasks, attention, ffn):
    cfg = small(f"model.routing={routing}")
    model = build_model(cfg).eval()
    calls = Calls(model)
    output = model(torch.rand(1, 3, *cfg.image_size), tasks)
    assert list(output.predictions) == tasks
    assert (calls.attention, calls.ffn) == (attention, ffn)
    assert calls.head == {task: int(task in tasks) for task in cfg.tasks}


@pytest.mark.parametrize("routing", ["single_gate", "multi_gate", "task_conditioned"])
def test_a_task_alone_equals_the_task_among_others(routing):
    cfg = small(f"model.routing={routing}")
    model = random_model(cfg)
    images = torch.rand(2, 3, *cfg.image_size, dtype=torch.float64)
    together = model(images)
    for task in cfg.tasks:
        alone = model(images, [task])
        assert torch.equal(alone.predictions[task], together.predictions[task])
        for block in cfg.moe_blocks:
            assert torch.equal(alone.routing[task][block].expert, together.routing[task][block].expert)


@pytest.mark.parametrize("skew", ["spread", "one expert", "single token"])
def test_dispatch_equals_dense_evaluation(skew):
    cfg = small()
    torch.manual_seed(1)
    experts = Experts(cfg)
    with torch.no_grad():
        for p in experts.parameters():
            p.normal_()
    T = 1 if skew == "single token" else 37
    x = torch.randn(T, cfg.embed_dim, requires_grad=True)
    expert = torch.stack([torch.randperm(5)[:2] for _ in range(T)])
    if skew == "one expert":
        expert = torch.tensor([[3, 1]]).expand(T, 2).contiguous()
    score = torch.rand(T, 2)
    hidden = F.gelu(torch.einsum("ehd,td->teh", experts.weight1, x) + experts.bias1)
    every = torch.einsum("edh,teh->ted", experts.weight2, hidden) + experts.bias2
    want = (every.gather(1, expert.unsqueeze(-1).expand(-1, -1, cfg.embed_dim)) * score.unsqueeze(-1)).sum(1)
    got = experts(x, expert, score)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    inputs = [x, *experts.parameters()]
    for a, b in zip(
        torch.autograd.grad(got.square().sum(), inputs),
        torch.autograd.grad(want.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-2)


def test_grouped_products_equal_the_loop_in_bfloat16():
    cfg = small("model.embed_dim=32")
    torch.manual_seed(2)
    experts = Experts(cfg)
    with torch.no_grad():
        for p in experts.parameters():
            p.normal_(std=0.2)
    counts = torch.tensor([4, 0, 7, 1, 0])
    rows = torch.randn(12, 32)
    grouped = experts._grouped_mm(rows, counts).float()
    torch.testing.assert_close(grouped, experts._loop(rows, counts), rtol=0.05, atol=0.05)


def test_equal_gate_logits_go_to_the_lowest_expert():
    cfg = small()
    model = build_model(cfg).eval()
    ffn = model.block(1).ffn
    assert isinstance(ffn, MoEFFN)
    with torch.no_grad():
        ffn.gates["depth"].weight.zero_()
    routing = model(torch.rand(1, 3, *cfg.image_size), ["depth"]).routing["depth"][1]
    assert torch.equal(routing.expert[0], torch.tensor([[0, 1]]).expand(cfg.num_tokens, 2))
    torch.testing.assert_close(routing.score, torch.full_like(routing.score, 0.2))


def test_expected_load_equals_the_frequency_over_noise_draws():
    """P(expert in the top k | the other experts' noise) has the top-k frequency as its mean."""
    torch.manual_seed(3)
    clean, std, k, draws = torch.randn(6, 5), 0.7, 2, 20000
    noisy = clean.repeat(draws, 1) + std * torch.randn(6 * draws, 5)
    ranked, index = noisy.sort(dim=1, descending=True)
    frequency = torch.bincount(index[:, :k].flatten(), minlength=5) / draws
    chosen = torch.zeros_like(noisy, dtype=torch.bool).scatter_(1, index[:, :k], True)
    best = torch.where(chosen, ranked[:, k : k + 1], ranked[:, k - 1 : k])
    estimate = torch.special.ndtr((clean.repeat(draws, 1) - best) / std).sum(0) / draws
    # the standard error of each side is below 6 * 0.5 / sqrt(draws) = 0.021
    torch.testing.assert_close(estimate, frequency, rtol=0, atol=0.05)
    expert, score = index[:, :k], noisy.softmax(1).gather(1, index[:, :k])
    importance = torch.zeros(5).index_add(0, expert.flatten(), score.flatten())
    cv = [(v.var(correction=0) / v.mean() ** 2).item() for v in (importance, estimate)]
    loss = balance_loss(clean.repeat(draws, 1), ranked, expert, score, std)
    assert loss.item() == pytest.approx(sum(cv), rel=1e-3)


def test_balance_loss_is_zero_when_balanced_and_grows_when_all_tokens_share_an_expert():
    E, k = 4, 1
    even = torch.eye(E).repeat(8, 1) * 5
    skewed = torch.tensor([[5.0, 0, 0, 0]]).repeat(8 * E, 1)
    values = []
    for clean in (even, skewed):
        ranked, index = clean.sort(dim=1, descending=True, stable=True)
        score = clean.softmax(1).gather(1, index[:, :k])
        values.append(balance_loss(clean, ranked, index[:, :k], score, 0.0).item())
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[1] == pytest.approx(6.0, rel=1e-5)  # CV^2 of (n, 0, 0, 0) is 3, twice


def test_gate_noise_is_for_training_only():
    cfg = small("model.gate_noise=50.0")
    model = build_model(cfg)
    images = torch.rand(1, 3, *cfg.image_size)
    model.eval()
    first, second = (model(images, ["depth"]).routing["depth"][1].expert for _ in range(2))
    assert torch.equal(first, second)
    model.train()
    first, second = (model(images, ["depth"]).routing["depth"][1].expert for _ in range(2))
    assert not torch.equal(first, second)


def test_every_expert_and_gate_gets_a_gradient():
    cfg = small()
    torch.manual_seed(0)
    model = build_model(cfg).train()
    output = model(torch.rand(4, 3, *cfg.image_size))
    (sum(p.square().mean() for p in output.predictions.values()) + output.balance_loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_dense_initialisation_keeps_the_function_when_every_expert_is_equal():
    """With one slice, equal scores and gain E/k the MoE output is the dense output exactly."""
    cfg = small("model.expert_ratio=4", "model.mlp_ratio=4", "model.top_k=1")
    dense = random_model(cfg.dense_twin())
    model = build_model(cfg).double().eval()
    load_dense_weights(model, dense.state_dict())
    with torch.no_grad():
        for block in cfg.moe_blocks:
            for gate in model.block(block).ffn.gates.values():
                gate.weight.zero_()
    images = torch.rand(1, 3, *cfg.image_size, dtype=torch.float64)
    for task in cfg.tasks:
        torch.testing.assert_close(
            model(images).predictions[task], dense(images).predictions[task], rtol=1e-5, atol=1e-5
        )


def test_dense_initialisation_slices_the_hidden_units():
    cfg = small()
    dense = random_model(cfg.dense_twin()).float().state_dict()
    model = build_model(cfg)
    load_dense_weights(model, dense)
    D, width = cfg.embed_dim, 2 * cfg.embed_dim
    experts = model.block(1).ffn.experts
    for e in range(cfg.num_experts):
        rows = slice((e % 2) * width, (e % 2 + 1) * width)
        torch.testing.assert_close(
            experts.weight1[e].double(), dense["blocks.1.ffn.fc1.weight"][rows].float().double()
        )
        assert experts.weight2[e].shape == (D, width)
        torch.testing.assert_close(
            experts.weight2[e], (dense["blocks.1.ffn.fc2.weight"][:, rows] * 5).float()
        )
    assert torch.equal(model.pos_embed, dense["pos_embed"].float())


def test_dense_initialisation_refuses_another_model():
    cfg = small()
    model = build_model(cfg)
    dense = build_model(cfg.dense_twin()).state_dict()
    with pytest.raises(EdgeMoEError, match=r"lacks 'blocks\.1\.ffn\.fc1\.weight'"):
        load_dense_weights(model, build_model(cfg).state_dict())
    with pytest.raises(EdgeMoEError, match="has shape"):
        load_dense_weights(model, {**dense, "pos_embed": torch.zeros(1, 2, 16)})
    with pytest.raises(EdgeMoEError, match="'extra' is unknown to this model"):
        load_dense_weights(model, {**dense, "extra": torch.zeros(1)})


def test_wrong_input_is_named():
    cfg = small()
    model = build_model(cfg)
    images = torch.rand(1, 3, *cfg.image_size)
    with pytest.raises(EdgeMoEError, match="task 'normals' is not in this model: it has semseg, depth"):
        model(images, ["normals"])
    with pytest.raises(EdgeMoEError, match="must name at least one task"):
        model(images, [])
    with pytest.raises(EdgeMoEError, match=r"images have shape \[1, 3, 16, 64\].*\[batch, 3, 32, 64\]"):
        model(images[:, :, :16])
