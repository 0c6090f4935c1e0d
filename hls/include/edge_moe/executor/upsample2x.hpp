// SPDX-License-Identifier: Apache-2.0
// UPSAMPLE2X: an int8 map enlarged by two. SPEC.md, sections 4 and 8.
#ifndef EDGE_MOE_EXECUTOR_UPSAMPLE2X_HPP
#define EDGE_MOE_EXECUTOR_UPSAMPLE2X_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/operators/upsample2x.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// UPSAMPLE2X: two neighbouring pixels of a line are read per cycle, so the two lines around an output line
// take turns, and two output pixels are written in every cycle: those of column step - 2.
struct Window {
  Half left[2];     // column before `pair`, of both lines
  Half pair[2][2];  // [line][column] of the last two columns
  Half coming[2];   // of the upper line's next two
};

inline int upsample_line_steps(const isa::Instruction& i) {
  HLS_INLINE
  return i.width + 2;
}

inline int upsample_steps(const isa::Instruction& i) {
  HLS_INLINE
  return 2 * i.height * tiles(i.in_channels) * upsample_line_steps(i);
}

// Output pixels 2 x and 2 x + 1 from columns x - 1, x, x + 1 of both lines.
inline void upsample_pair(const Half (&before)[2], const Half (&at)[2], const Half (&after)[2],
                          int row_weight, Half& first, Half& second) {
  HLS_INLINE
  const Slice8 at0 = unpack(at[0]);
  const Slice8 at1 = unpack(at[1]);
  first = pack(upsample2x(unpack(before[0]), at0, unpack(before[1]), at1, row_weight, 3));
  second = pack(upsample2x(at0, unpack(after[0]), at1, unpack(after[1]), row_weight, 1));
}

inline void upsample_rows(const isa::Instruction& i, ScratchHalf even, ScratchHalf odd) {
  HLS_NO_INLINE
  const int row_tiles = tiles(i.in_channels);
  const int steps = upsample_steps(i);
  const int line_steps = upsample_line_steps(i);
  const int source = beat_of(i.src);
  const int destination = beat_of(i.dst);
  Window window = {};
  int column = 0;
  int tile = 0;
  int line = 0;
UPSAMPLE_STEPS:
  for (int step = 0; step < steps; ++step) {
    // carried: the window, moved or kept, and counters; source and destination do not overlap
    HLS_PIPELINE
    HLS_INDEPENDENT(even)
    HLS_INDEPENDENT(odd)
    HLS_TRIPS(1, 4 * edge_moe::SCRATCH_BEATS)
    const UpsampleTaps rows = upsample2x_taps(line, i.height);
    const bool lower = column % 2 != 0;
    const int pixel = (lower ? rows.upper : rows.lower) * i.width + (column & ~1);
    const Half from_even = even[within_scratch(source + ((pixel + 1) >> 1) * row_tiles + tile)];
    const Half from_odd = odd[within_scratch(source + (pixel >> 1) * row_tiles + tile)];
    const Half one = pixel % 2 == 0 ? from_even : from_odd;
    const Half two = pixel % 2 == 0 ? from_odd : from_even;
    const int x = column - 2;
    // columns x - 1, x, x + 1 of both lines; x is even when only the upper line has been read
    const Half arriving[2] = {window.coming[0], one};
    Half before[2];
    Half at[2];
    Half after[2];
  WINDOW_LINES:
    for (int j = 0; j < 2; ++j) {
      HLS_UNROLL
      at[j] = lower ? window.pair[j][1] : window.pair[j][0];
      before[j] = x <= 0 ? at[j] : lower ? window.pair[j][0] : window.left[j];
      after[j] = x == i.width - 1 ? at[j] : lower ? arriving[j] : window.pair[j][1];
    }
    if (x >= 0) {
      Half first;
      Half second;
      upsample_pair(before, at, after, rows.upper_weight, first, second);
      const int to = destination + (line * i.width + x) * row_tiles + tile;
      even[to] = first;
      odd[to] = second;
    }
    if (lower) {
    WINDOW_MOVE:
      for (int j = 0; j < 2; ++j) {
        HLS_UNROLL
        window.left[j] = window.pair[j][1];
        window.pair[j][0] = arriving[j];
        window.pair[j][1] = j == 0 ? window.coming[1] : two;
      }
    } else {
      window.coming[0] = one;
      window.coming[1] = two;
    }
    const bool line_done = column == line_steps - 1;
    column = line_done ? 0 : column + 1;
    const bool tile_done = line_done && tile == row_tiles - 1;
    tile = tile_done ? 0 : tile + (line_done ? 1 : 0);
    line += tile_done ? 1 : 0;
  }
  tap::add(steps, MOVE_DEPTH);
}

}  // namespace edge_moe

#endif
