# SPDX-License-Identifier: Apache-2.0
"""Speed and accuracy in comparison: ``edge-moe bench`` and ``edge-moe ablate``."""
