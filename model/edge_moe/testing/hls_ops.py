# SPDX-License-Identifier: Apache-2.0
"""The operator tops of hls/ops, built by its Makefile and called through ctypes with golden's arguments.

Rows are padded to whole slices of 32 channels; the padding of activations must not matter.
"""

import ctypes
import functools
import os

import numpy as np

from edge_moe.testing.checkout import ROOT
from edge_moe.testing.hls_build import make

TILE = 32
PADDING = 77  # in lanes of int8 inputs beyond the channels
GUARD = np.arange(0xA0, 0xE0, dtype=np.uint8)  # around every array that a kernel sees
VARIANTS = os.environ.get("EDGE_MOE_OPS", "O0 O2 O3 exact").split()


def pad_rows(x, value=0, unit=TILE):
    """[..., C] with C padded to a multiple of ``unit``."""
    missing = -x.shape[-1] % unit
    return np.ascontiguousarray(np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)], constant_values=value))


def pad_matrix(weight, unit=TILE):
    """[..., out, in], both padded with zeros."""
    weight = pad_rows(weight)
    missing = -weight.shape[-2] % unit
    return np.ascontiguousarray(np.pad(weight, [(0, 0)] * (weight.ndim - 2) + [(0, missing), (0, 0)]))


@functools.cache
def build(variant):
    """Path of the operator library; the C++ is compiled if it is not up to date."""
    run = make("ops", f"VARIANT={variant}")
    assert run.returncode == 0, run.stdout + run.stderr
    return ROOT / "build" / "hls" / "zcu104" / f"ops_{variant}" / "libedge_moe_ops.so"


class Operators:
    """One build of the operators; results have golden's shapes and types, without the batch."""

    def __init__(self, variant):
        self.variant = variant

    def __repr__(self):
        return self.variant

    @functools.cached_property
    def library(self):
        return ctypes.CDLL(str(build(self.variant)))

    def call(self, name, *arguments):
        """Call a top with contiguous arrays and integers; it sees copies between guard bytes."""
        converted, copies = [], []
        for number, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                assert argument.flags.c_contiguous
                copy = np.full(argument.nbytes + 2 * len(GUARD), 0, np.uint8)
                copy[: len(GUARD)] = copy[len(copy) - len(GUARD) :] = GUARD
                inside = copy[len(GUARD) : len(copy) - len(GUARD)]
                inside[:] = argument.reshape(-1).view(np.uint8)
                copies.append((number, argument, copy, inside))
                converted.append(inside.ctypes.data_as(ctypes.c_void_p))
            else:
                converted.append(ctypes.c_int(int(argument)))
        function = getattr(self.library, name)
        function.restype = ctypes.c_int
        result = function(*converted)
        for number, argument, copy, inside in copies:
            guards = copy[: len(GUARD)], copy[len(copy) - len(GUARD) :]
            assert all((guard == GUARD).all() for guard in guards), f"{name} wrote beyond argument {number}"
            if argument.flags.writeable:
                argument[...] = inside.view(argument.dtype).reshape(argument.shape)
        return result

    def rounding_shift(self, values, shift):
        out = np.empty_like(values)
        self.call("rounding_shift", values, out, len(values), shift)
        return out

    def inverse(self, name, values):
        """(R, k) of ``reciprocal`` (uint32) or ``reciprocal_sqrt`` (uint64)."""
        value, exponent = np.empty(len(values), np.int16), np.empty(len(values), np.int8)
        self.call(name, values, value, exponent, len(values))
        return value, exponent

    def requantise(self, a, multiplier, shift, low, high, zero_point=0):
        out = np.empty(a.shape, np.int16)
        self.call("requantise", a, multiplier, out, *a.shape, shift, low, high, zero_point)
        return out

    def gelu(self, x):
        padded = pad_rows(x)
        out = np.empty_like(padded)
        self.call("gelu", padded, out, padded.size // TILE)
        return out[: len(x)]

    def residual_add(self, residual, update):
        out = np.empty_like(residual)
        self.call("residual_add", residual, update, out, residual.size // TILE)
        return out

    def layernorm(self, x, norm):
        padded = pad_rows(x, PADDING)
        out = np.empty(padded.shape, np.int8)
        self.call("layernorm", padded, pad_rows(norm.gamma), pad_rows(norm.beta), out, *x.shape,
                  norm.shift, norm.epsilon)  # fmt: skip
        return out[:, : x.shape[1]]

    def compute_unit(self, weight, x, packed):
        """weight int8 [32, 32], x int8 [2 n, 32] to int32 [2 n, 32]."""
        out = np.empty(x.shape, np.int32)
        self.call("compute_unit" if packed else "compute_unit_native", weight, x, out, len(x) // 2)
        return out

    def dual_dot(self, w, x0, x1):
        """Sums of 8 products each, low and high lane; w, x0, x1 int8 [n, 8]."""
        low, high = np.empty(len(w), np.int32), np.empty(len(w), np.int32)
        self.call("dual_dot", w, x0, x1, low, high, len(w))
        return low, high

    def dual_product(self, w, x0, x1):
        low, high = np.empty(len(w), np.int32), np.empty(len(w), np.int32)
        self.call("dual_product", w, x0, x1, low, high, len(w))
        return low, high

    def weight_tile(self, planes):
        """uint8 [tiles, planes, 128] to int8 [tiles, 32, 32]."""
        out = np.empty((len(planes), TILE, TILE), np.int8)
        self.call("weight_tile", planes, out, *planes.shape[:2])
        return out

    def parameter_plane(self, plane):
        wide, narrow = np.empty(TILE, np.int32), np.empty(2 * TILE, np.int16)
        self.call("parameter_plane", plane, wide, narrow)
        return wide, narrow

    def linear(self, x, layer, epilogue, residual=None, ffn=None):
        """A linear with an isa.Epilogue; ``ffn`` has the constants after GELU."""
        rows, fan_in = x.shape
        out = len(layer.weight)
        residual = pad_rows(np.zeros((rows, out), np.int16) if residual is None else residual)
        out8, out16 = np.empty(residual.shape, np.int8), np.empty(residual.shape, np.int16)
        gelu = (ffn.gelu_multiplier, ffn.gelu_shift, ffn.zero_point) if ffn else (0, 1, 0)
        self.call("linear", pad_rows(x, PADDING), pad_matrix(layer.weight), pad_rows(layer.bias),
                  pad_rows(layer.multiplier), residual, out8, out16, rows, fan_in, out, int(epilogue),
                  layer.shift, *gelu)  # fmt: skip
        return (out8 if epilogue.name in ("REQUANTISE", "GELU") else out16)[:, :out]

    def softmax(self, logits):
        """int16 [rows, keys] to (numerators [rows, keys], rescales [rows, blocks], M [rows], S [rows])."""
        rows, keys = logits.shape
        padded = pad_rows(logits, 32767)
        numerator = np.empty(padded.shape, np.int8)
        rescale = np.empty((rows, padded.shape[1] // TILE), np.uint8)
        exponent, total = np.empty(rows, np.int16), np.empty(rows, np.int32)
        self.call("softmax", padded, numerator, rescale, exponent, total, rows, keys)
        assert not numerator[:, keys:].any()
        return numerator[:, :keys], rescale, exponent, total

    def attention(self, qkv, attn):
        rows, D = qkv.shape[0], qkv.shape[1] // 3
        dim = D // attn.heads
        padded = pad_rows(qkv.reshape(rows, 3, attn.heads, dim))
        multiplier = pad_rows(attn.out_multiplier.reshape(attn.heads, dim))
        out = np.empty((rows, attn.heads, padded.shape[-1]), np.int8)
        self.call("attention", padded, attn.logit_multiplier, multiplier, out, rows, attn.heads,
                  padded.shape[-1], attn.logit_shift, attn.out_shift)  # fmt: skip
        return out[..., :dim].reshape(rows, D)

    def gate_logits(self, x, gate):
        """Logits int32 [rows, experts]."""
        rows, width = x.shape
        experts = len(gate.weight)
        bias = pad_rows(gate.bias, unit=16)
        out = np.empty((rows, len(bias)), np.int32)
        self.call(
            "gate_logits", pad_rows(x, PADDING), pad_matrix(gate.weight, 16), bias, out, rows, width, experts
        )
        return out[:, :experts]

    def route(self, logits, gate):
        """(expert int32, score int16) [rows, top_k]."""
        rows, experts = logits.shape
        expert, score = np.empty((rows, gate.top_k), np.uint16), np.empty((rows, gate.top_k), np.int16)
        self.call("route", logits, expert, score, rows, experts, gate.top_k, gate.multiplier, gate.shift)
        return expert.astype(np.int32), score

    def experts(self, x, expert, score, residual, ffns):
        """Residual plus mixture, int16 [rows, width]; None if a route names no expert."""
        rows, width = x.shape
        hidden = len(ffns[0].fc1.weight)
        low, high = pad_rows(np.zeros_like(residual)), pad_rows(np.zeros(residual.shape, np.int8))

        def stack(values, dtype, pad=pad_rows):
            return pad(np.array(list(values), dtype))

        linears = [([ffn.fc1 for ffn in ffns]), ([ffn.fc2 for ffn in ffns])]
        parameters = [
            array
            for layers in linears
            for array in (
                stack((layer.weight for layer in layers), np.int8, pad_matrix),
                stack((layer.bias for layer in layers), np.int32),
                stack((layer.multiplier for layer in layers), np.int16),
            )
        ]
        shifts = [np.array([layer.shift for layer in layers], np.uint8) for layers in linears]
        failed = self.call(
            "experts", pad_rows(x, PADDING), expert.astype(np.uint16), score, pad_rows(residual), *parameters,
            *shifts, np.array([ffn.gelu_multiplier for ffn in ffns], np.int16),
            np.array([ffn.gelu_shift for ffn in ffns], np.uint8),
            np.array([ffn.zero_point for ffn in ffns], np.int8), low, high, rows, width, hidden, len(ffns),
            expert.shape[1],
        )  # fmt: skip
        return None if failed else low[:, :width]

    def conv3x3(self, x, layer, height, width, pad):
        out_channels, _, _, fan_in = layer.weight.shape
        weight = pad_rows(layer.weight.reshape(out_channels, 9, fan_in))
        weight = pad_matrix(weight.reshape(out_channels, -1))
        multiplier = pad_rows(layer.multiplier)
        out = np.empty((len(x), len(multiplier)), np.int8)
        self.call("conv3x3", pad_rows(x, PADDING), weight, pad_rows(layer.bias), multiplier, out, height,
                  width, fan_in, out_channels, layer.shift, pad)  # fmt: skip
        return out[:, :out_channels]

    def upsample2x(self, x, height, width):
        padded = pad_rows(x, PADDING)
        out = np.empty((4 * len(x), padded.shape[1]), np.int8)
        self.call("upsample2x", padded, out, height, width, x.shape[1])
        return out[:, : x.shape[1]]

    def patch_embedding(self, image, layer, position, patch_size):
        position = pad_rows(position)
        out = np.empty_like(position)
        self.call("patch_embedding", image, pad_matrix(layer.weight), pad_rows(layer.bias),
                  pad_rows(layer.multiplier), position, out, *image.shape[:2], patch_size, len(position),
                  len(layer.weight), layer.shift)  # fmt: skip
        return out[:, : len(layer.weight)]
