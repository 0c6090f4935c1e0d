# SPDX-License-Identifier: Apache-2.0
"""The main graph of ``path.onnx``: one node of the domain ``edge_moe`` per operator of SPEC.md.

Every tensor has its name in golden's trace. The graph contains everything that the compiler needs; the
functions of its nodes (:mod:`edge_moe.export.functions`) make it run in stock onnxruntime.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_moe.quant.network import IntegerNetwork, head_grid
from edge_moe.tasks import TASKS
from edge_moe_host.config import to_dict
from edge_moe_host.golden.arithmetic import INT8_MIN
from edge_moe_host.golden.operators import FFN, Gate, LayerNorm, Linear

DOMAIN = "edge_moe"
FORMAT_VERSION = 1
METADATA_KEY = "edge_moe"
ONNX_OPSET = 21
IR_VERSION = 10


class Builder:
    """Collects the nodes and initialisers of a model."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, object],
        domain: str | None = None,
    ) -> None:
        """Add a node, which has the name of its first output."""
        node = helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)

    def model(
        self, network: IntegerNetwork, task: str, name: str, raw: int, values: int, *domains: str
    ) -> onnx.ModelProto:
        """The model of one task: uint8 ``image`` [batch, H, W, 3] in, ``output`` and ``head.out`` out.

        ``output`` is the class map uint8 [batch, H, W], or of the type ``values`` [batch, H, W, C];
        ``head.out`` of the type ``raw`` [batch, h*w, C]. ``domains``: of functions that nodes call.
        """
        cfg, head = network.config, network.heads[task]
        full: list[str | int] = ["batch", *cfg.image_size]
        height, width, _ = head_grid(cfg, len(head.convs))
        channels, info = len(head.out.weight), helper.make_tensor_value_info
        classes = TASKS[task].kind == "classes"
        kind, shape = (TensorProto.UINT8, full) if classes else (values, [*full, channels])
        versions = {"": ONNX_OPSET, **dict.fromkeys(domains, 1)}
        graph = helper.make_graph(
            self.nodes,
            f"{name}_{task}",
            [info("image", TensorProto.UINT8, [*full, 3])],
            [info("output", kind, shape), info("head.out", raw, ["batch", height * width, channels])],
            self.initializers,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*version) for version in versions.items()],
            ir_version=IR_VERSION,
            producer_name="edge-moe",
        )


class GraphBuilder(Builder):
    """The same for calls of the functions of ``path.onnx``."""

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add an initialiser; returns its name."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def linear(self, name: str, layer: Linear) -> list[str]:
        """Weight, bias and multiplier of a layer as inputs."""
        return self.constants(name, layer, "weight", "bias", "multiplier")

    def constants(self, name: str, holder: object, *fields: str) -> list[str]:
        """Arrays that are attributes of ``holder``, as inputs."""
        return [self.constant(f"{name}.{field}", getattr(holder, field)) for field in fields]

    def layer(
        self, op: str, x: str, layer: Linear, name: str, out: str, *more: str, **attributes: int
    ) -> str:
        """Add a call of a function of a linear or a convolution; ``name`` is that of its constants."""
        return self.node(op, [x, *self.linear(name, layer), *more], [out], shift=layer.shift, **attributes)

    def node(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> str:
        """Add one call of an edge_moe function; returns its first output."""
        self.add(op, inputs, outputs, attributes, DOMAIN)
        return outputs[0]

    def layernorm(self, x: str, norm: LayerNorm, name: str, skip: int = 0) -> str:
        """int16 to int8; ``skip`` leading tokens are left out."""
        inputs = [x, *self.constants(name, norm, "gamma", "beta")]
        return self.node("LayerNorm", inputs, [name], shift=norm.shift, epsilon=norm.epsilon, skip=skip)

    def gate(self, x: str, gate: Gate, name: str) -> tuple[str, str]:
        """Expert indices and scores."""
        inputs = [x, *self.constants(name, gate, "weight", "bias")]
        logits = self.node("GateLogits", inputs, [f"{name}.logits"])
        outputs = (f"{name}.expert", f"{name}.score")
        self.node("Route", [logits], outputs, multiplier=gate.multiplier, shift=gate.shift, top_k=gate.top_k)
        return outputs

    def experts(
        self, x: str, expert: str, score: str, residual: str, ffns: Sequence[FFN], name: str, out: str
    ) -> str:
        """All experts of a block, their weights stacked along a first axis [E, ...]."""
        inputs = [x, expert, score, residual]
        for part in ("fc1", "fc2"):
            layers: list[Linear] = [getattr(ffn, part) for ffn in ffns]
            for field in ("weight", "bias", "multiplier"):
                stacked = np.stack([getattr(layer, field) for layer in layers])
                inputs.append(self.constant(f"{name}.{part}.{field}", stacked))
            inputs.append(self._integers(f"{name}.{part}.shift", [layer.shift for layer in layers]))
        for field in ("gelu_multiplier", "gelu_shift", "zero_point"):
            inputs.append(self._integers(f"{name}.{field}", [getattr(ffn, field) for ffn in ffns]))
        bits = {f"bits{n}": [getattr(ffn, f"fc{n}").bits for ffn in ffns] for n in (1, 2)}
        return self.node("Experts", inputs, [out], **bits)

    def _integers(self, name: str, values: Sequence[int]) -> str:
        return self.constant(name, np.array(values, dtype=np.int64))


def path_graph(
    network: IntegerNetwork, task: str, classes: Sequence[tuple[str, Sequence[int]]] = ()
) -> onnx.ModelProto:
    """The graph of one task, without the functions that its nodes call.

    ``classes``: name and RGB colour of each class, for drawing the result.
    """
    network = network.path(task)
    cfg, g = network.config, GraphBuilder()
    x = g.node(
        "PatchEmbedding",
        ["image", *g.linear("patch_embedding", network.patch), g.constant("position", network.position)],
        ["patch_embedding"],
        shift=network.patch.shift,
        patch_size=cfg.patch_size,
    )
    for index, block in enumerate(network.blocks):
        name, attn = f"block{index}", block.attention
        normed = g.layernorm(x, block.norm1, f"{name}.norm1")
        qkv = g.layer("Linear", normed, attn.qkv, f"{name}.qkv", f"{name}.qkv")
        mixed = g.node(
            "Attention",
            [qkv, *g.constants(f"{name}.attention", attn, "logit_multiplier", "out_multiplier")],
            [f"{name}.attention"],
            heads=attn.heads,
            logit_shift=attn.logit_shift,
            out_shift=attn.out_shift,
        )
        x = g.layer("LinearResidual", mixed, attn.proj, f"{name}.proj", f"{name}.proj", x)
        normed = g.layernorm(x, block.norm2, f"{name}.norm2")
        if block.ffn is not None:
            ffn = block.ffn
            gelu = {key: getattr(ffn, key) for key in ("gelu_multiplier", "gelu_shift", "zero_point")}
            hidden = g.layer("LinearGelu", normed, ffn.fc1, f"{name}.fc1", f"{name}.hidden", **gelu)
            x = g.layer("LinearResidual", hidden, ffn.fc2, f"{name}.fc2", f"{name}.ffn", x)
        else:
            expert, score = g.gate(normed, block.gates[task], f"{name}.gate")
            x = g.experts(normed, expert, score, x, block.experts, f"{name}.experts", f"{name}.ffn")
    _head(g, x, network, task)
    model = g.model(network, task, "edge_moe", TensorProto.INT16, TensorProto.INT32, DOMAIN)
    helper.set_model_props(
        model, {METADATA_KEY: json.dumps(_metadata(network, task, classes), sort_keys=True)}
    )
    return model


def _head(g: GraphBuilder, x: str, network: IntegerNetwork, task: str) -> None:
    cfg, head = network.config, network.heads[task]
    height, width = cfg.grid_size
    y, pad = g.layernorm(x, head.norm, "head.norm", skip=int(cfg.cls_token)), 0
    for stage, conv in enumerate(head.convs):
        if stage:
            y = g.node("Upsample2x", [y], [f"head.upsample{stage}"], height=height, width=width)
            height, width = 2 * height, 2 * width
        name = f"head.conv{stage}"
        y, pad = g.layer("Conv3x3", y, conv, name, name, height=height, width=width, pad=pad), INT8_MIN
    raw = g.layer("LinearInt16", y, head.out, "head.out", "head.out")
    factor = head_grid(cfg, len(head.convs))[2]
    op = "ClassMap" if TASKS[task].kind == "classes" else "PixelValues"
    g.node(op, [raw], ["output"], height=height, width=width, factor=factor)


def _metadata(
    network: IntegerNetwork, task: str, classes: Sequence[tuple[str, Sequence[int]]]
) -> dict[str, object]:
    return {
        "format_version": FORMAT_VERSION,
        "task": task,
        "config": to_dict(network.config),
        "config_hash": network.config.hash(),
        "output_scale": network.heads[task].scale,
        "classes": [[name, list(colour)] for name, colour in classes],
        "scales": dict(network.scales),
        "expert_ids": {
            str(index): list(block.expert_ids) for index, block in enumerate(network.blocks) if block.experts
        },
    }
