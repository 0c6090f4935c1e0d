# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation: from a float checkpoint to an integer network."""
