// SPDX-License-Identifier: Apache-2.0
// The epilogues of a linear layer, from accumulators a = sum w x + b to a row's slice. SPEC.md, section 4.
// compute_unit.hpp forms the products.
#ifndef EDGE_MOE_OPERATORS_LINEAR_HPP
#define EDGE_MOE_OPERATORS_LINEAR_HPP

#include "edge_moe/operators/gelu.hpp"
#include "edge_moe/operators/requantise.hpp"
#include "edge_moe/operators/residual_add.hpp"

namespace edge_moe {

// linear: int8 in [-127, 127], so that K and V can become weights.
inline Slice8 linear(const Slice32& a, const Slice16& m, int n) {
  HLS_INLINE
  return requantise8(a, m, n, -INT8_MAX, 0);
}

// linear_int16.
inline Slice16 linear_int16(const Slice32& a, const Slice16& m, int n) {
  HLS_INLINE
  return requantise16(a, m, n);
}

// linear_gelu: GELU, then int8 with one multiplier, shift and zero point for the layer.
inline Slice8 linear_gelu(const Slice32& a, const Slice16& m, int n, int16_t gelu_m, int gelu_n, int8_t z) {
  HLS_INLINE
  const Slice16 activated = gelu(requantise16(a, m, n));
  Slice8 result = {};
  HLS_LANES(result)
GELU_REQUANTISE:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] =
        static_cast<int8_t>(requantise<16>(activated.lane[i], gelu_m, gelu_n, INT8_MIN, INT8_MAX, z));
  }
  return result;
}

// linear_residual.
inline Slice16 linear_residual(const Slice32& a, const Slice16& m, int n, const Slice16& residual) {
  HLS_INLINE
  return residual_add(residual, requantise16(a, m, n));
}

}  // namespace edge_moe

#endif
