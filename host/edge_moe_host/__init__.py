# SPDX-License-Identifier: Apache-2.0
"""Runs bundles of multi-task mixture-of-experts vision transformers on a board, a CPU or a GPU."""

from edge_moe_host.runtime.accelerator import Accelerator

__all__ = ["Accelerator"]
