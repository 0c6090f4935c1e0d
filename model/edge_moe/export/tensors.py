# SPDX-License-Identifier: Apache-2.0
"""Types and shapes of the tensors between the nodes of ``path.onnx``.

Netron shows them, and onnxruntime plans its memory by them: without them it needs seconds to load a model.
"""

import onnx
from onnx import TensorProto, helper

ELEMENT_TYPES = {
    "PatchEmbedding": TensorProto.INT16,
    "LayerNorm": TensorProto.INT8,
    "Linear": TensorProto.INT8,
    "LinearInt16": TensorProto.INT16,
    "LinearResidual": TensorProto.INT16,
    "LinearGelu": TensorProto.INT8,
    "Attention": TensorProto.INT8,
    "GateLogits": TensorProto.INT32,
    "Experts": TensorProto.INT16,
    "Conv3x3": TensorProto.INT8,
    "Upsample2x": TensorProto.INT8,
}
LINEARS = ("Linear", "LinearInt16", "LinearResidual", "LinearGelu", "GateLogits")


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
    first = node.output[0]
    if node.op_type in ("ClassMap", "PixelValues"):
        return []
    if node.op_type == "PatchEmbedding":
        return [(first, ELEMENT_TYPES[node.op_type], sizes[node.input[4]])]
    tokens, channels = sizes[node.input[0]]
    if node.op_type == "Route":
        size = tokens, attributes["top_k"]
        return [(first, TensorProto.INT32, size), (node.output[1], TensorProto.INT16, size)]
    if node.op_type == "LayerNorm":
        tokens -= attributes["skip"]
    elif node.op_type in (*LINEARS, "Conv3x3"):
        channels = sizes[node.input[1]][0]
    elif node.op_type == "Attention":
        channels //= 3
    elif node.op_type == "Upsample2x":
        tokens = 4 * attributes["height"] * attributes["width"]
    return [(first, ELEMENT_TYPES[node.op_type], (tokens, channels))]
