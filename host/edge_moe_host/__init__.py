# SPDX-License-Identifier: Apache-2.0
"""Host runtime: runs on the board too, so it imports neither torch nor edge_moe."""
