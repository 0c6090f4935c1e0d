# SPDX-License-Identifier: Apache-2.0
"""``edge-moe demo``: train, quantise, compile, run on every backend, and report."""
