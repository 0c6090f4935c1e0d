// SPDX-License-Identifier: Apache-2.0
// The scratch memory: activations on chip. SPEC.md, section 9.
//
// A word is 64 bytes in two halves that are separate memories with an address each. int8 rows are stored by
// pairs: word (row / 2) tiles + tile, even rows in the even half and odd rows in the odd one. So any two
// neighbouring rows, and any even row with any odd one, are read or written in one cycle. int16 rows are
// stored row by row, a tile's 32 channels in one word, the first 16 in the even half.
#ifndef EDGE_MOE_SHELL_SCRATCH_HPP
#define EDGE_MOE_SHELL_SCRATCH_HPP

#include <cstring>

#include "edge_moe/shell/storage.hpp"
#include "edge_moe_isa.hpp"

namespace edge_moe {

constexpr int SCRATCH_WORD_BYTES = 2 * LANES;
constexpr int SCRATCH_WORDS = config::scratch_bytes / SCRATCH_WORD_BYTES;
static_assert(SCRATCH_WORD_BYTES == isa::alignment, "addresses are those of words");
static_assert(isa::pair == 2 && config::tokens_parallel == 2, "rows go by pairs");
static_assert(config::scratch_bytes % SCRATCH_WORD_BYTES == 0, "whole words");
typedef Half ScratchHalf[SCRATCH_WORDS];
static_assert(isa::route_bytes == LANES, "a routing row is half a word");

// Tiles of 32 channels, and pairs of rows.
inline int tiles(int channels) {
  HLS_INLINE
  return (channels + LANES - 1) / LANES;
}

inline int pairs(int rows) {
  HLS_INLINE
  return (rows + 1) / 2;
}

// Number of a byte address's word.
inline int word_of(uint32_t address) {
  HLS_INLINE
  return static_cast<int>(address / SCRATCH_WORD_BYTES);
}

// A word's number, or 0 where there is no such word. Neighbours of the last row may lie beyond the memory;
// what is read for them is never used.
inline int within_scratch(int word) {
  HLS_INLINE
  return word >= 0 && word < SCRATCH_WORDS ? word : 0;
}

// 32 int16 channels from both halves of a word.
inline Beat16 join_halves(const Half& even, const Half& odd) {
  HLS_INLINE
  Beat16 result;
  HLS_LANES(result)
  const Beat8 first = unpack(even);
  const Beat8 second = unpack(odd);
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

// The halves of a word that holds 32 int16 channels.
inline void split_halves(const Beat16& beat, Half& even, Half& odd) {
  HLS_INLINE
  Beat8 first;
  HLS_LANES(first)
  Beat8 second;
  HLS_LANES(second)
#ifdef EDGE_MOE_EXACT_WIDTHS
SPLIT_HALVES:
  for (int i = 0; i < LANES / 2; ++i) {
    HLS_UNROLL
    first.lane[2 * i] = static_cast<int8_t>(beat.lane[i] & 0xFF);
    first.lane[2 * i + 1] = static_cast<int8_t>(beat.lane[i] >> 8);
    second.lane[2 * i] = static_cast<int8_t>(beat.lane[LANES / 2 + i] & 0xFF);
    second.lane[2 * i + 1] = static_cast<int8_t>(beat.lane[LANES / 2 + i] >> 8);
  }
#else
  std::memcpy(&first, &beat.lane[0], LANES);
  std::memcpy(&second, &beat.lane[LANES / 2], LANES);
#endif
  even = pack(first);
  odd = pack(second);
}

}  // namespace edge_moe

#endif
