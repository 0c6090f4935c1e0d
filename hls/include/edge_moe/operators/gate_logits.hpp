// SPDX-License-Identifier: Apache-2.0
// Logits of a gate from int16 weights, each stored as two int8 halves: 2^gate_low_bits high + low. A tile has
// gate_experts rows of high halves, then as many of low ones. SPEC.md, section 4.
#ifndef EDGE_MOE_OPERATORS_GATE_LOGITS_HPP
#define EDGE_MOE_OPERATORS_GATE_LOGITS_HPP

#include "edge_moe/arithmetic.hpp"

namespace edge_moe {

// High half of a weight in [-16319, 16319]; low in [-64, 63].
inline int8_t gate_high(int16_t weight) {
  HLS_INLINE
  return static_cast<int8_t>((weight + (1 << (isa::gate_low_bits - 1))) >> isa::gate_low_bits);
}

inline int8_t gate_low(int16_t weight) {
  HLS_INLINE
  return static_cast<int8_t>(weight - gate_high(weight) * (1 << isa::gate_low_bits));
}

// Logit from the bias and the sums of both halves without it. |128 high| <= 128 * 127 * 128 * D < 2^31 for
// D <= 1024, and the network's check bounds the rest.
inline int32_t gate_logit(int32_t high, int32_t low, int32_t bias) {
  HLS_INLINE
  const uint32_t shifted = static_cast<uint32_t>(high) << isa::gate_low_bits;
  return wrapping_add(wrapping_add(static_cast<int32_t>(shifted), low), bias);
}

}  // namespace edge_moe

#endif
