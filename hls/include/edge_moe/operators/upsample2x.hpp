// SPDX-License-Identifier: Apache-2.0
// Bilinear enlargement by two, half-pixel centres, edges repeated. SPEC.md, section 4.
#ifndef EDGE_MOE_OPERATORS_UPSAMPLE2X_HPP
#define EDGE_MOE_OPERATORS_UPSAMPLE2X_HPP

#include "edge_moe/arithmetic.hpp"

namespace edge_moe {

// The two neighbours of output o along an axis of `size` inputs. o is at (2 o - 1) / 4: an even o = 2 i
// takes 1/4 of i - 1 and 3/4 of i, an odd one 3/4 of i and 1/4 of i + 1.
struct UpsampleTaps {
  int32_t lower;
  int32_t upper;
  int32_t upper_weight;  // of 4
};

inline UpsampleTaps upsample2x_taps(int o, int size) {
  HLS_INLINE
  const int i = o >> 1;
  const bool odd = (o & 1) != 0;
  const int lower = odd ? i : i - 1;
  const int upper = odd ? i + 1 : i;
  const UpsampleTaps result = {lower < 0 ? 0 : lower, upper > size - 1 ? size - 1 : upper, odd ? 1 : 3};
  return result;
}

// rs of the four weighted neighbours, corner[row][column]; a row's and a column's weights add to 4 each.
inline Slice8 upsample2x(const Slice8& lower_lower, const Slice8& lower_upper, const Slice8& upper_lower,
                         const Slice8& upper_upper, int row_weight, int column_weight) {
  HLS_INLINE
  Slice8 result = {};
  HLS_LANES(result)
UPSAMPLE_LANES:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    // 4 * 128 at most, then 16 * 128
    const Int<12> above = lower_lower.lane[i] * (4 - column_weight) + lower_upper.lane[i] * column_weight;
    const Int<12> below = upper_lower.lane[i] * (4 - column_weight) + upper_upper.lane[i] * column_weight;
    const Int<13> sum = above * (4 - row_weight) + below * row_weight;
    result.lane[i] = static_cast<int8_t>(rounding_shift<13, 4>(sum, 4));
  }
  return result;
}

}  // namespace edge_moe

#endif
