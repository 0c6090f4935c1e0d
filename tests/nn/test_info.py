# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edge_moe.config import load_preset, preset_names
from edge_moe.info import describe, encoder_cost, head_cost, model_cost, task_cost
from edge_moe.nn import build_model

ROUTINGS = ["dense", "single_gate", "multi_gate", "task_conditioned"]


def test_published_figures():
    """Liang et al. 2022, table 1 (MACs of one task, encoder and decoder), and the Cityscapes encoder."""
    for name, gmac in {"m3vit_small_nyud": 100, "m3vit_small_pascal": 84}.items():
        cfg = load_preset(name).model
        assert task_cost(cfg, "semseg").macs / 1e9 == pytest.approx(gmac, abs=1.0)
    tiny = load_preset("m3vit_tiny_cityscapes").model
    assert encoder_cost(tiny).macs / 1e9 == pytest.approx(0.783, abs=1e-3)
    names = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight", "weight1", "weight2")
    blocks = build_model(tiny).blocks.named_parameters()
    assert sum(p.numel() for name, p in blocks if name.endswith(names)) / 1e6 == pytest.approx(17.7, abs=0.01)
    pup = load_preset("m3vit_tiny_cityscapes", ["model.head=pup", "model.head_channels=256"]).model
    assert head_cost(pup, "semseg").macs / 1e9 == pytest.approx(6.4, abs=0.1)


@pytest.mark.parametrize("name", [name for name in preset_names() if "base" not in name])
def test_dense_twin_has_the_same_cost_but_for_the_gates(name):
    cfg = load_preset(name).model
    twin = cfg.dense_twin()
    gates = len(cfg.moe_blocks) * cfg.num_tokens * cfg.embed_dim * cfg.num_experts
    assert encoder_cost(cfg).macs - encoder_cost(twin).macs == gates


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("extra", [[], ["model.cls_token=false", "model.head=pup", "model.top_k=3"]])
def test_counts_equal_the_real_model(routing, extra):
    cfg = load_preset("mini", [f"model.routing={routing}", *extra]).model
    model = build_model(cfg).eval()
    assert model_cost(cfg).params == sum(p.numel() for p in model.parameters())
    image = torch.zeros(1, 3, *cfg.image_size)
    for tasks, cost in ((["depth"], task_cost(cfg, "depth")), (list(cfg.tasks), model_cost(cfg))):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model(image, tasks)
        assert counter.get_total_flops() == 2 * cost.macs


def test_description_has_one_row_per_task():
    text = describe(load_preset("m3vit_small_nyud"))
    for task in ("semseg", "depth", "normals", "edge", "all tasks"):
        assert sum(line.startswith(task) for line in text.splitlines()) == 1
