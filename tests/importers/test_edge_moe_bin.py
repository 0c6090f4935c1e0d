# SPDX-License-Identifier: Apache-2.0
"""Importing Edge-MoE's float32 files, against a NumPy reference that reads the files by their names."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.special import erf

from edge_moe import EdgeMoEError
from edge_moe.checkpoint import load_model
from edge_moe.config import ModelConfig, Preset, load_preset
from edge_moe.importers import import_checkpoint, import_edge_moe_bin
from edge_moe.nn import build_model

TOLERANCE = 1e-5  # of float32 tokens, relative to the largest value of the float64 reference
SMALL = Preset(
    "small",
    ModelConfig(image_size=(16, 32), tasks={"semseg": 3, "depth": 1}, embed_dim=128, num_heads=2, depth=4,
                patch_size=8, num_experts=4, top_k=2, expert_ratio=1, head_channels=8),
)  # fmt: skip


def shapes(cfg):
    """Every file of the format, as documented."""
    D, h, E, P = cfg.embed_dim, cfg.expert_ratio * cfg.embed_dim, cfg.num_experts, cfg.patch_size
    names = {
        "patch_embed_weight": (D, 3, P, P),
        "patch_embed_bias": (D,),
        "pos_embed": (cfg.num_tokens, D),
    }
    for i in range(cfg.depth):
        layer = {"norm1_weight": (D,), "norm1_bias": (D,), "norm2_weight": (D,), "norm2_bias": (D,)}
        layer |= {"qkv_weight": (3 * D, D), "qkv_bias": (3 * D,)}
        layer |= {"attn_proj_weight": (D, D), "attn_proj_bias": (D,)}
        if i % 2 == 0:
            layer |= {"fc1_weight": (4 * D, D), "fc1_bias": (4 * D,)}
            layer |= {"fc2_weight": (D, 4 * D), "fc2_bias": (D,)}
        else:
            layer |= {"htoh4_weight": (E, h, D), "htoh4_bias": (E, h)}
            layer |= {"h4toh_weight": (E, D, h), "h4toh_bias": (E, D)}
            layer |= {f"w_gate_T_task{t}": (E, D) for t in range(len(cfg.tasks))}
        names |= {f"l{i}_{name}": shape for name, shape in layer.items()}
    return names


def write(folder, name, values):
    np.asarray(values).astype("<f4").tofile(folder / f"{name}.float32.bin")


def make_folder(folder, cfg, seed=0):
    """Random files; weights keep the scale of their input, norms scatter around 1."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for name, shape in shapes(cfg).items():
        values = rng.standard_normal(shape, dtype=np.float32)
        if "weight" in name and len(shape) > 1:
            values /= math.sqrt(math.prod(shape[2 if "h4" in name else 1 :]))
        elif "w_gate" in name:
            values *= 2 / math.sqrt(shape[-1])
        elif name != "pos_embed":
            values = values * 0.2 + ("norm" in name and "weight" in name)
        write(folder, name, values)
    write(folder, "image", rng.random((3, *cfg.image_size)))
    return folder


def reference(folder, cfg, task_number):
    """Encoder tokens [N, D] for the folder's image, in float64, token by token in the MoE blocks."""
    w = {
        name: np.fromfile(folder / f"{name}.float32.bin", "<f4").reshape(shape).astype(np.float64)
        for name, shape in {**shapes(cfg), "image": (3, *cfg.image_size)}.items()
    }
    D, P, heads = cfg.embed_dim, cfg.patch_size, cfg.num_heads

    def gelu(x):
        return 0.5 * x * (1 + erf(x / math.sqrt(2)))

    def softmax(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w[f"{name}_weight"] + w[f"{name}_bias"]

    def linear(name, x):
        return x @ w[f"{name}_weight"].T + w[f"{name}_bias"]

    x = w["pos_embed"].copy()  # row 0 is CLS, already complete
    rows, columns = cfg.grid_size
    for r in range(rows):
        for c in range(columns):
            patch = w["image"][:, r * P : (r + 1) * P, c * P : (c + 1) * P]
            pixels = (w["patch_embed_weight"] * patch).sum((1, 2, 3))
            x[1 + r * columns + c] += pixels + w["patch_embed_bias"]
    for i in range(cfg.depth):
        q, k, v = np.split(linear(f"l{i}_qkv", norm(f"l{i}_norm1", x)), 3, axis=1)
        mixed = np.zeros_like(x)
        for h in range(heads):
            part = slice(64 * h, 64 * (h + 1))
            mixed[:, part] = softmax(q[:, part] @ k[:, part].T / 8) @ v[:, part]
        x = x + linear(f"l{i}_attn_proj", mixed)
        y = norm(f"l{i}_norm2", x)
        if i % 2 == 0:
            x = x + linear(f"l{i}_fc2", gelu(linear(f"l{i}_fc1", y)))
            continue
        for t in range(len(x)):
            scores = softmax(w[f"l{i}_w_gate_T_task{task_number}"] @ y[t])
            for e in np.argsort(-scores)[: cfg.top_k]:
                hidden = gelu(w[f"l{i}_htoh4_weight"][e] @ y[t] + w[f"l{i}_htoh4_bias"][e])
                x[t] += scores[e] * (w[f"l{i}_h4toh_weight"][e] @ hidden + w[f"l{i}_h4toh_bias"][e])
    assert x.shape == (cfg.num_tokens, D)
    return x


def assert_same_function(imported, folder):
    cfg = imported.preset.model
    model = build_model(cfg).eval()
    model.load_state_dict(imported.state)
    tokens = {}
    for task, head in model.heads.items():
        head.register_forward_pre_hook(lambda _, args, task=task: tokens.__setitem__(task, args[0]))
    with torch.no_grad():
        output = model(imported.image[None])
    assert list(tokens) == list(cfg.tasks)
    expected = [reference(folder, cfg, number) for number in range(len(tokens))]
    assert np.abs(expected[0] - expected[1]).max() > 1e-2  # the gates do differ
    for task, wanted in zip(tokens, expected, strict=True):
        error = np.abs(tokens[task][0].numpy() - wanted).max() / np.abs(wanted).max()
        assert error <= TOLERANCE, (task, float(error))
        assert output.predictions[task].isfinite().all()


def test_small_model_is_the_same_function(tmp_path):
    folder = make_folder(tmp_path / "weights", SMALL.model)
    imported = import_edge_moe_bin(folder, preset=SMALL)
    cfg = imported.preset.model
    assert (cfg.routing, cfg.pixel_mean, cfg.pixel_std) == ("multi_gate", (0, 0, 0), (1, 1, 1))
    assert torch.count_nonzero(imported.state["cls_token"]) == 0
    assert imported.filled
    assert all(name.startswith("heads.") for name in imported.filled)
    assert "semseg, depth are initialised" in imported.notes[0]
    assert_same_function(imported, folder)


def test_published_dimensions_are_the_default(tmp_path):
    cfg = load_preset("m3vit_tiny_cityscapes").model
    wanted = shapes(cfg)
    assert wanted["patch_embed_weight"] == (192, 3, 16, 16)
    assert wanted["pos_embed"] == (129, 192)
    assert wanted["l0_fc1_weight"] == (768, 192)
    assert wanted["l0_qkv_weight"] == (576, 192)
    assert wanted["l11_htoh4_weight"] == (16, 384, 192)
    assert wanted["l11_h4toh_weight"] == (16, 192, 384)
    assert wanted["l11_w_gate_T_task1"] == (16, 192)
    folder = make_folder(tmp_path / "weights", cfg)
    imported = import_edge_moe_bin(folder)
    assert dict(imported.preset.model.tasks) == {"semseg": 7, "depth": 1}
    assert_same_function(imported, folder)
    out = tmp_path / "imported.pt"
    report = import_checkpoint("edge-moe-bin", folder, out, tasks=["semseg", "depth"])
    assert f"{len(imported.filled)} parameters were missing" in report
    model, preset, _ = load_model(out)
    assert preset == imported.preset
    state = model.state_dict()
    assert all(torch.equal(state[name], imported.state[name]) for name in state)


def test_tasks_are_mapped_in_the_order_given(tmp_path):
    folder = make_folder(tmp_path / "weights", SMALL.model)
    imported = import_edge_moe_bin(folder, preset=SMALL, tasks={"edge": 1, "semseg": 5})
    assert dict(imported.preset.model.tasks) == {"edge": 1, "semseg": 5}
    for number, task in enumerate(("edge", "semseg")):
        gate = np.fromfile(folder / f"l3_w_gate_T_task{number}.float32.bin", "<f4").reshape(4, 128)
        assert np.array_equal(imported.state[f"blocks.3.ffn.gates.{task}.weight"].numpy(), gate)
    assert_same_function(imported, folder)


def test_missing_files_are_named_or_filled(tmp_path):
    folder = make_folder(tmp_path / "weights", SMALL.model)
    complete = import_edge_moe_bin(folder, preset=SMALL).state
    gone = ["l1_htoh4_weight.float32.bin", "l2_norm2_bias.float32.bin", "l3_w_gate_T_task1.float32.bin"]
    for name in gone:
        (folder / name).unlink()
    with pytest.raises(EdgeMoEError, match="lacks") as error:
        import_edge_moe_bin(folder, preset=SMALL)
    assert all(name in str(error.value) for name in gone)
    imported = import_edge_moe_bin(folder, preset=SMALL, allow_missing=True)
    filled = [name for name in imported.filled if not name.startswith("heads.")]
    assert filled == [
        "blocks.1.ffn.experts.weight1",
        "blocks.2.norm2.bias",
        "blocks.3.ffn.gates.depth.weight",
    ]
    assert any(all(name in note for name in gone) for note in imported.notes)
    kept = [name for name in complete if name not in filled]
    assert all(torch.equal(imported.state[name], complete[name]) for name in kept)
    again = import_edge_moe_bin(folder, preset=SMALL, allow_missing=True).state
    assert all(torch.equal(imported.state[name], again[name]) for name in again)


@pytest.mark.parametrize("extra", [-4, -1, 4])
@pytest.mark.parametrize("name", ["l0_fc1_weight", "pos_embed", "image"])
def test_wrongly_sized_files_are_named(tmp_path, name, extra):
    folder = make_folder(tmp_path / "weights", SMALL.model)
    file = folder / f"{name}.float32.bin"
    data = file.read_bytes()
    file.write_bytes(data[:extra] if extra < 0 else data + bytes(extra))
    with pytest.raises(EdgeMoEError) as error:
        import_edge_moe_bin(folder, preset=SMALL)
    message = str(error.value)
    assert f"'{file}' has {len(data) + extra} bytes" in message
    assert f"needs {len(data)}" in message
    imported = import_edge_moe_bin(folder, preset=SMALL, allow_missing=True)
    assert any(f"{file.name} ({len(data) + extra} bytes instead of {len(data)})" in n for n in imported.notes)
    assert (imported.image is None) == (name == "image")


def test_other_files_are_noted_and_the_image_is_optional(tmp_path):
    folder = make_folder(tmp_path / "weights", SMALL.model)
    write(folder, "l3_x_post_moe", np.zeros((9, 128)))
    (folder / "README.md").write_text("words", encoding="utf-8")
    (folder / "image.float32.bin").unlink()
    imported = import_edge_moe_bin(folder, preset=SMALL)
    assert imported.image is None
    assert imported.notes[-1] == "not used: l3_x_post_moe.float32.bin."


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["l1_h4toh_bias", "image"])
def test_values_must_be_finite(tmp_path, name, value):
    folder = make_folder(tmp_path / "weights", SMALL.model)
    file = folder / f"{name}.float32.bin"
    data = np.fromfile(file, "<f4")
    data[5] = value
    write(folder, name, data)
    with pytest.raises(EdgeMoEError, match=re.escape(f"'{name}' in '{folder}' holds NaN or infinite")):
        import_edge_moe_bin(folder, preset=SMALL)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("l2_htoh4_bias", "makes block 2 an MoE block, but it is even"),
        ("l0_w_gate_T_task0", "makes block 0 an MoE block, but it is even"),
        ("l1_fc2_weight", "makes block 1 a dense block, but it is odd"),
        ("l4_fc1_bias", "is of block 4: the model has 4 blocks"),
        ("l3_w_gate_T_task2", "is the gate of task number 2, but only 2 tasks are given (semseg, depth)"),
    ],
)
@pytest.mark.parametrize("allow_missing", [False, True])
def test_files_of_another_model_are_refused(tmp_path, name, sentence, allow_missing):
    folder = make_folder(tmp_path / "weights", SMALL.model)
    write(folder, name, np.zeros(4))
    with pytest.raises(EdgeMoEError, match=re.escape(sentence)) as error:
        import_edge_moe_bin(folder, preset=SMALL, allow_missing=allow_missing)
    assert f"{name}.float32.bin" in str(error.value)


def test_more_tasks_than_gates(tmp_path):
    folder = make_folder(tmp_path / "weights", SMALL.model)
    tasks = {"semseg": 3, "depth": 1, "edge": 1}
    with pytest.raises(EdgeMoEError, match=r"lacks l1_w_gate_T_task2\.float32\.bin, l3_w_gate_T_task2"):
        import_edge_moe_bin(folder, preset=SMALL, tasks=tasks)
    with pytest.raises(EdgeMoEError, match="at least one task"):
        import_edge_moe_bin(folder, preset=SMALL, tasks={})


def test_wrong_folders_and_presets(tmp_path):
    with pytest.raises(EdgeMoEError, match="does not exist"):
        import_edge_moe_bin(tmp_path / "none")
    with pytest.raises(EdgeMoEError, match=r"holds no file NAME\.float32\.bin"):
        import_edge_moe_bin(tmp_path)
    folder = make_folder(tmp_path / "weights", SMALL.model)
    with pytest.raises(EdgeMoEError, match="does not fit Edge-MoE's format"):
        import_edge_moe_bin(folder, preset=load_preset("mini"))
    with pytest.raises(EdgeMoEError, match=r"patch_embed_weight\.float32\.bin' has 98304 bytes"):
        import_edge_moe_bin(folder)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "l0_norm1_bias.float32.bin").symlink_to(tmp_path / "gone")
    (tmp_path / "._l0_norm1_bias.float32.bin").touch()  # of a Mac
    with pytest.raises(EdgeMoEError, match=r"cannot read .*l0_norm1_bias\.float32\.bin': No such file"):
        import_edge_moe_bin(tmp_path, allow_missing=True)
    with pytest.raises(EdgeMoEError, match="File name too long"):
        import_edge_moe_bin("x" * 5000)
