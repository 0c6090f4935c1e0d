// SPDX-License-Identifier: Apache-2.0
// LAYERNORM: int16 rows to int8 rows, 32 channels a cycle. SPEC.md, sections 4 and 8.
#ifndef EDGE_MOE_EXECUTOR_LAYERNORM_HPP
#define EDGE_MOE_EXECUTOR_LAYERNORM_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/executor/parameters.hpp"
#include "edge_moe/operators/layernorm.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// LAYERNORM: a row's beats pass once for its moments; NORM_LAG iterations after the last beat, when the
// row's scale is known, they pass again, from a ring, while later rows are read.
static_assert((config::max_width + LANES - 1) / LANES + NORM_LAG < NORM_RING,
              "the ring holds a row and the lag");
static_assert(NORM_LAG + 2 < NORM_ROWS, "a row has at least one beat");

inline uint64_t pack(const RowNorm& norm) {
  HLS_INLINE
  const uint64_t total = static_cast<uint32_t>(norm.total);
  const uint64_t value = static_cast<uint16_t>(norm.inverse.value);
  const uint64_t exponent = static_cast<uint8_t>(norm.inverse.exponent);
  return total | value << 32 | exponent << 48;
}

inline RowNorm unpack_norm(uint64_t bits, int width) {
  HLS_INLINE
  const Inverse inverse = {static_cast<int16_t>((bits >> 32) & 0x7FFF),
                           static_cast<int8_t>((bits >> 48) & 0x7F)};
  const RowNorm norm = {static_cast<int32_t>(static_cast<uint32_t>(bits)), width, inverse};
  return norm;
}

inline int layernorm_steps(const isa::Instruction& i) {
  HLS_INLINE
  return (i.rows + 1) * tiles(i.in_channels) + NORM_LAG;
}

inline void layernorm_rows(const isa::Instruction& i, ScratchHalf even, ScratchHalf odd,
                           const WideParameters wide, const NarrowParameters narrow) {
  HLS_NO_INLINE
  const int row_tiles = tiles(i.in_channels);
  const int beats = i.rows * row_tiles;
  const int lag = row_tiles + NORM_LAG;
  const int steps = layernorm_steps(i);
  const int source = beat_of(i.src);
  const int destination = beat_of(i.dst);
  Half ring_even[NORM_RING];
  HLS_LUTRAM(ring_even)
  Half ring_odd[NORM_RING];
  HLS_LUTRAM(ring_odd)
  uint64_t norms[NORM_ROWS];
  HLS_LUTRAM(norms)
  Moments moments = layernorm_start();
  int read_tile = 0;
  int read_row = 0;
  int write_tile = 0;
  int write_row = 0;
LAYERNORM_STEPS:
  for (int step = 0; step < steps; ++step) {
    // carried: T and Q, an addition each, and counters; source and destination do not overlap
    HLS_PIPELINE
    HLS_INDEPENDENT(even)
    HLS_INDEPENDENT(odd)
    HLS_DISTANCE(ring_even, edge_moe::NORM_LAG)
    HLS_DISTANCE(ring_odd, edge_moe::NORM_LAG)
    HLS_DISTANCE(norms, edge_moe::NORM_LAG)
    HLS_TRIPS(1, edge_moe::SCRATCH_BEATS)
    if (step >= lag) {
      const int from = (step - lag) % NORM_RING;
      const Slice16 x = join_halves(ring_even[from], ring_odd[from]);
      const Slice32 beta = plane_to_int32(unpack_plane(wide[write_tile]));
      const Slice16 gamma = plane_to_int16(unpack_plane(narrow[write_tile / 2]), write_tile % 2);
      const Half y = pack(layernorm(x, unpack_norm(norms[write_row % NORM_ROWS], i.in_channels), gamma, beta,
                                    i.shift));
      const int to = destination + (write_row >> 1) * row_tiles + write_tile;
      if (write_row % 2 == 0) {
        even[to] = y;
      } else {
        odd[to] = y;
      }
      const bool done = write_tile == row_tiles - 1;
      write_tile = done ? 0 : write_tile + 1;
      write_row += done ? 1 : 0;
    }
    if (step < beats) {
      const Half first = even[source + step];
      const Half second = odd[source + step];
      ring_even[step % NORM_RING] = first;
      ring_odd[step % NORM_RING] = second;
      const int left = i.in_channels - read_tile * LANES;
      const Moments before = read_tile == 0 ? layernorm_start() : moments;
      moments = layernorm_add(before, join_halves(first, second), left < LANES ? left : LANES);
      const bool done = read_tile == row_tiles - 1;
      if (done) {
        norms[read_row % NORM_ROWS] = pack(layernorm_scale(moments, i.in_channels, i.epsilon));
      }
      read_tile = done ? 0 : read_tile + 1;
      read_row += done ? 1 : 0;
    }
  }
  tap::add(steps, NORM_DEPTH);
}

}  // namespace edge_moe

#endif
