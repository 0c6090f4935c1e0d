// SPDX-License-Identifier: Apache-2.0
// Integers of given widths, slices of 32 channels, planes and tiles of weights. SPEC.md, section 1.
//
// Values that are stored or passed on are standard integers (int8_t, int16_t, int32_t). Intermediate
// values have the width of their worst case: Int<W> in two's complement, Uint<W> from 0 up. In
// synthesis, or with EDGE_MOE_EXACT_WIDTHS, these wrap at exactly W bits; otherwise they are the
// narrowest standard type that holds them, so that g++ can vectorise. The operator tests compare both
// forms: a width that is too small cannot pass.
#ifndef EDGE_MOE_TYPES_HPP
#define EDGE_MOE_TYPES_HPP

#include <cstdint>
#include <type_traits>

#include "edge_moe_config.hpp"
#include "edge_moe_design.hpp"
#include "edge_moe_isa.hpp"
#include "edge_moe/vendor.hpp"

#if defined(__SYNTHESIS__) && !defined(EDGE_MOE_EXACT_WIDTHS)
#define EDGE_MOE_EXACT_WIDTHS 1
#endif
#ifdef EDGE_MOE_EXACT_WIDTHS
#include <ap_int.h>
#endif

namespace edge_moe {

template <int W>
struct Width {
  static_assert(W >= 1 && W <= 64, "intermediate values have at most 64 bits");
#ifdef EDGE_MOE_EXACT_WIDTHS
  typedef ap_int<W> Signed;
  typedef ap_uint<W> Unsigned;
#else
  typedef typename std::conditional<(W <= 32), int32_t, int64_t>::type Signed;
  // signed nevertheless: differences of these values must not wrap
  typedef typename std::conditional<(W <= 31), int32_t, int64_t>::type Unsigned;
#endif
};

template <int W>
using Int = typename Width<W>::Signed;
template <int W>
using Uint = typename Width<W>::Unsigned;

constexpr int LANES = config::tile_in;  // channels of a slice
static_assert(config::tile_in == config::tile_out, "what leaves the compute unit enters it again");

// One slice: 32 channels of one token.
template <typename T>
struct Lanes {
  T lane[LANES];
};

typedef Lanes<int8_t> Slice8;
typedef Lanes<int16_t> Slice16;
typedef Lanes<int32_t> Slice32;

// The compute unit's stationary operand: weight[out][in], all in [-127, 127].
struct WeightTile {
  int8_t weight[config::tile_out][config::tile_in];
};

static_assert(8 * PLANE_BYTES == config::tile_in * config::tile_out, "a plane is a bit of a tile's weights");

struct Plane {
  uint8_t byte[PLANE_BYTES];
};

// Bits that hold every value from 0 to `value`.
constexpr int bits_of(unsigned long long value) { return value == 0 ? 0 : 1 + bits_of(value / 2); }

// The same value in every lane.
template <typename T>
inline Lanes<T> fill(T value) {
  HLS_INLINE
  Lanes<T> result = {};
  HLS_LANES(result)
FILL_LANES:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = value;
  }
  return result;
}

// 32 neighbouring elements of an array as a slice.
template <typename T>
inline Lanes<T> load(const T* from) {
  HLS_INLINE
  Lanes<T> result = {};
  HLS_LANES(result)
LOAD_LANES:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = from[i];
  }
  return result;
}

// A slice into 32 neighbouring elements of an array.
template <typename T>
inline void store(T* to, const Lanes<T>& slice) {
  HLS_INLINE
STORE_LANES:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    to[i] = slice.lane[i];
  }
}

}  // namespace edge_moe

#endif
