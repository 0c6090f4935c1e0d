# SPDX-License-Identifier: Apache-2.0
"""The main graph of a path.onnx as checked nodes: the compiler's only input. SPEC.md, section 6."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from edge_moe.config import ModelConfig
from edge_moe.export.graph import DOMAIN
from edge_moe.export.nodes import NODES, Input
from edge_moe.export.path import path_metadata, read_path_model
from edge_moe.tasks import TASKS
from edge_moe_host.config import from_dict
from edge_moe_host.errors import EdgeMoEError, reason


@dataclass(frozen=True, eq=False)
class Node:
    """A node that has exactly the inputs and attributes of its op."""

    op: str
    name: str
    tensors: dict[str, str]  # input -> its computed tensor
    constants: dict[str, np.ndarray]
    attributes: dict[str, Any]
    outputs: tuple[str, ...]

    def require(self, condition: bool, rule: str) -> None:
        """EdgeMoEError naming this node unless ``condition`` holds."""
        if not condition:
            raise EdgeMoEError(f"node '{self.name}' ({self.op}) cannot be compiled: {rule}.")


@dataclass(frozen=True)
class Notes:
    """The metadata that is copied to the bundle's manifest: each entry may be absent."""

    classes: list[tuple[str, list[int]]] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    expert_ids: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PathGraph:
    """One task's graph. ``consumers``: tensor -> the nodes that read it, in order."""

    source: str
    task: str
    config: ModelConfig
    output_scale: float
    notes: Notes
    nodes: tuple[Node, ...]
    consumers: dict[str, tuple[Node, ...]]


def read_path(path: Path) -> PathGraph:
    """Read and check a path.onnx; EdgeMoEError names the unsupported part and what is supported."""
    try:
        return parse_path(read_path_model(Path(path)), f"'{path}'")
    except UnicodeDecodeError:  # protobuf decodes names on access
        raise _no_text(f"'{path}'") from None


def _no_text(source: str) -> EdgeMoEError:
    return EdgeMoEError(f"{source} is damaged, a name in it is not text: export the model again.")


def parse_path(model: onnx.ModelProto, source: str) -> PathGraph:
    """The checked graph of a model in memory; ``source`` names it in errors."""
    metadata = path_metadata(model, source)
    config: ModelConfig = from_dict(ModelConfig, metadata["config"], "model")
    task = metadata["task"]
    if config.hash() != metadata["config_hash"]:
        raise EdgeMoEError(f"the configuration in {source} does not match its hash: export the model again.")
    if task not in TASKS or task not in config.tasks:
        raise EdgeMoEError(f"{source} is for the task {task!r}, which its configuration does not have.")
    scale = metadata["output_scale"]
    if not isinstance(scale, float) or not 0 < scale < float("inf"):
        raise EdgeMoEError(f"output_scale = {scale!r} of {source} is not allowed: it must be positive.")
    own = {key: metadata[key] for key in ("classes", "scales", "expert_ids") if key in metadata}
    notes: Notes = from_dict(Notes, own, place=f"the metadata of {source}", natural=True)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    known = {value.name: "uint8" for value in model.graph.input if value.name not in constants}
    nodes = []
    for proto in model.graph.node:
        node, dtypes = _node(proto, constants, known, source)
        for name, dtype in zip(node.outputs, dtypes, strict=True):
            node.require(name not in known, f"the tensor '{name}' is made twice")
            known[name] = dtype
        nodes.append(node)
    return PathGraph(source, task, config, scale, notes, tuple(nodes), _consumers(nodes))


def _consumers(nodes: Sequence[Node]) -> dict[str, tuple[Node, ...]]:
    result: dict[str, tuple[Node, ...]] = {}
    for node in nodes:
        for name in node.tensors.values():
            result[name] = (*result.get(name, ()), node)
    return result


def _node(
    proto: onnx.NodeProto, constants: dict[str, onnx.TensorProto], known: dict[str, str], source: str
) -> tuple[Node, tuple[str, ...]]:
    """A checked node, and the dtypes of its outputs."""
    names = [proto.name, proto.domain, proto.op_type, *proto.input, *proto.output]
    if not all(isinstance(name, str) for name in names):  # protobuf returns names that are not text as bytes
        raise _no_text(source)
    if proto.domain != DOMAIN or proto.op_type not in NODES:
        title = f"{proto.domain or 'ai.onnx'}.{proto.op_type}"
        raise EdgeMoEError(
            f"node '{proto.name or ', '.join(proto.output)}' of {source} is {title}, which the accelerator "
            f"cannot run: supported are {', '.join(NODES)} of the domain {DOMAIN}."
        )
    spec = NODES[proto.op_type]
    node = Node(proto.op_type, proto.name or proto.output[0], {}, {}, _attributes(proto), tuple(proto.output))
    wanted = {*spec.integers, *spec.lists}
    node.require(
        set(node.attributes) == wanted
        and all(isinstance(node.attributes[name], int) for name in spec.integers)
        and all(isinstance(node.attributes[name], list) for name in spec.lists),
        f"its attributes must be {', '.join(sorted(wanted)) or 'none'}, integers",
    )
    node.require(len(proto.input) == len(spec.inputs), f"it must have {len(spec.inputs)} inputs")
    node.require(len(proto.output) == len(spec.outputs), f"it must have {len(spec.outputs)} outputs")
    for item, name in zip(spec.inputs, proto.input, strict=True):
        if item.rank is None:
            node.require(
                known.get(name) == item.dtype,
                f"its input {item.name} ('{name}') must be an {item.dtype} tensor that an earlier node makes",
            )
            node.tensors[item.name] = name
        else:
            node.require(name in constants, f"its {item.name} ('{name}') must be a constant")
            node.constants[item.name] = _constant(node, item, constants[name])
    return node, spec.outputs


def _attributes(proto: onnx.NodeProto) -> dict[str, Any]:
    return {
        attribute.name: helper.get_attribute_value(attribute)
        if attribute.type in (AttributeProto.INT, AttributeProto.INTS)
        else None
        for attribute in proto.attribute
    }


def _constant(node: Node, item: Input, tensor: onnx.TensorProto) -> np.ndarray:
    try:
        value: np.ndarray = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, onnx.checker.ValidationError) as error:
        title = f"constant '{tensor.name}' of node '{node.name}'"
        raise EdgeMoEError(f"{title} is damaged: {reason(error)}.") from None
    node.require(
        value.dtype.name == item.dtype and value.ndim == item.rank and value.size > 0,
        f"its {item.name} is {value.dtype.name} {list(value.shape)} where {item.dtype} of {item.rank} "
        "dimension(s) is needed",
    )
    return value
