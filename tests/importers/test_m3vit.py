# SPDX-License-Identifier: Apache-2.0
"""Importing M3ViT checkpoints, against a plain reference that reads the original names."""

import dataclasses
import math
import re
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F

from edge_moe import EdgeMoEError
from edge_moe.checkpoint import load_model
from edge_moe.config import ModelConfig, Preset
from edge_moe.importers import import_checkpoint, import_m3vit
from edge_moe.importers.position import infer_grid, interpolate_positions
from edge_moe.nn import build_model

TOLERANCE = 1e-5  # of float32 predictions, relative to the largest value of the float64 reference
D, DEPTH, EXPERTS, RATIO, TOP_K, PATCH, CHANNELS, WIDTH = 24, 4, 5, 2, 2, 16, 6, 7
TASKS = {"semseg": 3, "saliency": 1, "depth": 1}
RAW = {"semseg": "semseg", "saliency": "sal", "depth": "depth"}


def make_checkpoint(kind, grid=(2, 4), cls=True, norm=True, seed=0):
    """A random state dict with M3ViT's names; kind as in ModelConfig.routing."""
    gen = torch.Generator().manual_seed(seed)
    ck = OrderedDict()

    def linear(name, *shape, bias=True, gain=1.0):
        ck[f"{name}.weight"] = torch.randn(*shape, generator=gen) * gain / math.sqrt(math.prod(shape[1:]))
        if bias:
            ck[f"{name}.bias"] = 0.3 * torch.randn(*shape[:1], generator=gen)

    def affine(name, width):
        ck[f"{name}.weight"] = 1 + 0.2 * torch.randn(width, generator=gen)
        ck[f"{name}.bias"] = 0.2 * torch.randn(width, generator=gen)

    if cls:
        ck["cls_token"] = torch.randn(1, 1, D, generator=gen)
    ck["pos_embed"] = torch.randn(1, grid[0] * grid[1] + cls, D, generator=gen)
    linear("patch_embed.proj", D, 3, PATCH, PATCH, gain=3)
    if kind == "task_conditioned":
        linear("gate_task_represent.fc1", WIDTH, len(TASKS))
        linear("gate_task_represent.fc2", WIDTH, WIDTH)
        if norm:
            affine("gate_task_represent.norm", WIDTH)
    for i in range(DEPTH):
        b = f"blocks.{i}"
        affine(f"{b}.norm1", D)
        affine(f"{b}.norm2", D)
        linear(f"{b}.attn.qkv", 3 * D, D, gain=2)
        linear(f"{b}.attn.proj", D, D)
        if i % 2 == 0 or kind == "dense":
            linear(f"{b}.mlp.fc1", 4 * D, D)
            linear(f"{b}.mlp.fc2", D, 4 * D)
            continue
        for name, out, cin in (("htoh4", RATIO * D, D), ("h4toh", D, RATIO * D)):
            ck[f"{b}.mlp.experts.{name}.weight"] = torch.randn(EXPERTS, out, cin, generator=gen) / cin**0.5
            ck[f"{b}.mlp.experts.{name}.bias"] = 0.3 * torch.randn(EXPERTS, out, generator=gen)
        rows = D + (WIDTH if kind == "task_conditioned" else 0)
        for gate in [f"{t}." for t in range(len(TASKS))] if kind == "multi_gate" else [""]:
            ck[f"{b}.mlp.gate.{gate}w_gate"] = torch.randn(rows, EXPERTS, generator=gen) / rows**0.5
    for task, channels in sorted(TASKS.items()):  # in the order of a ModuleDict in old torch versions
        d = f"decoders.{RAW[task]}"
        affine(f"{d}.norm", D)
        for stage, cin in enumerate((D, CHANNELS, CHANNELS, CHANNELS)):
            linear(f"{d}.conv_{stage}", CHANNELS, cin, 3, 3, gain=1.5)
            affine(f"{d}.syncbn_fc_{stage}", CHANNELS)
            bn = f"{d}.syncbn_fc_{stage}"
            ck[f"{bn}.running_mean"] = 0.3 * torch.randn(CHANNELS, generator=gen)
            ck[f"{bn}.running_var"] = 0.5 + torch.rand(CHANNELS, generator=gen)
            ck[f"{bn}.num_batches_tracked"] = torch.tensor(17)
        linear(f"{d}.conv_4", channels, CHANNELS, 1, 1)
    return ck


def reference(ck, images, task, heads, grid, pos=None, top_k=TOP_K):
    """M3ViT's evaluation forward pass of one task, in float64, token by token in the MoE blocks."""
    w = {name: value.double() for name, value in ck.items()}
    number = list(TASKS).index(task)

    def lin(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def ln(name, x):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    mean = torch.tensor([0.485, 0.456, 0.406]).double().view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).double().view(3, 1, 1)
    x = F.conv2d(
        (images.double() - mean) / std, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], PATCH
    )
    x = x.flatten(2).transpose(1, 2)
    if "cls_token" in w:
        x = torch.cat([w["cls_token"].repeat(len(x), 1, 1), x], 1)
    x = x + (w["pos_embed"] if pos is None else pos)
    B, N, _ = x.shape
    for i in range(DEPTH):
        b = f"blocks.{i}"
        qkv = lin(f"{b}.attn.qkv", ln(f"{b}.norm1", x)).view(B, N, 3, heads, D // heads)
        out = torch.zeros(B, N, heads, D // heads).double()
        for h in range(heads):
            q, k, v = (qkv[:, :, j, h] for j in range(3))
            out[:, :, h] = ((q @ k.transpose(1, 2)) * (D // heads) ** -0.5).softmax(-1) @ v
        x = x + lin(f"{b}.attn.proj", out.reshape(B, N, D))
        y = ln(f"{b}.norm2", x)
        if f"{b}.mlp.fc1.weight" in w:
            x = x + lin(f"{b}.mlp.fc2", F.gelu(lin(f"{b}.mlp.fc1", y)))
            continue
        gate_name = f"{b}.mlp.gate.{number}.w_gate"
        gate = w[gate_name if gate_name in w else f"{b}.mlp.gate.w_gate"]
        represent = torch.zeros(0).double()
        if "gate_task_represent.fc1.weight" in w:
            one_hot = torch.zeros(len(TASKS)).double()
            one_hot[number] = 1
            represent = lin("gate_task_represent.fc2", F.gelu(lin("gate_task_represent.fc1", one_hot)))
            if "gate_task_represent.norm.weight" in w:
                represent = ln("gate_task_represent.norm", represent)
        add = torch.zeros_like(y)
        for n in range(B):
            for t in range(N):
                p = (torch.cat([y[n, t], represent]) @ gate).softmax(0)
                for e in p.argsort(descending=True)[:top_k].tolist():
                    hidden = F.gelu(
                        w[f"{b}.mlp.experts.htoh4.weight"][e] @ y[n, t] + w[f"{b}.mlp.experts.htoh4.bias"][e]
                    )
                    expert = (
                        w[f"{b}.mlp.experts.h4toh.weight"][e] @ hidden + w[f"{b}.mlp.experts.h4toh.bias"][e]
                    )
                    add[n, t] += p[e] * expert
        x = x + add
    d = f"decoders.{RAW[task]}"
    x = ln(f"{d}.norm", x[:, 1:] if "cls_token" in w else x).transpose(1, 2).reshape(B, D, *grid)
    for stage in range(4):
        x = F.conv2d(x, w[f"{d}.conv_{stage}.weight"], w[f"{d}.conv_{stage}.bias"], padding=1)
        bn = {
            k: w[f"{d}.syncbn_fc_{stage}.{k}"].view(-1, 1, 1)
            for k in ("weight", "bias", "running_mean", "running_var")
        }
        x = (x - bn["running_mean"]) / (bn["running_var"] + 1e-5).sqrt() * bn["weight"] + bn["bias"]
        x = x.clamp(min=0)
        if stage < 3:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    x = F.conv2d(x, w[f"{d}.conv_4.weight"], w[f"{d}.conv_4.bias"])
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def config(**changes):
    base = ModelConfig(
        image_size=(32, 64), tasks=TASKS, embed_dim=D, num_heads=6, depth=DEPTH, num_experts=EXPERTS,
        top_k=TOP_K, expert_ratio=RATIO, head="pup", head_channels=CHANNELS, task_embed_dim=WIDTH,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def save(tmp_path, content, name="m3vit.pth", **kwargs):
    path = tmp_path / name
    torch.save(content, path, **kwargs)
    return path


def run(imported, images):
    model = build_model(imported.preset.model).eval()
    model.load_state_dict(imported.state)
    with torch.no_grad():
        return model(images).predictions


def assert_same_function(imported, ck, heads, grid=(2, 4), pos=None):
    images = torch.rand(2, 3, grid[0] * PATCH, grid[1] * PATCH, generator=torch.Generator().manual_seed(9))
    predictions = run(imported, images)
    assert list(predictions) == list(imported.preset.model.tasks)
    for task, found in predictions.items():
        expected = reference(ck, images, task, heads, grid, pos)
        assert found.shape == expected.shape
        error = (found - expected).abs().max() / expected.abs().max()
        assert error <= TOLERANCE, (task, float(error))


@pytest.mark.parametrize("heads", [6, 12])
@pytest.mark.parametrize("kind", ["multi_gate", "single_gate", "task_conditioned", "dense"])
def test_inferred_model_is_the_same_function(tmp_path, kind, heads):
    ck = make_checkpoint(kind)
    imported = import_m3vit(save(tmp_path, ck), num_heads=heads)
    cfg = imported.preset.model
    assert (cfg.routing, cfg.num_heads, dict(cfg.tasks), cfg.image_size) == (kind, heads, TASKS, (32, 64))
    assert (cfg.embed_dim, cfg.depth, cfg.mlp_ratio, cfg.head, cfg.head_channels) == (
        D,
        DEPTH,
        4,
        "pup",
        CHANNELS,
    )
    if kind != "dense":
        assert (cfg.num_experts, cfg.expert_ratio, cfg.top_k) == (EXPERTS, RATIO, TOP_K)
    assert imported.filled == []
    assert_same_function(imported, ck, heads)


def test_predictions_differ_between_gates(tmp_path):
    """The comparison above would not notice swapped gates if all gates routed alike."""
    ck = make_checkpoint("multi_gate")
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(9))
    swapped = {name.replace("gate.0.", "gate.x."): value for name, value in ck.items()}
    swapped = {
        name.replace("gate.2.", "gate.0.").replace("gate.x.", "gate.2."): v for name, v in swapped.items()
    }
    first, second = (reference(c, images, "semseg", 6, (2, 4)) for c in (ck, swapped))
    assert (first - second).abs().max() > 1e-2


def test_single_gate_is_cloned_for_a_multi_gate_preset(tmp_path):
    ck = make_checkpoint("single_gate")
    imported = import_m3vit(save(tmp_path, ck), preset=Preset("p", config()))
    gates = [imported.state[f"blocks.1.ffn.gates.{task}.weight"] for task in TASKS]
    assert all(torch.equal(gate, ck["blocks.1.mlp.gate.w_gate"].T) for gate in gates)
    assert any("single gate is copied" in note for note in imported.notes)
    assert_same_function(imported, ck, 6)


def test_task_embedding_without_layernorm_and_in_another_task_order(tmp_path):
    ck = make_checkpoint("task_conditioned", norm=False)
    backwards = dict(reversed(TASKS.items()))
    preset = Preset("p", config(routing="task_conditioned", tasks=backwards))
    imported = import_m3vit(save(tmp_path, ck), preset=preset)
    assert torch.equal(
        imported.state["task_embedding.0.weight"], ck["gate_task_represent.fc1.weight"].flip(1)
    )
    assert_same_function(imported, ck, 6)


def test_task_embedding_with_layernorm_in_another_task_order(tmp_path):
    ck = make_checkpoint("task_conditioned")
    preset = Preset("p", config(routing="task_conditioned", tasks=dict(reversed(TASKS.items()))))
    imported = import_m3vit(save(tmp_path, ck), preset=preset)
    assert any("LayerNorm" in note for note in imported.notes)
    assert_same_function(imported, ck, 6)


def test_without_cls_token(tmp_path):
    ck = make_checkpoint("multi_gate", cls=False)
    imported = import_m3vit(save(tmp_path, ck), num_heads=6)
    assert not imported.preset.model.cls_token
    assert_same_function(imported, ck, 6)


def test_options_override_the_preset(tmp_path):
    ck = make_checkpoint("multi_gate")
    imported = import_m3vit(save(tmp_path, ck), preset=Preset("p", config()), num_heads=12, top_k=3)
    cfg = imported.preset.model
    assert (imported.preset.name, cfg.num_heads, cfg.top_k) == ("p", 12, 3)
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(9))
    expected = reference(ck, images, "depth", 12, (2, 4), top_k=3)
    error = (run(imported, images)["depth"] - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCE


def test_preset_with_fewer_tasks_keeps_their_gates(tmp_path):
    ck = make_checkpoint("multi_gate")
    imported = import_m3vit(save(tmp_path, ck), preset=Preset("p", config(tasks={"depth": 1, "semseg": 3})))
    assert any(note == "tasks left out, as the preset lacks them: saliency." for note in imported.notes)
    assert_same_function(imported, ck, 6)


def test_given_task_order_decides_which_gate_is_whose(tmp_path):
    ck = make_checkpoint("multi_gate")
    tasks = {"depth": 1, "saliency": 1, "semseg": 3}
    imported = import_m3vit(save(tmp_path, ck), tasks=tasks, num_heads=6)
    for number, task in enumerate(tasks):
        gate = imported.state[f"blocks.3.ffn.gates.{task}.weight"]
        assert torch.equal(gate, ck[f"blocks.3.mlp.gate.{number}.w_gate"].T)


def keys_cubic(size_in, size_out):
    """Bicubic resampling matrix [out, in], a = -0.75, half-pixel centres, clamped at the border."""

    def kernel(t, a=-0.75):
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    matrix = torch.zeros(size_out, size_in).double()
    for i in range(size_out):
        centre = (i + 0.5) * size_in / size_out - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[i, min(max(j, 0), size_in - 1)] += kernel(centre - j)
    return matrix


@pytest.mark.parametrize(("source", "target"), [((4, 4), (2, 4)), ((3, 4), (4, 8)), ((4, 8), (3, 3))])
def test_position_embeddings_are_interpolated(tmp_path, source, target):
    ck = make_checkpoint("multi_gate", grid=source)
    preset = Preset("p", config(image_size=(target[0] * PATCH, target[1] * PATCH)))
    imported = import_m3vit(save(tmp_path, ck), preset=preset)
    assert any("interpolated (bicubic)" in note for note in imported.notes)
    old = ck["pos_embed"].double()
    grid = torch.einsum(
        "ph,qw,hwd->pqd", keys_cubic(source[0], target[0]), keys_cubic(source[1], target[1]),
        old[0, 1:].view(*source, D),
    )  # fmt: skip
    expected = torch.cat([old[:, :1], grid.reshape(1, -1, D)], 1)
    assert torch.allclose(imported.state["pos_embed"].double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(imported.state["pos_embed"][:, 0], ck["pos_embed"][:, 0])
    assert_same_function(imported, ck, 6, target, expected)


def test_image_size_and_source_grid_options(tmp_path):
    ck = make_checkpoint("multi_gate", grid=(2, 5))
    path = save(tmp_path, ck)
    with pytest.raises(EdgeMoEError, match=r"give model\.image_size"):
        import_m3vit(path, num_heads=6)
    assert import_m3vit(path, num_heads=6, image_size=(32, 80)).preset.model.grid_size == (2, 5)
    with pytest.raises(EdgeMoEError, match="give the source grid"):
        import_m3vit(path, preset=Preset("p", config()))
    imported = import_m3vit(path, preset=Preset("p", config()), source_grid=(2, 5))
    assert imported.state["pos_embed"].shape == (1, 9, D)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_depth_scale_of_the_preset_is_obeyed(tmp_path, scale):
    """The head's weights are divided by it: the same metres."""
    ck = make_checkpoint("multi_gate")
    imported = import_m3vit(save(tmp_path, ck), preset=Preset("p", config(depth_scale=scale)))
    assert imported.preset.model.depth_scale == scale
    assert_same_function(imported, ck, 6)


def test_position_of_a_distillation_token_is_left_out(tmp_path):
    ck = make_checkpoint("multi_gate", grid=(4, 4))
    positions = torch.cat([ck["pos_embed"][:, :1], torch.ones(1, 1, D), ck["pos_embed"][:, 1:]], 1)
    distilled = {**ck, "dist_token": torch.ones(1, 1, D), "pos_embed": positions}
    for preset in (None, Preset("p", config(image_size=(64, 64)))):
        imported = import_m3vit(save(tmp_path, distilled), preset=preset, num_heads=6)
        assert_same_function(imported, ck, 6, (4, 4))


def test_set_is_obeyed_or_refused(tmp_path):
    path, out = save(tmp_path, make_checkpoint("multi_gate")), tmp_path / "out.pt"
    sets = [f"model.{name}={value}" for name, value in {
        "image_size": "[32, 64]", "embed_dim": D, "num_heads": 6, "depth": DEPTH, "num_experts": EXPERTS,
        "head": "pup", "head_channels": CHANNELS, "tasks": "{semseg=3, saliency=1, depth=1}",
        "depth_scale": 7.5}.items()]  # fmt: skip
    import_checkpoint("m3vit", path, out, preset="mini", overrides=sets)
    assert load_model(out)[1].model.depth_scale == 7.5
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "l0_norm1_bias.float32.bin").touch()
    mean = ["model.pixel_mean=[0.5, 0.5, 0.5]"]
    with pytest.raises(EdgeMoEError, match=r"pixel_mean = \(0\.0, 0\.0, 0\.0\); leave it out"):
        import_checkpoint("edge-moe-bin", folder, out, overrides=mean, allow_missing=True)


def test_grid_inference_and_identity():
    assert [infer_grid(n) for n in (196, 1024, 128, 1200, 8, 1)] == [
        (14, 14), (32, 32), (8, 16), (30, 40), (2, 4), (1, 1),
    ]  # fmt: skip
    assert [infer_grid(n) for n in (0, 10, 129, 1201)] == [None] * 4
    positions = torch.randn(1, 9, 3)
    assert interpolate_positions(positions, (2, 4), (2, 4)) is positions


def same_state(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_wrappers_prefixes_and_old_file_format(tmp_path):
    ck = make_checkpoint("multi_gate")
    expected = import_m3vit(save(tmp_path, ck), num_heads=6).state
    for content in (
        {"model": ck, "epoch": 3, "args": "any"},
        {"state_dict": {f"module.{name}": value for name, value in ck.items()}, "best_result": {"mIoU": 0.3}},
        {
            ("module." if name.startswith("decoders.") else "module.backbone.") + name: value
            for name, value in ck.items()
        },
    ):
        for zipped in (True, False):
            path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
            assert same_state(import_m3vit(path, num_heads=6).state, expected)


def test_expert_shards_are_joined(tmp_path):
    ck = make_checkpoint("multi_gate")
    expected = import_m3vit(save(tmp_path, ck), num_heads=6).state
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    experts = {name: value for name, value in ck.items() if ".experts." in name}
    for rank, rows in enumerate((slice(0, 2), slice(2, 4), slice(4, 5))):
        part = {name: value[rows].clone() for name, value in experts.items()}
        save(folder, {"state_dict": part if rank else {**ck, **part}}, f"{rank}.pth")
    assert same_state(import_m3vit(folder, num_heads=6).state, expected)
    (folder / "1.pth").rename(folder / "3.pth")
    with pytest.raises(EdgeMoEError, match=r"1\.pth' does not exist"):
        import_m3vit(folder, num_heads=6)


def test_single_task_checkpoint(tmp_path):
    ck = make_checkpoint("single_gate")
    single = {
        name: value for name, value in ck.items() if not name.startswith(("decoders.sal", "decoders.sem"))
    }
    single = {name.replace("decoders.depth.", "decoder."): value for name, value in single.items()}
    path = save(tmp_path, single)
    assert_same_function(import_m3vit(path, tasks={"depth": 1}, num_heads=6), ck, 6)
    with pytest.raises(EdgeMoEError, match="single-task checkpoint"):
        import_m3vit(path, num_heads=6)


def test_half_precision_and_absent_biases(tmp_path):
    ck = make_checkpoint("multi_gate")
    rounded = {name: value.half() if value.is_floating_point() else value for name, value in ck.items()}
    imported = import_m3vit(save(tmp_path, rounded), num_heads=6)
    assert all(v.dtype == torch.float32 for name, v in imported.state.items() if "tracked" not in name)
    assert imported.state["heads.depth.bns.0.num_batches_tracked"] == 17
    assert_same_function(imported, rounded, 6)

    bare = {n: v for n, v in ck.items() if not re.search(r"(attn\.qkv|conv_[0-3])\.bias", n)}
    zeros = {n: torch.zeros_like(v) if n not in bare else v for n, v in ck.items()}
    imported = import_m3vit(save(tmp_path, bare), num_heads=6)
    assert imported.filled == []
    assert_same_function(imported, zeros, 6)


def test_names_without_effect_are_noted(tmp_path):
    ck = make_checkpoint("multi_gate")
    extra = (
        "head.weight",
        "norm.bias",
        "dist_token",
        "blocks.1.mlp.gate.0.w_gate_aux",
        "tam_model0.layers0.0.weight",
        "decoders.sal.output_level_2.bias",
    )
    imported = import_m3vit(save(tmp_path, {**ck, **{name: torch.zeros(2) for name in extra}}), num_heads=6)
    assert imported.notes[0] == f"not used by the model: {', '.join(extra)}."
    assert_same_function(imported, ck, 6)


def test_missing_parameters_are_named_or_filled(tmp_path):
    ck = make_checkpoint("multi_gate")
    gone = ["blocks.1.mlp.gate.2.w_gate", "blocks.2.attn.qkv.bias", "decoders.sal.conv_1.weight"]
    path = save(tmp_path, {name: value for name, value in ck.items() if name not in gone})
    with pytest.raises(EdgeMoEError, match="lacks") as error:
        import_m3vit(path, num_heads=6)
    assert all(name in str(error.value) for name in gone)
    imported = import_m3vit(path, num_heads=6, allow_missing=True)
    assert imported.filled == [
        "blocks.1.ffn.gates.depth.weight", "blocks.2.attn.qkv.bias", "heads.saliency.convs.1.weight",
    ]  # fmt: skip
    assert same_state(imported.state, import_m3vit(path, num_heads=6, allow_missing=True).state)
    assert imported.state["blocks.1.ffn.gates.depth.weight"].std() > 0
    complete = import_m3vit(save(tmp_path, ck), num_heads=6).state
    kept = [name for name in complete if name not in imported.filled]
    assert all(torch.equal(imported.state[name], complete[name]) for name in kept)
    assert list(imported.state) == list(complete)


def test_backbone_alone_needs_tasks_and_leave_to_fill_heads(tmp_path):
    ck = {n: v for n, v in make_checkpoint("single_gate").items() if not n.startswith("decoders.")}
    path = save(tmp_path, ck)
    with pytest.raises(EdgeMoEError, match="give the tasks or a preset"):
        import_m3vit(path, num_heads=6)
    preset = Preset("p", config(head="edge"))
    with pytest.raises(EdgeMoEError, match=r"lacks decoders\.semseg, decoders\.sal, decoders\.depth"):
        import_m3vit(path, preset=preset)
    imported = import_m3vit(path, preset=preset, allow_missing=True)
    assert imported.filled
    assert all(name.startswith("heads.") for name in imported.filled)
    build_model(imported.preset.model).load_state_dict(imported.state)


def test_dense_checkpoint_is_refused_by_an_moe_preset(tmp_path):
    path = save(tmp_path, make_checkpoint("dense"))
    with pytest.raises(EdgeMoEError, match=r"block 1 in .* has a dense FFN, the model experts"):
        import_m3vit(path, preset=Preset("p", config()))


@pytest.mark.parametrize(
    ("cfg", "name", "shapes"),
    [
        ({"embed_dim": 36}, "patch_embed.proj.weight", ("[24, 3, 16, 16]", "[36, 3, 16, 16]")),
        ({"num_experts": 4}, "blocks.1.mlp.experts.htoh4.weight", ("[5, 48, 24]", "[4, 48, 24]")),
        ({"expert_ratio": 1}, "blocks.1.mlp.experts.htoh4.weight", ("[5, 48, 24]", "[5, 24, 24]")),
        ({"mlp_ratio": 2}, "blocks.0.mlp.fc1.weight", ("[96, 24]", "[48, 24]")),
        ({"head_channels": 8}, "decoders.semseg.conv_0.weight", ("[6, 24, 3, 3]", "[8, 24, 3, 3]")),
        (
            {"tasks": {**TASKS, "semseg": 4}},
            "decoders.semseg.conv_4.weight",
            ("[3, 6, 1, 1]", "[4, 6, 1, 1]"),
        ),
    ],
)
def test_mismatch_with_the_preset_names_parameter_and_shapes(tmp_path, cfg, name, shapes):
    path = save(tmp_path, make_checkpoint("multi_gate"))
    with pytest.raises(EdgeMoEError) as error:
        import_m3vit(path, preset=Preset("wanted", config(**cfg)))
    message = str(error.value)
    assert f"'{name}'" in message
    assert "preset 'wanted'" in message
    assert all(shape in message for shape in shapes)


@pytest.mark.parametrize(
    ("cfg", "sentence"),
    [
        ({"depth": 2}, "has a block 3, the model has 2 blocks"),
        ({"depth": 6}, "lacks blocks.4.norm1.weight"),
        ({"cls_token": False}, "has a cls_token, the model has none"),
        ({"head": "edge"}, "has M3ViT's PUP decoders, the model has 'edge' heads"),
        ({"routing": "single_gate"}, "has routing 'multi_gate', the model 'single_gate'"),
        ({"routing": "dense"}, "has experts, the model a dense FFN"),
        ({"tasks": {"edge": 1}}, "task 'edge' of preset 'p' is not among them"),
    ],
)
def test_another_model_is_refused(tmp_path, cfg, sentence):
    path = save(tmp_path, make_checkpoint("multi_gate"))
    with pytest.raises(EdgeMoEError, match=re.escape(sentence)):
        import_m3vit(path, preset=Preset("p", config(**cfg)))


def test_checkpoint_without_cls_is_refused_by_a_preset_with_one(tmp_path):
    path = save(tmp_path, make_checkpoint("multi_gate", cls=False))
    with pytest.raises(EdgeMoEError, match="has no cls_token, the model has one"):
        import_m3vit(path, preset=Preset("p", config()))


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (
            {"backbone.blocks.0.mlp.fc3.weight": torch.zeros(2)},
            "M3ViT does not have: blocks.0.mlp.fc3.weight",
        ),
        ({"layer1.0.conv1.weight": torch.zeros(2)}, "M3ViT does not have: layer1.0.conv1.weight"),
        ({"blocks.1.mlp.gate.0.w_noise": torch.zeros(2)}, "gates of type 'noisy'"),
        ({"decoders.flow.norm.weight": torch.zeros(2)}, "unknown task"),
        ({"blocks.1.mlp.gate.3.w_gate": torch.zeros(D, EXPERTS)}, "has 4 gates per block for 3 tasks"),
        ({"blocks.2.mlp.gate.0.w_gate": torch.zeros(D, EXPERTS)}, "block 2 in"),
        ({"blocks.1.mlp.fc1.weight": torch.zeros(2)}, "block 1 in"),
        ({"blocks.0.norm1.bias": torch.full((D,), float("nan"))}, "'blocks.0.norm1.bias'"),
        ({"cls_token": torch.full((1, 1, D), float("inf"))}, "NaN or infinite"),
        ({"pos_embed": torch.zeros(9, D)}, "shape [9, 24]"),
        ({"blocks.0.mlp.fc1.weight": torch.zeros(50, D)}, "must be a multiple of 24"),
        (
            {"gate_task_represent.fc1.weight": torch.zeros(2, 2)},
            "no place for: gate_task_represent.fc1.weight",
        ),
    ],
)
def test_wrong_parameters_are_named(tmp_path, extra, sentence):
    path = save(tmp_path, {**make_checkpoint("multi_gate"), **extra})
    with pytest.raises(EdgeMoEError, match=re.escape(sentence)):
        import_m3vit(path, num_heads=6)


def test_heads_must_be_known(tmp_path):
    path = save(tmp_path, make_checkpoint("multi_gate"))
    with pytest.raises(EdgeMoEError, match="does not show the number of attention heads"):
        import_m3vit(path)
    with pytest.raises(EdgeMoEError, match="multiple of num_heads 5"):
        import_m3vit(path, num_heads=5)


class Anything:
    pass


def test_unreadable_files(tmp_path):
    with pytest.raises(EdgeMoEError, match="does not exist"):
        import_m3vit(tmp_path / "none.pth")
    with pytest.raises(EdgeMoEError, match=r"holds no 0\.pth"):
        import_m3vit(tmp_path)
    for content, sentence in (
        ({"state_dict": {"a": Anything()}}, "Anything, and only tensors are read"),
        ({"epoch": 3}, "has no state dict"),
        ({}, "has no state dict"),
        ([torch.zeros(2)], "holds a list"),
    ):
        for zipped in (True, False):
            path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
            with pytest.raises(EdgeMoEError, match=sentence):
                import_m3vit(path, num_heads=6)
    for zipped in (True, False):
        data = save(tmp_path, make_checkpoint("dense"), _use_new_zipfile_serialization=zipped).read_bytes()
        for keep in (0, 3, 100, len(data) // 2, len(data) - 30):
            short = tmp_path / "short.pth"
            short.write_bytes(data[:keep])
            with pytest.raises(EdgeMoEError, match="cut short"):
                import_m3vit(short, num_heads=6)
    text = tmp_path / "notes.txt"
    text.write_text("not a checkpoint at all, only words", encoding="utf-8")
    with pytest.raises(EdgeMoEError, match="not a torch checkpoint"):
        import_m3vit(text, num_heads=6)


def test_command_writes_a_checkpoint_of_the_same_function(tmp_path):
    ck = make_checkpoint("multi_gate")
    path, out = save(tmp_path, ck), tmp_path / "imported.pt"
    report = import_checkpoint("m3vit", path, out, overrides=["model.num_heads=12"])
    assert report.startswith(f"{out}: m3vit_import, multi_gate, 32x64, 4 blocks of 24, 12 heads;")
    assert "tasks semseg 3, saliency 1, depth 1" in report
    model, preset, _ = load_model(out)
    assert preset.model.num_heads == 12
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(9))
    expected = reference(ck, images, "saliency", 12, (2, 4))
    with torch.no_grad():
        found = model(images, ["saliency"]).predictions["saliency"]
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_command_lists_what_it_filled_and_writes_nothing_on_an_error(tmp_path):
    ck = {
        name: value for name, value in make_checkpoint("multi_gate").items() if name != "blocks.0.norm1.bias"
    }
    path, out = save(tmp_path, ck), tmp_path / "imported.pt"
    heads = ["model.num_heads=6"]
    with pytest.raises(EdgeMoEError, match=r"lacks blocks\.0\.norm1\.bias"):
        import_checkpoint("m3vit", path, out, overrides=heads)
    assert not out.exists()
    report = import_checkpoint("m3vit", path, out, overrides=heads, allow_missing=True)
    assert report.endswith("1 parameters were missing and are initialised:\n  blocks.0.norm1.bias")


@pytest.mark.parametrize(
    ("overrides", "tasks", "sentence"),
    [
        (["model.depth=3"], None, "only model.num_heads, model.top_k, model.image_size can be set"),
        (["model.num_heads=many"], None, "is a positive whole number"),
        (["model.num_heads=6", "model.image_size=32"], None, "is [height, width] in pixels"),
        (["model.num_heads=6"], ["semseg=3", "flow=2"], "--task flow=2: name each task once"),
        (["model.num_heads=6"], ["depth", "depth"], "--task depth: name each task once"),
        (["model.num_heads=6"], ["semseg"], "give its number of classes, such as semseg=7"),
        (["model.num_heads=6"], ["semseg=x"], "give its number of classes, such as semseg=7"),
    ],
)
def test_command_options_are_checked(tmp_path, overrides, tasks, sentence):
    path = save(tmp_path, make_checkpoint("multi_gate"))
    with pytest.raises(EdgeMoEError, match=re.escape(sentence)):
        import_checkpoint("m3vit", path, tmp_path / "out.pt", overrides=overrides, tasks=tasks)
