# SPDX-License-Identifier: Apache-2.0
"""From path.onnx files to a bundle that the accelerator executes, and what can be said of it beforehand.

Imports no torch, and of ``edge_moe`` only configuration, golden and the graph's vocabulary.
"""
