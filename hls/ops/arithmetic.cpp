// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis tops; the accelerator has them inside its operators, above all in executor/compute/epilogue.hpp.
// Units of arithmetic as tops. SPEC.md, sections 2 and 3.
#include "edge_moe/arithmetic.hpp"

using namespace edge_moe;

constexpr int ARITHMETIC_VALUES = 4096;  // per call

// rs(v, n) of int48 values.
extern "C" void rounding_shift(const int64_t v[ARITHMETIC_VALUES], int64_t out[ARITHMETIC_VALUES],
                               int count, int n) {
ROUNDING_SHIFT:
  for (int i = 0; i < count; ++i) {
    HLS_PIPELINE
    HLS_TRIPS(1, ARITHMETIC_VALUES)
    out[i] = static_cast<int64_t>(edge_moe::rounding_shift<48, 47>(v[i], n));
  }
}

// (R, k) with 1/v about R 2^(-15-k); v in [1, 2^32).
extern "C" void reciprocal(const uint32_t v[ARITHMETIC_VALUES], int16_t value[ARITHMETIC_VALUES],
                           int8_t exponent[ARITHMETIC_VALUES], int count) {
RECIPROCAL:
  for (int i = 0; i < count; ++i) {
    HLS_PIPELINE
    HLS_TRIPS(1, ARITHMETIC_VALUES)
    const Inverse inverse = edge_moe::reciprocal<32>(v[i]);
    value[i] = inverse.value;
    exponent[i] = inverse.exponent;
  }
}

// (R, k) with 1/sqrt(v) about R 2^(-15-k); v in [1, 2^52).
extern "C" void reciprocal_sqrt(const uint64_t v[ARITHMETIC_VALUES], int16_t value[ARITHMETIC_VALUES],
                                int8_t exponent[ARITHMETIC_VALUES], int count) {
RECIPROCAL_SQRT:
  for (int i = 0; i < count; ++i) {
    HLS_PIPELINE
    HLS_TRIPS(1, ARITHMETIC_VALUES)
    const Inverse inverse = edge_moe::reciprocal_sqrt<52>(v[i]);
    value[i] = inverse.value;
    exponent[i] = inverse.exponent;
  }
}
