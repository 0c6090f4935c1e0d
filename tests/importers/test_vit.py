# SPDX-License-Identifier: Apache-2.0
"""ViT and DeiT as the start of a model, against a plain reference that reads timm's names."""

import dataclasses
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from edge_moe import EdgeMoEError
from edge_moe.checkpoint import load_checkpoint, load_model
from edge_moe.cli import main
from edge_moe.config import ModelConfig, Preset, load_preset
from edge_moe.importers import import_checkpoint, import_vit, initialise
from edge_moe.nn import M3ViT, build_model
from edge_moe.testing.markdown_files import ROOT

D, HEADS, DEPTH, GRID = 24, 3, 4, (2, 4)
MODEL = ModelConfig(
    image_size=(32, 64), tasks={"semseg": 3, "depth": 1}, embed_dim=D, num_heads=HEADS, depth=DEPTH,
    num_experts=6, head_channels=4, depth_scale=20.0,
)  # fmt: skip
PRESET = Preset("p", MODEL)
SETS = [f"model.{name}={value}" for name, value in
        {"embed_dim": D, "num_heads": HEADS, "depth": DEPTH, "image_size": "[32, 64]"}.items()]  # fmt: skip
State = dict[str, Tensor]


def vit(grid: tuple[int, int] = GRID, distilled: bool = False, bias: bool = True, seed: int = 0) -> State:
    """Random weights under timm's names."""
    gen = torch.Generator().manual_seed(seed)
    state: State = {}

    def draw(name: str, *shape: int, mean: float = 0.0) -> None:
        state[name] = mean + torch.randn(*shape, generator=gen) / math.sqrt(math.prod(shape[1:]) or 1)

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        draw(f"{name}.weight", *shape)
        if bias:
            draw(f"{name}.bias", shape[0])

    draw("cls_token", 1, 1, D)
    if distilled:
        draw("dist_token", 1, 1, D)
    draw("pos_embed", 1, math.prod(grid) + 1 + distilled, D)
    layer("patch_embed.proj", D, 3, 16, 16)
    for index in range(DEPTH):
        block = f"blocks.{index}"
        for norm in ("norm1", "norm2"):
            draw(f"{block}.{norm}.weight", D, mean=1.0)
            draw(f"{block}.{norm}.bias", D)
        layer(f"{block}.attn.qkv", 3 * D, D, bias=bias)
        layer(f"{block}.attn.proj", D, D)
        layer(f"{block}.mlp.fc1", 4 * D, D)
        layer(f"{block}.mlp.fc2", D, 4 * D)
    draw("norm.weight", D, mean=1.0)
    draw("norm.bias", D)
    for head in ["head", "head_dist"] if distilled else ["head"]:
        layer(head, 10, D)
    return state


def features(state: State, images: Tensor) -> Tensor:
    """Tokens after the last norm, in float64; images are normalised already. Without distillation token."""
    w = {name: value.double() for name, value in state.items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (D,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    def scaled(name: str, x: Tensor) -> Tensor:
        return x * w.get(f"{name}.gamma", torch.ones(D))

    x = F.conv2d(images.double(), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=16)
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + w["pos_embed"]
    for index in range(DEPTH):
        block = f"blocks.{index}"
        q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(-2, -1) / math.sqrt(D // HEADS)).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        x = x + scaled(f"{block}.ls1", linear(f"{block}.attn.proj", mixed))
        hidden = F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)))
        x = x + scaled(f"{block}.ls2", linear(f"{block}.mlp.fc2", hidden))
    return norm("norm", x)


def own_features(model: M3ViT, images: Tensor) -> Tensor:
    with torch.no_grad():
        x = model.embed(images)
        for index in range(DEPTH):
            x = model.block(index).feed(model.block(index).attend(x), "semseg", None)[0]
        result: Tensor = model.heads["semseg"].norm(x)
    return result


def assert_same_features(state: State, expected: State, preset: Preset = PRESET) -> None:
    """With gates that score all experts alike, an MoE block is the FFN that its experts come from."""
    model = build_model(preset.model).eval()
    model.load_state_dict(state)
    for name, value in model.state_dict().items():
        if ".gates." in name:
            value.zero_()
    images = torch.rand(2, 3, *preset.model.image_size, generator=torch.Generator().manual_seed(1))
    mean, std = (
        torch.tensor(getattr(preset.model, f"pixel_{kind}")).view(3, 1, 1) for kind in ("mean", "std")
    )
    reference = features(expected, (images - mean) / std)
    error = (own_features(model, images) - reference).abs().max() / reference.abs().max()
    assert error < 1e-5


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("routing", ["dense", "multi_gate", "single_gate", "task_conditioned"])
def test_features_are_those_of_the_vit(tmp_path: Path, routing: str) -> None:
    preset = Preset("p", dataclasses.replace(MODEL, routing=routing))
    state = vit()
    imported = import_vit(saved(tmp_path / "a.pth", {"model": state}), preset=preset)
    random = ("heads.", "blocks.1.ffn.gates.", "blocks.3.ffn.gates.", "task_embedding.")
    assert all(name.startswith(random) for name in imported.filled)
    assert imported.preset == preset  # depth_scale too
    assert_same_features(imported.state, state, preset) if routing != "task_conditioned" else None


@pytest.mark.parametrize(("experts", "top_k", "ratio"), [(6, 2, 2), (8, 4, 1), (5, 1, 4), (4, 2, 2)])
def test_experts_are_parts_of_the_ffn(tmp_path: Path, experts: int, top_k: int, ratio: int) -> None:
    cfg = dataclasses.replace(MODEL, num_experts=experts, top_k=top_k, expert_ratio=ratio)
    state = vit()
    imported = import_vit(saved(tmp_path / "a.pth", state), preset=Preset("p", cfg))
    parts = 4 // ratio
    for expert in range(experts):
        rows = state["blocks.1.mlp.fc1.weight"].chunk(parts)[expert % parts]
        assert torch.equal(imported.state["blocks.1.ffn.experts.weight1"][expert], rows)
    assert_same_features(imported.state, state, Preset("p", cfg))


def hugging_face(state: State) -> State:
    names = {
        "attn.proj": "attention.output.dense", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
        "norm1": "layernorm_before", "norm2": "layernorm_after", "head.": "classifier.",
        "patch_embed.proj": "embeddings.patch_embeddings.projection", "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings", "blocks.": "encoder.layer.",
    }  # fmt: skip
    result: State = {}
    for name, value in state.items():
        new = re.sub(r"^norm\.", "layernorm.", name)
        for theirs, ours in names.items():
            new = new.replace(theirs, ours)
        new = new if new.startswith("classifier") else f"vit.{new}"
        if "attn.qkv" not in new:
            result[new] = value
            continue
        for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
            result[new.replace("attn.qkv", f"attention.attention.{part}")] = rows.clone()
    return {**result, "vit.pooler.dense.weight": torch.zeros(D, D)}


def torchvision(state: State) -> State:
    names = {
        r"^blocks\.(\d+)": r"encoder.layers.encoder_layer_\1", r"attn\.qkv\.": "self_attention.in_proj_",
        r"attn\.proj": "self_attention.out_proj", r"mlp\.fc1": "mlp.0", r"mlp\.fc2": "mlp.3",
        r"norm1": "ln_1", r"norm2": "ln_2", r"^norm": "encoder.ln", r"^head": "heads.head",
        r"^patch_embed\.proj": "conv_proj", r"^cls_token": "class_token",
        r"^pos_embed": "encoder.pos_embedding",
    }  # fmt: skip
    for theirs, ours in names.items():
        state = {re.sub(theirs, ours, name): value for name, value in state.items()}
    return state


def split(suffix: str) -> Callable[[State], State]:
    def of(state: State) -> State:
        result: State = {}
        for name, value in state.items():
            if ".qkv." in name:
                for part, rows in zip("qkv", value.chunk(3), strict=True):
                    result[name.replace(".qkv.", f".{part}{suffix}.")] = rows.clone()
            else:
                result[name] = value
        return result

    return of


@pytest.mark.parametrize(
    "rename",
    [hugging_face, torchvision, split(""), split("_proj"),
     lambda state: {f"model.net._orig_mod.{name}": value for name, value in state.items()}],
    ids=["hugging face", "torchvision", "split", "split with _proj", "prefixes"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_names_of_other_libraries(tmp_path: Path, rename: Callable[[State], State], suffix: str) -> None:
    state, path = vit(), tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": rename(state)}, path)
    else:
        save_file(rename(state), path)
    assert_same_features(import_vit(path, preset=PRESET).state, state)


def test_distilled(tmp_path: Path) -> None:
    """DeiT's second token and its position are left out: everything else is that of the plain model."""
    state = vit(distilled=True)
    imported = import_vit(saved(tmp_path / "a.pth", {"model": state}), preset=PRESET)
    plain = {**state, "pos_embed": torch.cat([state["pos_embed"][:, :1], state["pos_embed"][:, 2:]], 1)}
    assert_same_features(imported.state, plain)
    ignored = "ignored: dist_token, head.weight, head.bias, head_dist.weight, head_dist.bias."
    assert ignored in imported.notes


def test_layer_scale_and_positions_without_cls(tmp_path: Path) -> None:
    """DeiT III: gammas, and a CLS token without a position."""
    state = vit()
    for index in range(DEPTH):
        for part in (1, 2):
            state[f"blocks.{index}.ls{part}.gamma"] = torch.randn(
                D, generator=torch.Generator().manual_seed(index)
            )
    path = saved(tmp_path / "a.pth", {**state, "pos_embed": state["pos_embed"][:, 1:]})
    zero = torch.zeros_like(state["pos_embed"][:, :1])
    imported = import_vit(path, preset=PRESET)
    assert_same_features(
        imported.state, {**state, "pos_embed": torch.cat([zero, state["pos_embed"][:, 1:]], 1)}
    )
    assert "LayerScale is folded into the projections before it: the same function." in imported.notes
    del state["blocks.1.ls2.gamma"]
    with pytest.raises(EdgeMoEError, match=r"lacks blocks\.1\.ls2\.gamma: it is not a whole ViT"):
        import_vit(saved(tmp_path / "b.pth", state), preset=PRESET)


def test_without_qkv_bias_last_norm_or_cls(tmp_path: Path) -> None:
    state = vit(bias=False)
    imported = import_vit(saved(tmp_path / "a.pth", state), preset=PRESET)
    assert_same_features(imported.state, state)
    assert "no block has a qkv bias: it is zero." in imported.notes
    bare = {name: value for name, value in state.items() if not name.startswith(("norm.", "cls_"))}
    bare["pos_embed"] = bare["pos_embed"][:, 1:]
    imported = import_vit(saved(tmp_path / "b.pth", bare), preset=PRESET)
    assert {"cls_token", "heads.depth.norm.weight"} <= set(imported.filled)
    assert "left random: CLS token, gates, heads of semseg, depth." in imported.notes
    no_cls = Preset("p", dataclasses.replace(MODEL, cls_token=False))
    imported = import_vit(saved(tmp_path / "c.pth", state), preset=no_cls)
    assert torch.equal(imported.state["pos_embed"], state["pos_embed"][:, 1:])


@pytest.mark.parametrize("distilled", [False, True])
def test_positions_are_resampled_to_the_grid_of_the_preset(tmp_path: Path, distilled: bool) -> None:
    state = vit(grid=(4, 4), distilled=distilled)
    imported = import_vit(saved(tmp_path / "a.pth", state), preset=PRESET)
    extra = 1 + distilled
    square = state["pos_embed"][0, extra:].T.reshape(1, D, 4, 4)
    expected = F.interpolate(square, size=GRID, mode="bicubic").flatten(2).transpose(1, 2)
    assert torch.allclose(imported.state["pos_embed"][:, 1:], expected, atol=1e-6)
    assert torch.equal(imported.state["pos_embed"][:, 0], state["pos_embed"][:, 0])
    assert "position embeddings are interpolated (bicubic) from 4 x 4 to 2 x 4 patches." in imported.notes


def test_another_grid_is_given(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", vit(grid=(5, 7)))
    command = ["import", "vit", str(path), "--preset", "mini", "--out", str(tmp_path / "a.pt")]
    command += [part for override in SETS for part in ("--set", override)]
    assert main(command) == 2
    assert main([*command, "--source-grid", "5by7"]) == 2
    assert main([*command, "--source-grid", "5x6"]) == 2
    assert main([*command, "--source-grid", "5x7"]) == 0
    with pytest.raises(EdgeMoEError, match=r"of 35 patches: give the source grid \(rows, columns\), such as"):
        import_vit(path, preset=PRESET)


def test_the_command_says_what_became_of_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = saved(tmp_path / "deit.pth", {"model": vit(grid=(4, 4))}), tmp_path / "start.pt"
    report = import_checkpoint("vit", path, out, preset="mini", overrides=SETS)
    assert report.splitlines() == [
        f"{out}: mini, multi_gate, 32x64, 4 blocks of 24, 3 heads; tasks semseg 7, depth 1",
        "loaded: patch embedding, CLS token, position embeddings, 4 blocks, "
        "the last norm as that of every head.",
        "position embeddings are interpolated (bicubic) from 4 x 4 to 2 x 4 patches.",
        "experts: in blocks 1, 3, expert e starts as part e mod 2 of 2 equal parts of that block's "
        "96 hidden channels.",
        "left random: gates, heads of semseg, depth except their norms.",
        "ignored: head.weight, head.bias.",
    ]  # fmt: skip
    model, preset, _ = load_model(out)
    assert preset.model.depth_scale == 20
    again = build_model(preset.model)
    assert initialise(again, out, preset) == []
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    report = import_checkpoint("vit", path, out, preset="mini", overrides=SETS, tasks=["edge", "semseg=9"])
    assert "tasks edge 1, semseg 9" in report


def test_training_starts_from_a_backbone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = vit()
    path = saved(tmp_path / "deit.pth", {"model": state})
    caplog.set_level("INFO")
    sets = [part for override in [*SETS, "train.train_images=16", "train.val_images=1", "train.lr=1e-12"]
            for part in ("--set", override)]  # fmt: skip
    command = ["train", "mini", "--max-steps", "1", "--out", str(tmp_path / "run"), *sets]
    assert main([*command, "--init", str(path)]) == 0
    assert any(message.startswith("left random: gates, heads of semseg") for message in caplog.messages)
    weights = load_checkpoint(tmp_path / "run" / "last.pt").weights
    qkv = "blocks.2.attn.qkv.weight"
    assert torch.allclose(weights[qkv], state[qkv], atol=1e-6)
    rows = weights["blocks.1.ffn.experts.weight1"][3]
    assert torch.allclose(rows, state["blocks.1.mlp.fc1.weight"][48:], atol=1e-6)


def test_heads_and_gates_keep_the_seed_of_training(tmp_path: Path) -> None:
    path = saved(tmp_path / "deit.pth", vit())
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = build_model(MODEL)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        initialise(model, path, PRESET)
        for name in ("blocks.1.ffn.gates.depth.weight", "heads.semseg.convs.0.weight"):
            assert torch.equal(model.state_dict()[name], before[name])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"blocks.4.norm1.weight": torch.ones(D)}, r"--set model\.depth=5\.$"),
        ({"patch_embed.proj.weight": torch.ones(D, 3, 14, 14)}, r"--set model\.patch_size=14\.$"),
        ({"patch_embed.proj.weight": torch.ones(192, 3, 16, 16),
          "blocks.0.mlp.fc1.weight": torch.ones(768, 192)},
         r"--set model\.embed_dim=192 --set model\.num_heads=3\.$"),
        ({"patch_embed.proj.weight": torch.ones(D, 1, 16, 16)}, r"shape \[24, 1, 16, 16\], preset 'p' needs"),
        ({"blocks.0.mlp.fc1.weight": torch.ones(100, D)}, "hidden width is a multiple of its width"),
        ({"blocks.1.attn.q_norm.weight": torch.ones(8)}, r"a plain ViT does not have: blocks\.1\.attn"),
        ({"reg_token": torch.ones(1, 4, D)}, "a plain ViT does not have: reg_token"),
        ({"blocks.1.attn.q.weight": torch.ones(D, D)}, "lacks a part of the query, key and value weight"),
        ({"blocks.1.mlp.experts.htoh4.weight": torch.ones(2)}, "convert it with edge-moe import m3vit"),
        ({"blocks.2.norm1.bias": torch.full((D,), math.nan)}, r"'blocks\.2\.norm1\.bias' .* NaN"),
        ({"blocks.2.norm1.bias": None}, r"lacks blocks\.2\.norm1\.bias: it is not a whole ViT"),
        ({"pos_embed": None}, "lacks pos_embed"),
        ({"blocks.0.attn.qkv.weight": None}, "is not a ViT or DeiT with names of timm"),
    ],
)  # fmt: skip
def test_other_networks_are_refused(tmp_path: Path, change: dict[str, Tensor | None], sentence: str) -> None:
    state = {name: value for name, value in {**vit(), **change}.items() if value is not None}
    path = saved(tmp_path / "a.pth", state)
    with pytest.raises(EdgeMoEError, match=sentence):
        import_vit(path, preset=PRESET)
    with pytest.raises(EdgeMoEError, match=sentence):
        initialise(build_model(MODEL), path, PRESET)


def test_options_of_other_formats_are_refused(tmp_path: Path) -> None:
    path, out = saved(tmp_path / "a.pth", vit()), tmp_path / "a.pt"
    with pytest.raises(EdgeMoEError, match="give --preset NAME"):
        import_checkpoint("vit", path, out)
    with pytest.raises(EdgeMoEError, match="--allow-missing belongs to m3vit and edge-moe-bin"):
        import_checkpoint("vit", path, out, preset="mini", allow_missing=True)
    with pytest.raises(EdgeMoEError, match="--source-grid belongs to vit and m3vit"):
        import_checkpoint("edge-moe-bin", tmp_path, out, source_grid=(1, 1))
    assert not out.exists()


def test_init_names_what_is_missing(tmp_path: Path) -> None:
    for path, sentence in (
        (tmp_path / "none.pth", "does not exist"),
        (tmp_path, "neither best.pt nor last.pt"),
    ):
        with pytest.raises(EdgeMoEError, match=sentence):
            initialise(build_model(MODEL), path, PRESET)


@pytest.mark.parametrize(
    ("preset", "width", "heads"),
    [("m3vit_tiny_cityscapes", 192, 3), ("m3vit_small_nyud", 384, 6), ("m3vit_base_nyud", 768, 12)],
)
def test_presets_that_the_guide_names_have_the_sizes_of_deit(preset: str, width: int, heads: int) -> None:
    cfg = load_preset(preset).model
    sizes = (cfg.embed_dim, cfg.num_heads, cfg.depth, cfg.patch_size, cfg.mlp_ratio)
    assert sizes == (width, heads, 12, 16, 4)
    assert (cfg.expert_ratio, cfg.num_experts, cfg.top_k) == (2, 16, 2)


def test_commands_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are but for the preset, which is made small, and the data."""
    monkeypatch.chdir(tmp_path)
    torch.save({"model": vit()}, "deit_small.pth")
    save_file(vit(), "model.safetensors")
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    lines = re.findall(
        r"^edge-moe (?:train \S+ .*--init (?:deit|model).*|import vit .*)$", page, re.MULTILINE
    )
    assert len(lines) == 3
    small = [part for override in [*SETS, "train.train_images=16", "train.val_images=1"]
             for part in ("--set", override)]  # fmt: skip
    for number, line in enumerate(lines):
        words = shlex.split(line.replace("nyud:DIR", "scenes"), comments=True)[1:]
        words = ["mini" if word.startswith("m3vit_") else word for word in words] + small
        if words[0] == "train":
            words += ["--max-steps", "1", *([] if "--out" in words else ["--out", f"run{number}"])]
        assert main(words) == 0
    assert {"start.pt", "runs"} <= {path.name for path in tmp_path.iterdir()}
