// SPDX-License-Identifier: Apache-2.0
// clip16(residual + update). SPEC.md, section 4.
#ifndef EDGE_MOE_OPERATORS_RESIDUAL_ADD_HPP
#define EDGE_MOE_OPERATORS_RESIDUAL_ADD_HPP

#include "edge_moe/arithmetic.hpp"

namespace edge_moe {

inline Slice16 residual_add(const Slice16& residual, const Slice16& update) {
  HLS_INLINE
  Slice16 result = {};
  HLS_LANES(result)
RESIDUAL_ADD:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = clip16(static_cast<int32_t>(residual.lane[i]) + update.lane[i]);
  }
  return result;
}

}  // namespace edge_moe

#endif
