# SPDX-License-Identifier: Apache-2.0
"""Procedural street scenes with exact labels for every task."""

from edge_moe.scenes.dataset import ScenesDataset
from edge_moe.scenes.render import ALL_TASKS, FAR, RENDERER_VERSION, render_scene

__all__ = ["ALL_TASKS", "FAR", "RENDERER_VERSION", "ScenesDataset", "render_scene"]
