# SPDX-License-Identifier: Apache-2.0
"""Multi-task mixture-of-experts vision transformers, from PyTorch to an integer accelerator."""

from edge_moe_host.errors import EdgeMoEError

__all__ = ["EdgeMoEError", "__version__"]
__version__ = "0.1.0"
