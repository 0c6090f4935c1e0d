// SPDX-License-Identifier: Apache-2.0
// Route of one token: the k largest of its gate's logits, and their scores. SPEC.md, section 4.
//
// Logits come one by one: route_offer merges each into the best so far and the largest scaled logit. A
// second pass over them sums the numerators (route_numerator); then route_score serves each chosen one.
#ifndef EDGE_MOE_OPERATORS_ROUTE_HPP
#define EDGE_MOE_OPERATORS_ROUTE_HPP

#include "edge_moe/operators/requantise.hpp"

namespace edge_moe {

constexpr int MAX_TOP_K = config::max_top_k;  // number of best logits to keep
static_assert(config::max_top_k <= tables::top_k_limit, "an accumulated product sum has room for 8");
// a numerator is at most 2^15
constexpr int ROUTE_SUM_BITS = bits_of(32768ull * config::max_experts);

// One of the largest logits so far.
struct Choice {
  bool taken;
  uint16_t expert;
  int32_t logit;
  int16_t scaled;  // base-2 logit in Q8
};

// The MAX_TOP_K largest logits in falling order, and the largest scaled one.
struct RouteState {
  Choice best[MAX_TOP_K];
  int16_t maximum;
};

inline RouteState route_start() {
  HLS_INLINE
  RouteState state = {};
  state.maximum = INT16_MIN;
  return state;
}

// Base-2 logit in Q8.
inline int16_t route_scale(int32_t logit, int16_t m, int n) {
  HLS_INLINE
  return static_cast<int16_t>(requantise<32>(logit, m, n, INT16_MIN, INT16_MAX, 0));
}

// Insertion: a new logit takes the first place whose logit is smaller, later ones move back. Experts
// come in rising order, so that of equal logits the lower index stays first. All comparisons are made
// at once; carried from one logit to the next: one comparison and one selection.
inline void route_offer(RouteState& state, int expert, int32_t logit, int16_t scaled) {
  HLS_INLINE
  const Choice fresh = {true, static_cast<uint16_t>(expert), logit, scaled};
  bool smaller[MAX_TOP_K] = {};
  HLS_REGISTERS(smaller)
ROUTE_COMPARE:
  for (int i = 0; i < MAX_TOP_K; ++i) {
    HLS_UNROLL
    smaller[i] = !state.best[i].taken || state.best[i].logit < logit;
  }
ROUTE_INSERT:
  for (int i = MAX_TOP_K - 1; i >= 0; --i) {
    HLS_UNROLL
    if (smaller[i]) {
      state.best[i] = i > 0 && smaller[i > 0 ? i - 1 : 0] ? state.best[i > 0 ? i - 1 : 0] : fresh;
    }
  }
  state.maximum = scaled > state.maximum ? scaled : state.maximum;
}

// P of an expert in Q15, given the largest scaled logit.
inline int32_t route_numerator(int16_t scaled, int16_t maximum) {
  HLS_INLINE
  const int16_t exponent = static_cast<int16_t>((maximum >> tables::exp2_bits) + 1);
  const Numerator exact = numerator(scaled, exponent, tables::exponent_limit);
  return static_cast<int32_t>(rounding_shift<17, tables::exponent_limit>(exact.entry, exact.shift));
}

// (R, j) of the sum of all experts' numerators.
inline Inverse route_inverse(int32_t sum) {
  HLS_INLINE
  return reciprocal<ROUTE_SUM_BITS>(sum);
}

// Score in Q15.
inline int16_t route_score(int32_t numerator, const Inverse& inverse) {
  HLS_INLINE
  static_assert(tables::score_fraction == 15, "the product's fraction bits are all dropped");
  const Int<32> scaled = static_cast<Int<32>>(product<17, 16>(numerator, inverse.value));
  const int32_t score = static_cast<int32_t>(rounding_shift<32, ROUTE_SUM_BITS>(scaled, inverse.exponent));
  return static_cast<int16_t>(score > INT16_MAX ? INT16_MAX : score);
}

}  // namespace edge_moe

#endif
