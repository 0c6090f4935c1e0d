// SPDX-License-Identifier: Apache-2.0
// The scratch memory: activations on chip. SPEC.md, section 9.
//
// A beat is 64 bytes in two halves, which are separate memories with their own addresses. int8 rows are
// stored in pairs: beat (row / 2) tiles + tile, even rows in the even half and odd rows in the odd one. So any two
// neighbouring rows, and any even row with any odd one, are read or written in one cycle. int16 rows are
// stored row by row, a tile's 32 channels in one beat, the first 16 in the even half.
#ifndef EDGE_MOE_SHELL_SCRATCH_HPP
#define EDGE_MOE_SHELL_SCRATCH_HPP

#include <cstring>

#include "edge_moe/shell/storage.hpp"
#include "edge_moe_opcodes.hpp"

namespace edge_moe {

static_assert(BEAT_BYTES == isa::alignment, "addresses are those of beats");
static_assert(isa::pair == 2 && config::tokens_parallel == 2, "rows are stored in pairs");
static_assert(config::scratch_bytes % BEAT_BYTES == 0, "whole beats");
typedef Half ScratchHalf[SCRATCH_BEATS];
static_assert(isa::route_bytes == LANES, "a routing row is half a beat");

using isa::gate_tiles;
using isa::pairs;
using isa::tiles;
static_assert(isa::tile == LANES, "a tile takes in a slice");

// Number of a byte address's beat.
inline int beat_of(uint32_t address) {
  HLS_INLINE
  return static_cast<int>(address / BEAT_BYTES);
}

// A beat's number, or 0 if there is no such beat. Neighbours of the last row may be beyond the memory;
// the values read for them are never used.
inline int within_scratch(int beat) {
  HLS_INLINE
  return beat >= 0 && beat < SCRATCH_BEATS ? beat : 0;
}

// 32 int16 channels from both halves of a beat.
inline Slice16 join_halves(const Half& even, const Half& odd) {
  HLS_INLINE
  Slice16 result;
  HLS_LANES(result)
  const Slice8 first = unpack(even);
  const Slice8 second = unpack(odd);
#ifdef EDGE_MOE_EXACT_WIDTHS
JOIN_HALVES:
  for (int i = 0; i < LANES / 2; ++i) {
    HLS_UNROLL
    result.lane[i] = static_cast<int16_t>(static_cast<uint8_t>(first.lane[2 * i]) |
                                          static_cast<uint8_t>(first.lane[2 * i + 1]) << 8);
    const int high = static_cast<uint8_t>(second.lane[2 * i + 1]);
    result.lane[LANES / 2 + i] = static_cast<int16_t>(static_cast<uint8_t>(second.lane[2 * i]) | high << 8);
  }
#else
  std::memcpy(&result.lane[0], &first, LANES);
  std::memcpy(&result.lane[LANES / 2], &second, LANES);
#endif
  return result;
}

// The halves of a beat that holds 32 int16 channels.
inline void split_halves(const Slice16& slice, Half& even, Half& odd) {
  HLS_INLINE
  Slice8 first;
  HLS_LANES(first)
  Slice8 second;
  HLS_LANES(second)
#ifdef EDGE_MOE_EXACT_WIDTHS
SPLIT_HALVES:
  for (int i = 0; i < LANES / 2; ++i) {
    HLS_UNROLL
    first.lane[2 * i] = static_cast<int8_t>(slice.lane[i] & 0xFF);
    first.lane[2 * i + 1] = static_cast<int8_t>(slice.lane[i] >> 8);
    second.lane[2 * i] = static_cast<int8_t>(slice.lane[LANES / 2 + i] & 0xFF);
    second.lane[2 * i + 1] = static_cast<int8_t>(slice.lane[LANES / 2 + i] >> 8);
  }
#else
  std::memcpy(&first, &slice.lane[0], LANES);
  std::memcpy(&second, &slice.lane[LANES / 2], LANES);
#endif
  even = pack(first);
  odd = pack(second);
}

}  // namespace edge_moe

#endif
