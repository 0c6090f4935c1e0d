// SPDX-License-Identifier: Apache-2.0
// Attention: the average of V under the single-pass softmax of the logits (softmax.hpp). SPEC.md, section 4.
//
// Weight tiles hold K and V (weight_tile.hpp) while all queries pass through. For each block and query:
//   x_j = attention_logits(q k_j), then softmax_block gives the numerators p_j and a rescale r, then
//   A = attention_accumulate(A, r, sum p_j v_j).
// After the last block: softmax_inverse once per query, attention_output for each slice of channels.
// Between blocks a query keeps its softmax state and A.
#ifndef EDGE_MOE_OPERATORS_ATTENTION_HPP
#define EDGE_MOE_OPERATORS_ATTENTION_HPP

#include "edge_moe/operators/requantise.hpp"
#include "edge_moe/operators/softmax.hpp"

namespace edge_moe {

// |A| <= 127 * 127 * 4096
constexpr int AVERAGE_BITS = 1 + bits_of(127ull * 127 * tables::token_limit);
static_assert(AVERAGE_BITS == 27, "the width in SPEC.md, section 5");
// |q k| over a head's channels
constexpr int DOT_BITS = 1 + bits_of(128ull * 127 * config::max_head_dim);

// Base-2 logits in Q8 from dot products, the head's multiplier and shift.
inline Slice16 attention_logits(const Slice32& dot, int16_t m, int n) {
  HLS_INLINE
  Slice16 result = {};
  HLS_LANES(result)
ATTENTION_LOGITS:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = static_cast<int16_t>(requantise<DOT_BITS>(dot.lane[i], m, n, INT16_MIN, INT16_MAX, 0));
  }
  return result;
}

// A slice of A = rs(A, r) + sum p v.
inline Slice32 attention_accumulate(const Slice32& average, uint8_t rescale, const Slice32& products) {
  HLS_INLINE
  Slice32 result = {};
  HLS_LANES(result)
ATTENTION_ACCUMULATE:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    const Int<AVERAGE_BITS> before = average.lane[i];
    result.lane[i] =
        static_cast<int32_t>(rounding_shift<AVERAGE_BITS, MAX_RESCALE>(before, rescale)) +
        products.lane[i];
  }
  return result;
}

// A slice of the result: u = clip16(rs(A R, e + 1)), then int8 in [-127, 127].
inline Slice8 attention_output(const Slice32& average, const Inverse& inverse, const Slice16& m, int n) {
  HLS_INLINE
  constexpr int DROPPED = 15 - tables::sum_fraction - tables::average_fraction;
  static_assert(DROPPED == 1, "the shift in SPEC.md");
  constexpr int PRODUCT = AVERAGE_BITS + 15;  // R has 15 bits and no sign
  Slice8 result = {};
  HLS_LANES(result)
ATTENTION_OUTPUT:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    const Int<PRODUCT> scaled =
        static_cast<Int<PRODUCT>>(product<AVERAGE_BITS, 16>(average.lane[i], inverse.value));
    const int16_t u = clip16(rounding_shift<PRODUCT, SUM_BITS + DROPPED>(scaled, inverse.exponent + DROPPED));
    result.lane[i] = static_cast<int8_t>(requantise<16>(u, m.lane[i], n, -INT8_MAX, INT8_MAX, 0));
  }
  return result;
}

}  // namespace edge_moe

#endif
