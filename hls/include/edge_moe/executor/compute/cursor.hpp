// SPDX-License-Identifier: Apache-2.0
// The compute loop's position in its job: the pass, the step within it, and the next pass. Each step's state
// is computed from the previous one within a cycle, so there are only counters and flags, and each flag is
// known a pass ahead.
#ifndef EDGE_MOE_EXECUTOR_COMPUTE_CURSOR_HPP
#define EDGE_MOE_EXECUTOR_COMPUTE_CURSOR_HPP

#include "edge_moe/executor/compute/job.hpp"
#include "edge_moe/operators/conv3x3.hpp"

namespace edge_moe {

struct Cursor {
  int step;   // of the pass
  Trip trip;  // of the pass
  bool idle;  // before the first pass: tiles are loaded, nothing is computed
  // linears
  int in;          // tile of inputs
  bool in_last;    // of this tile of outputs
  int out;         // tile of outputs, from first_out on
  bool out_last;   // of the job
  bool out_odd;    // its number among all of the layer is odd
  int tap_row;     // MAP: dy
  int tap_column;  // MAP: dx
  int channel;     // MAP: tile of the tap's channels
  int line;        // MAP: of the pair's first pixel
  int column;      // MAP
  // ATTENTION
  bool average;  // the tile is one of V, not of K
  int tile;      // of the head's
  int head;
  int block;
  int next_head;  // of the block after this one
  int next_block;
  bool more;  // there is a next block
  bool side;  // half of the stage that this block's K and V are in
};

inline Cursor cursor_start(const Job& job, const Trips& trips) {
  HLS_INLINE
  Cursor at = {};
  at.trip = trips.first;
  at.idle = true;
  at.line = job.first_line;
  at.average = true;
  at.more = true;
  return at;
}

// The trip of a pass, by its tile of outputs and by whether it is that tile's last one.
inline Trip trip_of(const Trips& trips, bool in_last, bool out_last, bool out_odd) {
  HLS_INLINE
  return !in_last ? trips.inner : out_last ? trips.last : out_odd ? trips.even : trips.odd;
}

// The next pass of a linear.
inline void next_linear_pass(const Job& job, const Trips& trips, Cursor& at) {
  HLS_INLINE
  const bool starts = at.idle || at.in_last;  // a tile of outputs
  const bool in_last = starts ? job.in_tiles == 1 : at.in == job.in_tiles - 2;
  const bool out_last = at.idle ? job.out_tiles == 1 : at.in_last ? at.out == job.out_tiles - 2 : at.out_last;
  const bool out_odd = at.idle ? job.first_out % 2 != 0 : at.in_last ? !at.out_odd : at.out_odd;
  const bool tap_done = at.channel == job.channel_tiles - 1;
  const bool row_done = tap_done && at.tap_column == TAP_SIDE - 1;
  at.tap_row = starts ? 0 : at.tap_row + (row_done ? 1 : 0);
  at.tap_column = starts || row_done ? 0 : at.tap_column + (tap_done ? 1 : 0);
  at.channel = starts || tap_done ? 0 : at.channel + 1;
  at.out += !at.idle && at.in_last ? 1 : 0;
  at.in = starts ? 0 : at.in + 1;
  at.in_last = in_last;
  at.out_last = out_last;
  at.out_odd = out_odd;
  at.trip = trip_of(trips, in_last, out_last, out_odd);
  at.idle = false;
  at.line = job.first_line;
  at.column = 0;
}

// The next pass of ATTENTION: tiles of K, tiles of V, then the next block.
inline void next_attention_pass(const Job& job, const Trips& trips, Cursor& at) {
  HLS_INLINE
  const bool tiles_done = at.tile == job.head_tiles - 1;
  if (tiles_done && at.average) {
    const bool head_done = at.next_block == trips.blocks - 1;
    at.head = at.next_head;
    at.block = at.next_block;
    at.side = !at.side;
    at.next_block = head_done ? 0 : at.next_block + 1;
    at.next_head += head_done ? 1 : 0;
    at.more = at.next_head < job.heads;
    at.idle = false;
  }
  at.average = tiles_done ? !at.average : at.average;
  at.tile = tiles_done ? 0 : at.tile + 1;
  at.trip = at.idle ? trips.first : trips.inner;
}

// Advance by two pixels: along the line, or from its end to the next line.
inline void next_pixels(const Job& job, Cursor& at) {
  HLS_INLINE
  const bool wraps = at.column >= job.width - 2;
  const bool narrow = job.width == 1;
  at.line += narrow ? 2 : wraps ? 1 : 0;
  at.column = narrow ? 0 : wraps ? at.column - (job.width - 2) : at.column + 2;
}

// Advance by a step. True when a pass is done: the loaded tile is then in use.
inline bool advance(const Job& job, const Trips& trips, Cursor& at) {
  HLS_INLINE
  const bool done = at.step == at.trip.last;
  if (!done) {
    ++at.step;
    next_pixels(job, at);
  } else {
    at.step = 0;
    if (job.source == Source::ATTENTION) {
      next_attention_pass(job, trips, at);
    } else {
      next_linear_pass(job, trips, at);
    }
  }
  return done;
}

}  // namespace edge_moe

#endif
