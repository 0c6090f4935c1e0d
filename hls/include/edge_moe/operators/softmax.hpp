// SPDX-License-Identifier: Apache-2.0
// Softmax of base 2 over blocks of 32 keys, in one pass. SPEC.md, section 4.
//
// softmax_start gives a query's state before its first block. softmax_block adds a block of logits to it, and
// gives the block's numerators and the right shift of all earlier sums. After the last block softmax_inverse
// gives 1 over the sum. A query keeps M, S (SoftmaxState) between blocks; its logits live for one call.
#ifndef EDGE_MOE_OPERATORS_SOFTMAX_HPP
#define EDGE_MOE_OPERATORS_SOFTMAX_HPP

#include "edge_moe/arithmetic.hpp"

namespace edge_moe {

static_assert(config::key_block == LANES, "a block's logits are one slice");
static_assert(config::key_block == tables::key_block, "results depend on the block");
static_assert(config::max_tokens <= tables::token_limit, "attention is exact up to 4096 tokens");
// S <= 127 * 256 * 4096
constexpr int SUM_BITS = bits_of(127ull * 256 * tables::token_limit);
constexpr int MAX_RESCALE = tables::exponent_limit;
static_assert(SUM_BITS == 27, "the width in SPEC.md, section 5");

// M and S of one query: an integer above every base-2 logit so far, and the sum of the numerators in Q8.
struct SoftmaxState {
  int16_t exponent;
  int32_t sum;
};

inline SoftmaxState softmax_start() {
  HLS_INLINE
  const SoftmaxState result = {-(1 << (15 - tables::exp2_bits)), 0};
  return result;
}

// Results of one block: numerators in [0, 127] and the right shift of all earlier sums.
struct SoftmaxBlock {
  Slice8 numerator;
  uint8_t rescale;
};

// The first `keys` logits, and the smallest value in the other lanes, which may hold anything.
inline Slice16 softmax_valid(const Slice16& logits, int keys) {
  HLS_INLINE
  Slice16 result = {};
  HLS_LANES(result)
SOFTMAX_VALID:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = i < keys ? logits.lane[i] : static_cast<int16_t>(INT16_MIN);
  }
  return result;
}

inline int16_t softmax_maximum(const Slice16& logits) {
  HLS_INLINE
  int16_t result = INT16_MIN;
SOFTMAX_MAXIMUM:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result = logits.lane[i] > result ? logits.lane[i] : result;
  }
  return result;
}

// Add the first `keys` logits of a block to a query's state; the other lanes get the numerator 0.
// Carried from block to block: a maximum, a shift and an addition.
inline SoftmaxBlock softmax_block(const Slice16& logits, int keys, SoftmaxState& state) {
  HLS_INLINE
  // beyond this shift the numerator is 0: rs(2^15, SCALE + LIMIT) = 0
  constexpr int SCALE = tables::exp2_one - 7;
  constexpr int LIMIT = 15;
  static_assert(SCALE + LIMIT >= 17 && LIMIT <= tables::exponent_limit, "a larger shift gives 0 as well");
  const Slice16 valid = softmax_valid(logits, keys);
  const int16_t block_exponent = static_cast<int16_t>((softmax_maximum(valid) >> tables::exp2_bits) + 1);
  const int16_t raised = block_exponent > state.exponent ? block_exponent : state.exponent;
  const int difference = raised - state.exponent;
  SoftmaxBlock block = {};
  HLS_LANES(block.numerator)
  block.rescale = static_cast<uint8_t>(difference > MAX_RESCALE ? MAX_RESCALE : difference);
  Uint<12> total = 0;  // at most 32 * 127
SOFTMAX_NUMERATORS:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    const Numerator exact = numerator(valid.lane[i], raised, LIMIT);
    const Int<17> rounded = rounding_shift<17, SCALE + LIMIT>(exact.entry, exact.shift + SCALE);
    const int32_t limited = saturate(rounded, 0, INT8_MAX);
    const int32_t value = i < keys ? limited : 0;
    block.numerator.lane[i] = static_cast<int8_t>(value);
    total += value;
  }
  const Int<SUM_BITS + 1> before = state.sum;
  state.sum = static_cast<int32_t>(rounding_shift<SUM_BITS + 1, MAX_RESCALE>(before, block.rescale)) +
              static_cast<int32_t>(total) * (1 << tables::sum_fraction);
  state.exponent = raised;
  return block;
}

// (R, e) of S.
inline Inverse softmax_inverse(const SoftmaxState& state) {
  HLS_INLINE
  return reciprocal<SUM_BITS>(state.sum);
}

}  // namespace edge_moe

#endif
