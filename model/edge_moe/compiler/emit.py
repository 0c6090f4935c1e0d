# SPDX-License-Identifier: Apache-2.0
"""From one task's graph to its program: turns each node of SPEC.md, section 6, into instructions."""

import math
from collections.abc import Callable

import numpy as np

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.compiler import layers, weights
from edge_moe.compiler.instructions import Emitter, Value, spread
from edge_moe.compiler.read_graph import Node, PathGraph
from edge_moe.compiler.weights import WeightImage
from edge_moe.tasks import TASKS
from edge_moe_host.contract import layout
from edge_moe_host.contract.encoding import encode
from edge_moe_host.contract.isa import Epilogue, ExpertEntry, Opcode
from edge_moe_host.contract.layout import SHIFT_LIMIT, TILE, tiles
from edge_moe_host.contract.manifest import Output
from edge_moe_host.contract.opcodes import EXPERT_SECTION
from edge_moe_host.golden.arithmetic import INT8_MAX, INT8_MIN
from edge_moe_host.golden.operators import FFN, Linear


def patch_embedding(low: Emitter, node: Node) -> None:
    """Patches, the position table as residual stream, then a linear added to it.

    In this order the first weights arrive at the same time as the image.
    """
    height, width = low.graph.config.image_size
    p, position = node.attributes["patch_size"], node.constants["position"]
    node.require(p == low.graph.config.patch_size, f"patch_size = {p} is not the configuration's")
    patches = (height // p) * (width // p)
    layer = layers.linear(node, 3 * p * p)
    tokens, D = position.shape
    node.require(
        tokens - patches in (0, 1) and len(layer.weight) == D,
        f"position {list(position.shape)} does not fit {patches} patches",
    )
    rows = low.make(f"{node.outputs[0]}.patches", "int8", patches, 3 * p * p)
    size = {"rows": patches, "out_channels": rows.channels, "height": height, "width": width, "patch": p}
    low.emit(Opcode.PATCHES, node, {"dst": (rows, 0)}, size)
    out = low.make(node.outputs[0], "int16", tokens, D)
    block = ("position", weights.row_block(position))
    low.emit(Opcode.LOAD, node, {"dst": (out, 0)}, {"rows": tokens, "out_channels": D}, block)
    _linear(low, node, layer, rows, out, Epilogue.RESIDUAL, skip=tokens - patches)


def layernorm(low: Emitter, node: Node) -> None:
    """int16 rows to int8 rows."""
    x, skip = low.input(node, "x"), node.attributes["skip"]
    norm = layers.layernorm(node, x.channels)
    node.require(0 <= skip < x.rows, f"skip = {skip} of {x.rows} tokens")
    out = low.make(node.outputs[0], "int8", x.rows - skip, x.channels)
    fields = {"rows": out.rows, "in_channels": x.channels, "shift": norm.shift, "epsilon": norm.epsilon}
    block = (node.name, weights.parameter_block(norm.beta, norm.gamma))
    low.emit(Opcode.LAYERNORM, node, {"src": (x, skip), "dst": (out, 0)}, fields, block)
    low.define(node.outputs[0], out)


def _linear(
    low: Emitter,
    node: Node,
    layer: Linear,
    x: Value,
    out: Value,
    epilogue: Epilogue,
    skip: int = 0,
    **gelu: int,
) -> None:
    """LINEAR, whose rows are written after the first ``skip`` of ``out``, the node's result."""
    weight = spread(spread(layer.weight, x.group, x.stored, 1), out.group, out.stored, 0)
    bias, multiplier = (spread(a, out.group, out.stored, 0) for a in (layer.bias, layer.multiplier))
    block = (node.name, weights.linear_block(weight, bias, multiplier, layer.bits))
    fields = {"epilogue": epilogue, "out_channels": out.width, "weight_bits": layer.bits}
    fields |= {"shift": layer.shift, **gelu}
    low.emit_parts(Opcode.LINEAR, node, x, out, low.limits["accumulator_rows"], fields, block, skip=skip)
    low.define(node.outputs[0], out)


def linear(low: Emitter, node: Node, epilogue: Epilogue = Epilogue.REQUANTISE) -> None:
    """int8 rows to int8 or int16 rows; a linear before attention gives heads of whole tiles."""
    x = low.input(node, "x", plain=False)
    layer = layers.linear(node, x.channels)
    out, kind = len(layer.weight), "int16" if epilogue is Epilogue.INT16 else "int8"
    group = _head_size(low, node, out)
    value = low.make(node.outputs[0], kind, x.rows, out, group, TILE * tiles(group) if group else 0)
    _linear(low, node, layer, x, value, epilogue)


def _head_size(low: Emitter, node: Node, channels: int) -> int:
    """Channels of a head if only attention reads the node's result, else 0."""
    users = low.graph.consumers.get(node.outputs[0], ())
    if not users or any(user.op != "Attention" for user in users):
        return 0
    heads = users[0].attributes["heads"]
    users[0].require(
        heads >= 1 and channels % (3 * heads) == 0 and len(users) == 1,
        f"{channels} channels are not q, k and v of {heads} heads for it alone",
    )
    return int(channels // (3 * heads))


def linear_residual(low: Emitter, node: Node) -> None:
    """int8 rows, added to the residual stream in place."""
    x, out = low.input(node, "x", plain=False), low.update_in_place(node)
    layer = layers.linear(node, x.channels)
    node.require((x.rows, len(layer.weight)) == (out.rows, out.channels), "it does not fit the residual")
    _linear(low, node, layer, x, out, Epilogue.RESIDUAL)


def linear_gelu(low: Emitter, node: Node) -> None:
    """int8 rows to int8 rows between an FFN's linears."""
    x = low.input(node, "x", plain=False)
    ffn = layers.ffn(node, x.channels)
    out = low.make(node.outputs[0], "int8", x.rows, len(ffn.fc1.weight))
    gelu = {"multiplier": ffn.gelu_multiplier, "shift2": ffn.gelu_shift, "zero_point": ffn.zero_point}
    _linear(low, node, ffn.fc1, x, out, Epilogue.GELU, **gelu)


def attention(low: Emitter, node: Node) -> None:
    """Heads in whole tiles: if a head has fewer channels, zeros fill q, k, v and the result."""
    qkv, heads = low.input(node, "qkv", plain=False), node.attributes["heads"]
    logit, multiplier = node.constants["logit_multiplier"], node.constants["out_multiplier"]
    head, stored = qkv.group, qkv.stored
    node.require(
        qkv.channels == 3 * heads * head and stored % TILE == 0,
        "q, k and v must come from one Linear that nothing else reads",
    )
    D = heads * head
    node.require(
        logit.shape == (heads,) and multiplier.shape == (D,),
        f"logit_multiplier must have {heads} entries and out_multiplier {D}",
    )
    node.require(min(int(logit.min()), int(multiplier.min())) >= 0, "a multiplier is negative")
    shifts = {
        field: layers.in_range(node, name, node.attributes[name], 1, SHIFT_LIMIT)
        for field, name in (("shift", "logit_shift"), ("shift2", "out_shift"))
    }
    out = low.make(node.outputs[0], "int8", qkv.rows, D, head, stored)
    block = (
        node.name,
        weights.parameter_block(np.repeat(logit, stored), spread(multiplier, head, stored, 0)),
    )
    limit = low.limits["accumulator_rows"] // tiles(stored)
    fields = {"keys": qkv.rows, "heads": heads, "out_channels": out.width, **shifts}
    low.emit_parts(Opcode.ATTENTION, node, qkv, out, limit, fields, block, whole=True)
    low.define(node.outputs[0], out)


def gate_logits(low: Emitter, node: Node) -> None:
    """Emit nothing yet: the node becomes one instruction with the Route node after it."""
    users = low.graph.consumers.get(node.outputs[0], ())
    node.require(len(users) == 1, "its logits must go to one Route node")
    low.gates[node.outputs[0]] = (node, low.input(node, "x"))


def route(low: Emitter, node: Node) -> None:
    """Logits, choice and scores in one instruction; routing rows are its result."""
    name = node.tensors["logits"]
    source, x = low.gates[name]
    gate = layers.gate(source, node, x.channels)
    experts = len(gate.weight)
    out = low.make(f"{node.name}.routing", "routing", x.rows, gate.top_k)
    low.routed[out.buffer.name] = experts
    limit = low.limits["accumulator_rows"] // layout.PAIR // layout.gate_tiles(experts) * layout.PAIR
    fields = {"experts": experts, "top_k": gate.top_k, "multiplier": gate.multiplier, "shift": gate.shift}
    low.emit_parts(Opcode.GATE, node, x, out, limit, fields, (source.name, weights.gate_block(gate)))
    low.note(name, "logits", Value(out.buffer, out.kind, x.rows, experts, experts, experts))
    for output, kind in zip(node.outputs, ("expert", "score"), strict=True):
        low.define(output, out, kind)


def experts(low: Emitter, node: Node) -> None:
    """Results of each row's experts, added to the residual stream in place."""
    x, out = low.input(node, "x"), low.update_in_place(node)
    routing = low.input(node, "expert")
    node.require(routing is low.input(node, "score"), "expert and score must come from one Route node")
    node.require(
        (x.rows, x.channels) == (out.rows, out.channels) and routing.rows == x.rows,
        "its inputs differ in their tokens or channels",
    )
    ffns = layers.experts(node, x.channels)
    node.require(
        low.routed[routing.buffer.name] == len(ffns),
        f"its gate does not choose among its {len(ffns)} experts",
    )
    table = b"".join(encode(_entry(low, f"{node.name}.expert{index}", ffn)) for index, ffn in enumerate(ffns))
    hidden = low.make(f"{node.name}.hidden", "int8", x.rows, len(ffns[0].fc1.weight))
    low.emit(
        Opcode.EXPERTS,
        node,
        {"src": (x, 0), "dst": (out, 0), "routing": (routing, 0), "hidden": (hidden, 0)},
        {
            "rows": x.rows,
            "in_channels": x.channels,
            "out_channels": out.channels,
            "hidden_channels": hidden.channels,
            "experts": len(ffns),
            "top_k": routing.channels,
        },
        (f"{node.name}.experts", table + bytes(-len(table) % layout.PLANE)),
    )
    low.define(node.outputs[0], out)


def _entry(low: Emitter, name: str, ffn: FFN) -> ExpertEntry:
    """An expert's entry in the table; its block joins the image."""
    return ExpertEntry(
        **low.section(EXPERT_SECTION, name, weights.expert_block(ffn.fc1, ffn.fc2)),
        bits1=ffn.fc1.bits,
        bits2=ffn.fc2.bits,
        shift1=ffn.fc1.shift,
        shift2=ffn.fc2.shift,
        gelu_shift=ffn.gelu_shift,
        gelu_multiplier=ffn.gelu_multiplier,
        zero_point=ffn.zero_point,
    )


def _map(low: Emitter, node: Node) -> tuple[Value, dict[str, int]]:
    """The rows of the map that a node reads, and its height and width."""
    x, size = low.input(node, "x"), {name: node.attributes[name] for name in ("height", "width")}
    node.require(
        min(size.values()) >= 1 and math.prod(size.values()) == x.rows,
        f"a map of {size['height']}x{size['width']} is not its input's {x.rows} rows",
    )
    return x, size


def conv3x3(low: Emitter, node: Node) -> None:
    """A convolution in parts of whole lines of the map."""
    x, size = _map(low, node)
    node.require(node.constants["weight"].shape[1:3] == (3, 3), "its weight must be [out, 3, 3, in]")
    layer = layers.linear(node, x.channels)
    out = low.make(node.outputs[0], "int8", x.rows, len(layer.weight))
    taps = spread(layer.weight, x.channels, TILE * tiles(x.channels), 3).reshape(out.channels, -1)
    block = (node.name, weights.linear_block(taps, layer.bias, layer.multiplier, layer.bits))
    pad = layers.in_range(node, "pad", node.attributes["pad"], INT8_MIN, INT8_MAX)
    fields = {"out_channels": out.channels, "shift": layer.shift, "weight_bits": layer.bits, "pad": pad}
    limit, unit = low.limits["accumulator_rows"], size["width"]
    low.emit_parts(Opcode.CONV3X3, node, x, out, limit, {**size, **fields}, block, unit=unit, whole=True)
    low.define(node.outputs[0], out)


def upsample2x(low: Emitter, node: Node) -> None:
    """A map at twice the size along each axis."""
    x, size = _map(low, node)
    out = low.make(node.outputs[0], "int8", 4 * x.rows, x.channels)
    places = {"src": (x, 0), "dst": (out, 0)}
    low.emit(Opcode.UPSAMPLE2X, node, places, {"rows": out.rows, "in_channels": x.channels, **size})
    low.define(node.outputs[0], out)


def store(low: Emitter, node: Node) -> None:
    """Store the head's integers in the output buffer; the host makes the task's map from them."""
    raw, kind = low.input(node, "raw"), TASKS[low.graph.task].kind
    height, width, factor = (node.attributes[name] for name in ("height", "width", "factor"))
    node.require((node.op == "ClassMap") == (kind == "classes"), f"the task's outputs are of kind {kind}")
    node.require(
        raw.channels == low.graph.config.tasks[low.graph.task],
        f"its {raw.channels} channels are not the task's {low.graph.config.tasks[low.graph.task]}",
    )
    node.require(
        height * width == raw.rows
        and factor >= 1
        and (height * factor, width * factor) == low.graph.config.image_size,
        f"a map of {height}x{width}, enlarged by {factor}, is not the image's size",
    )
    low.emit(Opcode.STORE, node, {"src": (raw, 0)}, {"rows": raw.rows, "in_channels": raw.channels})
    row_bytes, scale = layout.output_row(raw.channels), low.graph.output_scale
    low.outputs.append(Output(kind, height, width, raw.channels, row_bytes, factor, scale))


NODES: dict[str, Callable[[Emitter, Node], None]] = {
    "PatchEmbedding": patch_embedding,
    "LayerNorm": layernorm,
    "Linear": linear,
    "LinearInt16": lambda low, node: linear(low, node, Epilogue.INT16),
    "LinearResidual": linear_residual,
    "LinearGelu": linear_gelu,
    "Attention": attention,
    "GateLogits": gate_logits,
    "Route": route,
    "Experts": experts,
    "Conv3x3": conv3x3,
    "Upsample2x": upsample2x,
    "ClassMap": store,
    "PixelValues": store,
}


def emit_program(graph: PathGraph, accelerator: AcceleratorConfig, image: WeightImage) -> Emitter:
    """Compile one task; its weight blocks join ``image``. The program may exceed the accelerator's limits."""
    low = Emitter(graph, accelerator, image)
    for node in graph.nodes:
        NODES[node.op](low, node)
    return low.close()
