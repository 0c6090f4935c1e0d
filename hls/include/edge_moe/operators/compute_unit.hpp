// SPDX-License-Identifier: Apache-2.0
// The one array of multipliers: y[token][out] = sum over in of w[out][in] x[token][in], for 32 x 32
// stationary weights and two tokens a step. It forms every product of the model. SPEC.md, section 4.
//
// Both tokens use the same weight, so one 27 x 18 multiplier forms both products:
//   (x1 2^18 + x0) w = (x1 w) 2^18 + x0 w.
// x1 2^18 + x0 has 27 bits, as |x1 2^18 + x0| <= 2^25 + 2^7. Along a cascade of 8 multipliers the low
// lane sums to at most 8 * 127 * 128 = 130,048 < 2^17: it keeps its sign within its own 18 bits, so the
// lanes can be separated: low is the sum's bits [17:0] in two's complement, high is the rest plus 1
// if low is negative (its bit 17). Weights of -128 would break this; there are none.
//
// g++ computes the products one by one (compute_unit_native), which it vectorises; synthesis computes
// them in pairs (compute_unit_packed). The tests check both for equality with every pair of operands.
#ifndef EDGE_MOE_OPERATORS_COMPUTE_UNIT_HPP
#define EDGE_MOE_OPERATORS_COMPUTE_UNIT_HPP

#include "edge_moe/arithmetic.hpp"

namespace edge_moe {

static_assert(CASCADE * WEIGHT_LIMIT * INPUT_LIMIT < (1 << (LOW_LANE - 1)), "the low lane would overflow");
static_assert((INPUT_LIMIT << LOW_LANE) + INPUT_LIMIT <= (1 << 26), "the packed operand has 27 bits");
static_assert(config::tile_in % CASCADE == 0, "cascades of equal length");
static_assert(config::tokens_parallel == 2, "two tokens share a multiplier");
constexpr int CASCADES = config::tile_in / CASCADE;
// |sum of 32 products| <= 32 * 127 * 128 = 520,192
constexpr int TILE_SUM_BITS = 1 + bits_of(config::tile_in * WEIGHT_LIMIT * INPUT_LIMIT);

// The two sums of one cascade: low for the first token, high for the second.
struct DualSum {
  int32_t low;
  int32_t high;
};

// Sums of COUNT <= 8 products each, w[i] x0[i] and w[i] x1[i], through COUNT multipliers.
template <int COUNT>
inline DualSum dual_dot(const int8_t* w, const int8_t* x0, const int8_t* x1) {
  HLS_INLINE
  static_assert(COUNT <= CASCADE, "lanes must be separated after 8 products");
  Int<38> sum = 0;  // 27 + 8 bits of a product, 3 more for 8 of them
CASCADE_SUM:
  for (int i = 0; i < COUNT; ++i) {
    HLS_UNROLL
    const Int<27> packed = static_cast<Int<27>>(x1[i]) * (1 << LOW_LANE) + x0[i];
    sum += product<27, 8>(packed, w[i]);
  }
  constexpr int32_t SIGN = 1 << (LOW_LANE - 1);
  const int32_t raw = static_cast<int32_t>(static_cast<int64_t>(sum) & (2 * SIGN - 1));
  const DualSum result = {(raw ^ SIGN) - SIGN,
                          static_cast<int32_t>(sum >> LOW_LANE) + (raw >> (LOW_LANE - 1))};
  return result;
}

// 32 outputs x 4 cascades of 8 multipliers: 1,024 DSP48E2; then two adder trees of 4 for each output.
inline void compute_unit_packed(const WeightTile& tile, const Slice8& x0, const Slice8& x1, Slice32& y0,
                                Slice32& y1) {
  HLS_INLINE
PACKED_OUT:
  for (int out = 0; out < config::tile_out; ++out) {
    HLS_UNROLL
    Int<TILE_SUM_BITS> low = 0;
    Int<TILE_SUM_BITS> high = 0;
  PACKED_CASCADES:
    for (int part = 0; part < CASCADES; ++part) {
      HLS_UNROLL
      const int from = part * CASCADE;
      const DualSum sums = dual_dot<CASCADE>(&tile.weight[out][from], &x0.lane[from], &x1.lane[from]);
      low += sums.low;
      high += sums.high;
    }
    y0.lane[out] = static_cast<int32_t>(low);
    y1.lane[out] = static_cast<int32_t>(high);
  }
}

// compute_unit_packed's sums, product by product.
inline void compute_unit_native(const WeightTile& tile, const Slice8& x0, const Slice8& x1, Slice32& y0,
                                Slice32& y1) {
NATIVE_OUT:
  for (int out = 0; out < config::tile_out; ++out) {
    int32_t sum0 = 0;
    int32_t sum1 = 0;
  NATIVE_IN:
    for (int in = 0; in < config::tile_in; ++in) {
      const int16_t weight = tile.weight[out][in];
      sum0 += weight * static_cast<int16_t>(x0.lane[in]);
      sum1 += weight * static_cast<int16_t>(x1.lane[in]);
    }
    y0.lane[out] = sum0;
    y1.lane[out] = sum1;
  }
}

// One step: the tile's products with two tokens, y0 and y1 overwritten.
inline void compute_unit(const WeightTile& tile, const Slice8& x0, const Slice8& x1, Slice32& y0, Slice32& y1) {
  HLS_INLINE
#ifdef EDGE_MOE_EXACT_WIDTHS
  compute_unit_packed(tile, x0, x1, y0, y1);
#else
  compute_unit_native(tile, x0, x1, y0, y1);
#endif
}

// Accumulators plus the sums of one step.
inline Slice32 accumulate(const Slice32& accumulator, const Slice32& y) {
  HLS_INLINE
  Slice32 result = {};
  HLS_LANES(result)
ACCUMULATE:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = wrapping_add(accumulator.lane[i], y.lane[i]);
  }
  return result;
}

}  // namespace edge_moe

#endif
