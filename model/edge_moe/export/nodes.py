# SPDX-License-Identifier: Apache-2.0
"""The nodes of ``path.onnx``: inputs, outputs and attributes of each op. SPEC.md, section 6."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Input:
    """An input of a node: a computed tensor, or a constant of ``rank`` dimensions."""

    name: str
    dtype: str
    rank: int | None = None  # None: not a constant


@dataclass(frozen=True)
class NodeSpec:
    """The required form of a node of one op."""

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]  # dtypes
    integers: tuple[str, ...] = ()  # attributes
    lists: tuple[str, ...] = ()  # attributes that are lists of integers


def _linear(prefix: str = "", stack: int = 0) -> tuple[Input, ...]:
    """Constants of a linear with ``stack`` leading axes."""
    return (
        Input(f"{prefix}weight", "int8", 2 + stack),
        Input(f"{prefix}bias", "int32", 1 + stack),
        Input(f"{prefix}multiplier", "int16", 1 + stack),
    )


_X = Input("x", "int8")
_EXPERT_LAYERS = tuple(
    item for part in ("fc1", "fc2") for item in (*_linear(f"{part}.", 1), Input(f"{part}.shift", "int64", 1))
)
_EXPERT_GELU = tuple(Input(name, "int64", 1) for name in ("gelu_multiplier", "gelu_shift", "zero_point"))

NODES: dict[str, NodeSpec] = {
    "PatchEmbedding": NodeSpec(
        (Input("image", "uint8"), *_linear(), Input("position", "int16", 2)),
        ("int16",),
        ("shift", "patch_size"),
    ),
    "LayerNorm": NodeSpec(
        (Input("x", "int16"), Input("gamma", "int16", 1), Input("beta", "int32", 1)),
        ("int8",),
        ("shift", "epsilon", "skip"),
    ),
    "Linear": NodeSpec((_X, *_linear()), ("int8",), ("shift",)),
    "LinearInt16": NodeSpec((_X, *_linear()), ("int16",), ("shift",)),
    "LinearResidual": NodeSpec((_X, *_linear(), Input("residual", "int16")), ("int16",), ("shift",)),
    "LinearGelu": NodeSpec(
        (_X, *_linear()), ("int8",), ("shift", "gelu_multiplier", "gelu_shift", "zero_point")
    ),
    "Attention": NodeSpec(
        (Input("qkv", "int8"), Input("logit_multiplier", "int16", 1), Input("out_multiplier", "int16", 1)),
        ("int8",),
        ("heads", "logit_shift", "out_shift"),
    ),
    "GateLogits": NodeSpec((_X, Input("weight", "int16", 2), Input("bias", "int32", 1)), ("int32",)),
    "Route": NodeSpec((Input("logits", "int32"),), ("int32", "int16"), ("multiplier", "shift", "top_k")),
    "Experts": NodeSpec(
        (_X, Input("expert", "int32"), Input("score", "int16"), Input("residual", "int16"),
         *_EXPERT_LAYERS, *_EXPERT_GELU),
        ("int16",),
        lists=("bits1", "bits2"),
    ),
    "Conv3x3": NodeSpec(
        (_X, Input("weight", "int8", 4), *_linear()[1:]), ("int8",), ("shift", "height", "width", "pad")
    ),
    "Upsample2x": NodeSpec((_X,), ("int8",), ("height", "width")),
    "ClassMap": NodeSpec((Input("raw", "int16"),), ("uint8",), ("height", "width", "factor")),
    "PixelValues": NodeSpec((Input("raw", "int16"),), ("int32",), ("height", "width", "factor")),
}  # fmt: skip
