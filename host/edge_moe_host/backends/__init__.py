# SPDX-License-Identifier: Apache-2.0
"""Backends of :class:`edge_moe_host.runtime.accelerator.Accelerator` that come with the host runtime."""
