# SPDX-License-Identifier: Apache-2.0
"""Types and shapes of the tensors between the nodes of ``path.onnx``.

Netron shows them, and onnxruntime plans its memory by them: without them it needs seconds to load a model.
"""

import numpy as np
import onnx
from onnx import helper

from edge_moe.export.nodes import NODES


def describe_tensors(model: onnx.ModelProto) -> None:
    """Add the type and shape [batch, tokens, channels] of every intermediate of a path model."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        for output, kind, size in _outputs(node, sizes):
            sizes[output] = size
            if output not in known:
                value = helper.make_tensor_value_info(output, kind, ["batch", *size])
                model.graph.value_info.append(value)


def _outputs(
    node: onnx.NodeProto, sizes: dict[str, tuple[int, ...]]
) -> list[tuple[str, int, tuple[int, ...]]]:
    """(name, element type, [tokens, channels]) of a node's outputs; none for the map of all pixels."""
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    spec = NODES[node.op_type]
    if node.op_type in ("ClassMap", "PixelValues"):
        return []
    if node.op_type == "PatchEmbedding":
        tokens, channels = sizes[node.input[4]]
    else:
        tokens, channels = sizes[node.input[0]]
    if node.op_type == "Route":
        channels = attributes["top_k"]
    elif node.op_type == "LayerNorm":
        tokens -= attributes["skip"]
    elif node.op_type == "Attention":
        channels //= 3
    elif node.op_type == "Upsample2x":
        tokens = 4 * attributes["height"] * attributes["width"]
    elif spec.inputs[1].name == "weight":
        channels = sizes[node.input[1]][0]
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in spec.outputs]
    return [(name, kind, (tokens, channels)) for name, kind in zip(node.output, kinds, strict=True)]
