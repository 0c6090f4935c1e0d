// SPDX-License-Identifier: Apache-2.0
// Rounding, saturation, products, and the tables of 1/v and 1/sqrt(v). SPEC.md, sections 2 and 3.
#ifndef EDGE_MOE_ARITHMETIC_HPP
#define EDGE_MOE_ARITHMETIC_HPP

#include "edge_moe/types.hpp"
#include "edge_moe_tables.hpp"

namespace edge_moe {

// The product of a (WA bits) and b (WB bits), in WA + WB bits.
template <int WA, int WB>
inline Int<WA + WB> product(Int<WA> a, Int<WB> b) {
  HLS_INLINE
#ifdef EDGE_MOE_EXACT_WIDTHS
  return a * b;  // one multiplier of WA x WB bits
#else
  return static_cast<Int<WA + WB>>(a) * static_cast<Int<WA + WB>>(b);
#endif
}

// rs(v, n) = (v + (1 << n >> 1)) >> n for n in [0, MAX_SHIFT], v of W bits.
//
// Written as (((2 v) >> n) + 1) >> 1, which is equal: 2 v >> n keeps one bit below the result, and half a
// unit is 1 of that bit. So the hardware is one shifter of W + 1 bits and an increment, for every n.
template <int W, int MAX_SHIFT>
inline Int<W> rounding_shift(Int<W> v, int n) {
  HLS_INLINE
  // a standard type must be wider than the shift; 64 bits are
  constexpr int WIDE = W + 1 > MAX_SHIFT ? W + 1 : MAX_SHIFT + 1;
  static_assert(MAX_SHIFT < 64 && WIDE <= 64, "shift too wide");
  const Int<WIDE> twice = static_cast<Int<WIDE>>(v) * 2;
  const Uint<bits_of(MAX_SHIFT)> shift = n;
  return static_cast<Int<W>>(((twice >> shift) + 1) >> 1);
}

// clip(v, low, high).
template <typename T>
inline int32_t saturate(T v, int32_t low, int32_t high) {
  HLS_INLINE
  return v < low ? low : v > high ? high : static_cast<int32_t>(v);
}

inline int8_t clip8(int32_t v) {
  HLS_INLINE
  return static_cast<int8_t>(saturate(v, INT8_MIN, INT8_MAX));
}

template <typename T>
inline int16_t clip16(T v) {
  HLS_INLINE
  return static_cast<int16_t>(saturate(v, INT16_MIN, INT16_MAX));
}

// a + b modulo 2**32. Checked networks never reach the ends of int32; damaged weights may.
inline int32_t wrapping_add(int32_t a, int32_t b) {
  HLS_INLINE
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

// floor(log2(v)), v of W bits and not 0: the index of the highest set bit.
template <int W>
inline int floor_log2(Uint<W> v) {
  HLS_INLINE
  int result = 0;
HIGHEST_BIT:
  for (int i = 0; i < W; ++i) {
    HLS_UNROLL
    if (((v >> i) & 1) != 0) {
      result = i;
    }
  }
  return result;
}

// value 2**(-15 - exponent) is about 1/v or 1/sqrt(v). value is below 2**15, like every table's entries.
struct Inverse {
  int16_t value;
  int8_t exponent;
};

// About 1/v, within 2**-11; v of W bits, at least 1. Exponent floor(log2 v).
template <int W>
inline Inverse reciprocal(Uint<W> v) {
  HLS_INLINE
  constexpr int BITS = tables::mantissa_bits;
  // wide enough for the leading one and the bits below it; the leading one moves to bit WIDE - 1
  constexpr int WIDE = W > BITS ? W : BITS + 1;
  static_assert(WIDE < 64, "argument too wide");
  const int k = floor_log2<W>(v);
  const Uint<WIDE> normalised = static_cast<Uint<WIDE>>(v) << (WIDE - 1 - k);
  const int index = static_cast<int>(normalised >> (WIDE - 1 - BITS)) & ((1 << BITS) - 1);
  const Inverse result = {static_cast<int16_t>(tables::reciprocal[index]), static_cast<int8_t>(k)};
  return result;
}

// About 1/sqrt(v), within 2**-11; v of W bits, at least 1. Exponent floor(log4 v).
template <int W>
inline Inverse reciprocal_sqrt(Uint<W> v) {
  HLS_INLINE
  constexpr int BITS = tables::mantissa_bits + 1;  // of the mantissa in [512, 2048)
  // even, so that a shift by pairs of bits brings the leading one to bit WIDE - 1 or WIDE - 2
  constexpr int EVEN = W + W % 2;
  constexpr int WIDE = EVEN > BITS + 1 ? EVEN : BITS + 1;
  static_assert(WIDE % 2 == 0 && WIDE < 64, "argument too wide");
  const int k = floor_log2<W>(v) >> 1;
  const Uint<WIDE> normalised = static_cast<Uint<WIDE>>(v) << (WIDE - 2 - 2 * k);
  const int mantissa = static_cast<int>(normalised >> (WIDE - BITS));
  const Inverse result = {static_cast<int16_t>(tables::rsqrt[mantissa - (1 << (BITS - 2))]),
                          static_cast<int8_t>(k)};
  return result;
}

// Numerator of 2**(-below / 256) in Q15: an entry of EXP2 and its right shift.
struct Numerator {
  int32_t entry;
  int32_t shift;
};

// 2**(logit - exponent) for a base-2 logit in Q8 below 256 exponent. `limit` replaces greater shifts.
inline Numerator numerator(int16_t logit, int16_t exponent, int limit) {
  HLS_INLINE
  constexpr int BITS = tables::exp2_bits;
  // exponent is at most 128 and the logit at least -2**15: at most 2**16
  const Uint<17> below = static_cast<int32_t>(exponent) * (1 << BITS) - logit;
  const int shift = static_cast<int>(below >> BITS);
  const Numerator result = {tables::exp2[static_cast<int>(below) & ((1 << BITS) - 1)],
                            shift > limit ? limit : shift};
  return result;
}

}  // namespace edge_moe

#endif
