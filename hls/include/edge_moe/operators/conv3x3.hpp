// SPDX-License-Identifier: Apache-2.0
// 3x3 convolution with ReLU as a linear over nine taps: the pixel that a tap reads, and the epilogue
// rq(a, m, n, -128, 127, -128). SPEC.md, section 4. compute_unit.hpp forms the products.
#ifndef EDGE_MOE_OPERATORS_CONV3X3_HPP
#define EDGE_MOE_OPERATORS_CONV3X3_HPP

#include "edge_moe/operators/requantise.hpp"

namespace edge_moe {

// The pixel that a tap reads; outside the map the input's zero point replaces it.
struct ConvSource {
  bool inside;
  int32_t pixel;  // index in the map, row by row; 0 if outside
};

// Tap (dy, dx) of the output pixel (y, x) in a map of height x width; all count from 0.
inline ConvSource conv3x3_source(int y, int x, int dy, int dx, int height, int width) {
  HLS_INLINE
  const int row = y + dy - 1;
  const int column = x + dx - 1;
  const bool inside = row >= 0 && row < height && column >= 0 && column < width;
  const ConvSource result = {inside, inside ? row * width + column : 0};
  return result;
}

// The compute unit's input: the pixel's slice, or the zero point outside the map.
inline Slice8 conv3x3_input(const Slice8& row, bool inside, int8_t pad) {
  HLS_INLINE
  Slice8 result = {};
  HLS_LANES(result)
CONV_INPUT:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = inside ? row.lane[i] : pad;
  }
  return result;
}

// From accumulators to a slice of the result; its zero point is -128, so that saturation is ReLU.
inline Slice8 conv3x3(const Slice32& a, const Slice16& m, int n) {
  HLS_INLINE
  return requantise8(a, m, n, INT8_MIN, INT8_MIN);
}

}  // namespace edge_moe

#endif
