# SPDX-License-Identifier: Apache-2.0
"""Other projects' weights as models of this project: the same function to 1e-5 in float32, or its start."""

from edge_moe.importers.assembly import Imported
from edge_moe.importers.checkpoint import import_checkpoint
from edge_moe.importers.edge_moe_bin import import_edge_moe_bin
from edge_moe.importers.m3vit import import_m3vit
from edge_moe.importers.vit import import_vit, initialise

__all__ = ["Imported", "import_checkpoint", "import_edge_moe_bin", "import_m3vit", "import_vit", "initialise"]
