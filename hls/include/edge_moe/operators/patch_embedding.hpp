// SPDX-License-Identifier: Apache-2.0
// Pixels as int8, the place of a byte in its patch, and what follows the linear: the position is added.
// SPEC.md, section 4.
#ifndef EDGE_MOE_OPERATORS_PATCH_EMBEDDING_HPP
#define EDGE_MOE_OPERATORS_PATCH_EMBEDDING_HPP

#include "edge_moe/operators/linear.hpp"

namespace edge_moe {

constexpr int COLOURS = 3;

// pixel - 128: the top bit flipped.
inline int8_t patch_pixel(uint8_t pixel) {
  HLS_INLINE
  return static_cast<int8_t>(static_cast<int32_t>(pixel) - tables::pixel_offset);
}

// A beat of the token: clip16(linear_int16 + position).
inline Beat16 patch_embedding(const Beat32& a, const Beat16& m, int n, const Beat16& position) {
  HLS_INLINE
  return linear_residual(a, m, n, position);
}

}  // namespace edge_moe

#endif
