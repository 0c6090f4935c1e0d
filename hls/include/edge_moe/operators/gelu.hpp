// SPDX-License-Identifier: Apache-2.0
// gelu(x) = max(x, 0) - GELU[|x| >> 2], the table's value 0 from |x| = 4096 on; int16 Q10.
// SPEC.md, section 4.
#ifndef EDGE_MOE_OPERATORS_GELU_HPP
#define EDGE_MOE_OPERATORS_GELU_HPP

#include "edge_moe/arithmetic.hpp"

namespace edge_moe {

inline int16_t gelu(int16_t x) {
  HLS_INLINE
  constexpr int LIMIT = tables::gelu_limit << tables::gelu_fraction;
  constexpr int LAST = (LIMIT >> tables::gelu_step_bits) - 1;
  const int32_t magnitude = x < 0 ? -static_cast<int32_t>(x) : static_cast<int32_t>(x);
  const int32_t step = magnitude >> tables::gelu_step_bits;
  const int32_t entry = tables::gelu[step > LAST ? LAST : step];
  const int32_t delta = magnitude < LIMIT ? entry : 0;
  return static_cast<int16_t>((x > 0 ? x : 0) - delta);
}

inline Slice16 gelu(const Slice16& x) {
  HLS_INLINE
  Slice16 result = {};
  HLS_LANES(result)
GELU_LANES:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = gelu(x.lane[i]);
  }
  return result;
}

}  // namespace edge_moe

#endif
