// SPDX-License-Identifier: Apache-2.0
// rq(a, m, n, lo, hi, z) = clip(rs(a m, n) + z, lo, hi). SPEC.md, section 2.
#ifndef EDGE_MOE_OPERATORS_REQUANTISE_HPP
#define EDGE_MOE_OPERATORS_REQUANTISE_HPP

#include "edge_moe/arithmetic.hpp"

namespace edge_moe {

// a of W bits, m in [0, 32767], n in [1, 47], z int8. W = 32: the product has 47 bits.
template <int W>
inline int32_t requantise(Int<W> a, int16_t m, int n, int32_t low, int32_t high, int32_t z) {
  HLS_INLINE
  constexpr int PRODUCT = W + 15;  // m has 15 bits and no sign, so the product has no more
  const Int<PRODUCT> scaled = static_cast<Int<PRODUCT>>(product<W, 16>(a, m));
  // n is at least 1: the rounded value has one bit less, which leaves room for z
  const Int<PRODUCT> shifted = rounding_shift<PRODUCT, isa::shift_limit>(scaled, n) + z;
  return saturate(shifted, low, high);
}

// int8 in [low, 127]: low is -127 if the result may become a weight, else -128.
inline Slice8 requantise8(const Slice32& a, const Slice16& m, int n, int32_t low, int32_t z) {
  HLS_INLINE
  Slice8 result = {};
  HLS_LANES(result)
REQUANTISE8:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = static_cast<int8_t>(requantise<32>(a.lane[i], m.lane[i], n, low, INT8_MAX, z));
  }
  return result;
}

// int16.
inline Slice16 requantise16(const Slice32& a, const Slice16& m, int n) {
  HLS_INLINE
  Slice16 result = {};
  HLS_LANES(result)
REQUANTISE16:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] =
        static_cast<int16_t>(requantise<32>(a.lane[i], m.lane[i], n, INT16_MIN, INT16_MAX, 0));
  }
  return result;
}

}  // namespace edge_moe

#endif
