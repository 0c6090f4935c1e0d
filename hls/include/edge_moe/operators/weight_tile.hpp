// SPDX-License-Identifier: Apache-2.0
// Weight tiles from the weight image: bit planes to int8, parameters, and tiles made from K and V.
// SPEC.md, section 9.
//
// A plane is 128 bytes. Bit n % 8 of byte n / 8 of plane p is bit p of weight n = 32 out + in; planes
// come from bit 0 up and the last one, the sign, fills the bits above it.
#ifndef EDGE_MOE_OPERATORS_WEIGHT_TILE_HPP
#define EDGE_MOE_OPERATORS_WEIGHT_TILE_HPP

#include <cstring>

#include "edge_moe/arithmetic.hpp"

namespace edge_moe {

// Bits that plane `bit` of `bits` planes decides: its own; the last plane also decides all higher ones.
inline uint8_t plane_bits(int bit, int bits) {
  HLS_INLINE
  const int own = 1 << bit;
  return static_cast<uint8_t>(bit == bits - 1 ? 0x100 - own : own);
}

// One plane into a tile. After all `bits` planes every bit of every weight has been decided once,
// so the tile's earlier contents do not matter.
//
// In hardware each bit of a tile is a register that takes the plane's bit when plane_bits says so: the
// only logic is an enable that 1,024 registers share.
inline void weight_tile_plane(WeightTile& tile, const Plane& plane, int bit, int bits) {
  HLS_INLINE
  const uint8_t decided = plane_bits(bit, bits);
#ifdef EDGE_MOE_EXACT_WIDTHS
PLANE_OUT:
  for (int out = 0; out < config::tile_out; ++out) {
    HLS_UNROLL
  PLANE_IN:
    for (int in = 0; in < config::tile_in; ++in) {
      HLS_UNROLL
      const int n = out * config::tile_in + in;
      const uint8_t old = static_cast<uint8_t>(tile.weight[out][in]);
      const bool set = ((plane.byte[n / 8] >> (n % 8)) & 1) != 0;
      const int kept = old & ~decided;
      tile.weight[out][in] = static_cast<int8_t>(set ? kept | decided : kept);
    }
  }
#else
  // eight weights at a time: copy the byte eight times, keep bit i in copy i, make it 0 or 1
  int8_t* weights = &tile.weight[0][0];
PLANE_OCTETS:
  for (int i = 0; i < PLANE_BYTES; ++i) {
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t picked = (plane.byte[i] * ones) & 0x8040201008040201u;
    const uint64_t set = ((picked + 0x7F * ones) >> 7) & ones;  // no byte carries: at most 0x80 + 0x7F
    uint64_t old = 0;
    std::memcpy(&old, weights + 8 * i, 8);
    const uint64_t merged = (old & ~(decided * ones)) | set * decided;
    std::memcpy(weights + 8 * i, &merged, 8);
  }
#endif
}

// 32 int32 parameters, one for each channel of a tile: the biases.
inline Slice32 plane_to_int32(const Plane& plane) {
  HLS_INLINE
  Slice32 result = {};
  HLS_LANES(result)
PLANE_INT32:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    const uint32_t value = plane.byte[4 * i] | static_cast<uint32_t>(plane.byte[4 * i + 1]) << 8 |
                           static_cast<uint32_t>(plane.byte[4 * i + 2]) << 16 |
                           static_cast<uint32_t>(plane.byte[4 * i + 3]) << 24;
    result.lane[i] = static_cast<int32_t>(value);
  }
  return result;
}

// 32 int16 parameters, the multipliers: half 0 of the plane for an even tile, half 1 for the odd one after it.
inline Slice16 plane_to_int16(const Plane& plane, int half) {
  HLS_INLINE
  Slice16 result = {};
  HLS_LANES(result)
PLANE_INT16:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    const int even = plane.byte[2 * i] | plane.byte[2 * i + 1] << 8;
    const int odd = plane.byte[2 * (LANES + i)] | plane.byte[2 * (LANES + i) + 1] << 8;
    result.lane[i] = static_cast<int16_t>(static_cast<uint16_t>(half == 0 ? even : odd));
  }
  return result;
}

// A key as the weights of output `out`: the tile's products with a query are then dot products.
inline void weight_tile_row(WeightTile& tile, int out, const Slice8& values) {
  HLS_INLINE
TILE_ROW:
  for (int in = 0; in < config::tile_in; ++in) {
    HLS_UNROLL
    tile.weight[out][in] = values.lane[in];
  }
}

// A value vector as the weights of input `in`: the tile's products with the numerators are then sums of V.
inline void weight_tile_column(WeightTile& tile, int in, const Slice8& values) {
  HLS_INLINE
TILE_COLUMN:
  for (int out = 0; out < config::tile_out; ++out) {
    HLS_UNROLL
    tile.weight[out][in] = values.lane[out];
  }
}

}  // namespace edge_moe

#endif
