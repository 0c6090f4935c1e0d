// SPDX-License-Identifier: Apache-2.0
// LayerNorm of a row of D int16 channels to int8. SPEC.md, section 4.
//   T = sum x, Q = sum x^2, V = D Q - T^2 + epsilon, (R, k) = reciprocal square root of V,
//   xhat = clip16(rs((D x - T) R, k + 5)), y = clip8(rs(xhat gamma + beta, n)).
// A row passes twice: its slices once for T and Q, once for y.
#ifndef EDGE_MOE_OPERATORS_LAYERNORM_HPP
#define EDGE_MOE_OPERATORS_LAYERNORM_HPP

#include "edge_moe/arithmetic.hpp"

namespace edge_moe {

// Worst cases for D <= 1024 channels of int16: |T| <= 2^25, Q <= 2^40, V < 2^52, |D x - T| < 2^26.
static_assert(config::max_width <= LAYERNORM_WIDTH, "LayerNorm is exact up to 1024 channels");
constexpr int TOTAL_BITS = 26;
constexpr int SQUARES_BITS = 41;
constexpr int SPREAD_BITS = 52;
constexpr int CENTRED_BITS = 27;

// T and Q of the slices so far.
struct Moments {
  int32_t total;
  int64_t squares;
};

inline Moments layernorm_start() {
  HLS_INLINE
  const Moments result = {0, 0};
  return result;
}

// Add the first `lanes` channels of a slice to the moments. Carried from slice to slice: one addition each
// to T and Q.
inline Moments layernorm_add(const Moments& moments, const Slice16& x, int lanes) {
  HLS_INLINE
  Int<TOTAL_BITS> total = 0;
  Uint<SQUARES_BITS> squares = 0;
LAYERNORM_SUMS:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    const int16_t value = i < lanes ? x.lane[i] : static_cast<int16_t>(0);
    total += value;
    squares += product<16, 16>(value, value);
  }
  const Moments result = {moments.total + static_cast<int32_t>(total),
                          moments.squares + static_cast<int64_t>(squares)};
  return result;
}

// Values that all channels of a row share.
struct RowNorm {
  int32_t total;    // T
  int32_t width;    // D
  Inverse inverse;  // R, k
};

// From the moments of a row of `width` channels; epsilon is at least 1.
inline RowNorm layernorm_scale(const Moments& moments, int width, uint32_t epsilon) {
  HLS_INLINE
  const Int<TOTAL_BITS> total = moments.total;
  const Int<SQUARES_BITS + 1> squares = moments.squares;
  const Int<12> channels = width;
  const Int<SPREAD_BITS + 1> spread =
      static_cast<Int<SPREAD_BITS + 1>>(product<SQUARES_BITS + 1, 12>(squares, channels)) -
      static_cast<Int<SPREAD_BITS + 1>>(product<TOTAL_BITS, TOTAL_BITS>(total, total)) + epsilon;
  const RowNorm result = {moments.total, width, reciprocal_sqrt<SPREAD_BITS>(spread)};
  return result;
}

// One channel.
inline int8_t layernorm_channel(int16_t x, const RowNorm& norm, int16_t gamma, int32_t beta, int n) {
  HLS_INLINE
  constexpr int DROPPED = 15 - tables::xhat_fraction;
  constexpr int PRODUCT = CENTRED_BITS + 15;  // R has 15 bits and no sign
  const Int<CENTRED_BITS> centred =
      static_cast<Int<CENTRED_BITS>>(product<12, 16>(norm.width, x)) - norm.total;
  const Int<PRODUCT> scaled =
      static_cast<Int<PRODUCT>>(product<CENTRED_BITS, 16>(centred, norm.inverse.value));
  // k is at most 25, half the bits of V
  const int16_t xhat =
      clip16(rounding_shift<PRODUCT, SPREAD_BITS / 2 + DROPPED>(scaled, norm.inverse.exponent + DROPPED));
  // the network's check bounds xhat gamma + beta by 2^31 - 1; a damaged one may need another bit
  const Int<33> affine = static_cast<Int<33>>(product<16, 16>(xhat, gamma)) + beta;
  return static_cast<int8_t>(saturate(rounding_shift<33, isa::norm_shift_limit>(affine, n), INT8_MIN, INT8_MAX));
}

// A slice of the result; n in [1, isa::norm_shift_limit].
inline Slice8 layernorm(const Slice16& x, const RowNorm& norm, const Slice16& gamma, const Slice32& beta,
                        int n) {
  HLS_INLINE
  Slice8 result = {};
  HLS_LANES(result)
LAYERNORM_LANES:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = layernorm_channel(x.lane[i], norm, gamma.lane[i], beta.lane[i], n);
  }
  return result;
}

}  // namespace edge_moe

#endif
