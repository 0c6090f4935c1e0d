# SPDX-License-Identifier: Apache-2.0
"""From path.onnx files to a bundle that the accelerator executes.

Imports no torch, and from ``edge_moe`` only configuration, golden and the graph's vocabulary.
"""
