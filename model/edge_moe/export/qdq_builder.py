# SPDX-License-Identifier: Apache-2.0
"""Parts of the graph of ``path.qdq.onnx``: quantise/dequantise pairs around float operators.

Activations and weights are uint8 with a zero point, 128 above the integers of the golden model. This
form is fast and exact in onnxruntime on every CPU; int8 weights would saturate pairs of products at 16
bits on a CPU without VNNI.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import numpy_helper

from edge_moe.export.graph import Builder
from edge_moe_host.golden.operators import LayerNorm, Linear

Input = str | np.ndarray | np.generic  # a tensor's name, or a constant
OFFSET = 128  # from the golden model's int8 to the graph's uint8
XHAT_UNIT = 2.0**10  # units in 1 of the normalised value that gamma multiplies


@dataclass(frozen=True)
class Quantised:
    """A uint8 tensor q that means scale * (q - OFFSET - zero_point)."""

    name: str
    scale: float = 1.0
    zero_point: int = 0


class QdqBuilder(Builder):
    """Arrays as inputs become initialisers, equal ones only once."""

    def __init__(self) -> None:
        super().__init__()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def ops(self, kind: str, *inputs: Input, outputs: int, **attributes: object) -> list[str]:
        """Add a node with several outputs; returns their names."""
        names = [f"{kind.lower()}_{len(self.nodes)}_{index}" for index in range(outputs)]
        self.add(kind, self._names(inputs), names, attributes)
        return names

    def op(self, kind: str, *inputs: Input, name: str = "", **attributes: object) -> str:
        """Add a node with one output; returns its name, which is generated unless given."""
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.add(kind, self._names(inputs), [name], attributes)
        return name

    def _names(self, inputs: Sequence[Input]) -> list[str]:
        return [value if isinstance(value, str) else self.constant(np.asarray(value)) for value in inputs]

    def constant(self, value: np.ndarray, name: str = "") -> str:
        """Name of an initialiser with this value; float64 becomes float32."""
        value = np.ascontiguousarray(value.astype(np.float32) if value.dtype == np.float64 else value)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = name or f"constant_{len(self._constants)}"
            self.initializers.append(numpy_helper.from_array(value, self._constants[key]))
        return self._constants[key]

    def reshape(self, x: str, *shape: int) -> str:
        """``x`` in another shape, of which one entry may be -1."""
        return self.op("Reshape", x, np.array(shape, dtype=np.int64))

    def quantise(self, x: str, scale: float, zero_point: int, name: str) -> Quantised:
        """Float to uint8, saturating."""
        y = self.op("QuantizeLinear", x, np.float32(scale), np.uint8(OFFSET + zero_point), name=name)
        return Quantised(y, scale, zero_point)

    def dequantise(self, x: Quantised) -> str:
        """uint8 to float."""
        return self.op("DequantizeLinear", x.name, np.float32(x.scale), np.uint8(OFFSET + x.zero_point))

    def parameters(self, x: Quantised, layer: Linear, unit: float, name: str) -> tuple[str, str]:
        """Dequantised weight [out, ...] and bias [out] for an input ``x`` and a result in ``unit``s.

        The golden bias includes the input's zero point; here the input has it.
        """
        scale = (unit * 2.0**-layer.shift) * layer.multiplier.astype(np.float64)
        weight = layer.weight.astype(np.int64)
        bias = layer.bias + x.zero_point * weight.reshape(len(weight), -1).sum(1)
        moved = self.constant((weight + OFFSET).astype(np.uint8), f"{name}.weight")
        offsets = np.full(len(weight), OFFSET, dtype=np.uint8)
        return (
            self.op("DequantizeLinear", moved, scale / x.scale, offsets, axis=0),
            self.op("DequantizeLinear", self.constant(bias.astype(np.int32), f"{name}.bias"), scale, axis=0),
        )

    def linear(self, x: Quantised, layer: Linear, name: str, unit: float = 1.0) -> str:
        """Rows [.., in] to float rows [.., out], the integer result of ``layer`` times ``unit``."""
        weight, bias = self.parameters(x, layer, unit, name)
        return self.op("Gemm", self.dequantise(x), weight, bias, transB=1)

    def layernorm(self, x: str, norm: LayerNorm, name: str) -> Quantised:
        """Float rows of the residual stream to uint8 rows."""
        D, unit = len(norm.gamma), 2.0**-norm.shift
        y = self.op(
            "LayerNormalization",
            x,
            norm.gamma.astype(np.float64) * (XHAT_UNIT * unit),
            norm.beta.astype(np.float64) * unit,
            axis=-1,
            epsilon=norm.epsilon / D**2,
        )
        return self.quantise(y, 1.0, 0, name)
