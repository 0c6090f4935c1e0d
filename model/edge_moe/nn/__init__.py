# SPDX-License-Identifier: Apache-2.0
"""M3ViT in plain PyTorch."""

from edge_moe.nn.m3vit import M3ViT, ModelOutput, build_model
from edge_moe.nn.moe import Routing
from edge_moe.nn.upcycle import check_weights, load_dense_weights

__all__ = ["M3ViT", "ModelOutput", "Routing", "build_model", "check_weights", "load_dense_weights"]
