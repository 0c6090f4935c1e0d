// SPDX-License-Identifier: Apache-2.0
// Pixels as int8, the place of a byte in its patch, and the addition of the position after the linear.
// SPEC.md, section 4.
#ifndef EDGE_MOE_OPERATORS_PATCH_EMBEDDING_HPP
#define EDGE_MOE_OPERATORS_PATCH_EMBEDDING_HPP

#include "edge_moe/operators/linear.hpp"

namespace edge_moe {

// pixel - 128: the top bit flipped.
inline int8_t patch_pixel(uint8_t pixel) {
  HLS_INLINE
  return static_cast<int8_t>(static_cast<int32_t>(pixel) - tables::pixel_offset);
}

// A slice of the token: clip16(linear_int16 + position).
inline Slice16 patch_embedding(const Slice32& a, const Slice16& m, int n, const Slice16& position) {
  HLS_INLINE
  return linear_residual(a, m, n, position);
}

}  // namespace edge_moe

#endif
