# SPDX-License-Identifier: Apache-2.0
"""Configurations of networks that are exported, and damage to their graphs."""

from onnx import numpy_helper

from edge_moe.config import ModelConfig


def config(**changes):
    base = {
        "image_size": (32, 48), "tasks": {"semseg": 5, "depth": 1}, "embed_dim": 24, "num_heads": 3,
        "depth": 2, "num_experts": 3, "top_k": 1, "head_channels": 8,
    }  # fmt: skip
    return ModelConfig(**{**base, **changes})


ALL_TASKS = {"semseg": 3, "human_parts": 2, "saliency": 1, "normals": 3, "edge": 1, "depth": 1}
CONFIGS = {
    "three experts": config(),
    "many keys": config(image_size=(64, 96), patch_size=8, embed_dim=40, num_heads=2, num_experts=5, top_k=4),
    "one token": config(image_size=(16, 16), cls_token=False, embed_dim=16, num_heads=1, top_k=3),
    "no cls": config(cls_token=False, num_experts=4, top_k=2, expert_ratio=1),
    "dense": config(routing="dense", head="pup", mlp_ratio=2),
    "single gate": config(routing="single_gate", depth=4, num_experts=2, top_k=2),
}


def corrupt(model, name, change):
    """Add ``change`` to the first entry of an initialiser."""
    tensor = next(entry for entry in model.graph.initializer if entry.name == name)
    value = numpy_helper.to_array(tensor).copy()
    value.flat[0] += change
    tensor.CopyFrom(numpy_helper.from_array(value, name))
