// SPDX-License-Identifier: Apache-2.0
// The pair of rows that a step of the compute loop reads from the scratch memory. SPEC.md, section 9.
#ifndef EDGE_MOE_EXECUTOR_COMPUTE_FETCH_HPP
#define EDGE_MOE_EXECUTOR_COMPUTE_FETCH_HPP

#include "edge_moe/executor/compute/cursor.hpp"
#include "edge_moe/executor/expert_queues.hpp"
#include "edge_moe/operators/conv3x3.hpp"

namespace edge_moe {

// The beats of the scratch memory that a step reads, and their meaning.
struct Fetch {
  int even;      // beat of the even half
  int odd;       // beat of the odd half
  bool swap;     // the pair's first row is in the odd half
  bool valid0;   // the pair's first row exists
  bool valid1;   // the second exists
  int8_t blank;  // value of a row that does not exist
};

// Beat of a pair's tile; two multipliers that nothing waits for.
inline int pair_beat(const Job& job, int pair, int tile) {
  HLS_INLINE
  return within_scratch(job.rows_at + pair * job.row_tiles + tile);
}

inline Fetch fetch_neighbours(const Job& job, int row, int tile) {
  HLS_INLINE
  const Fetch result = {pair_beat(job, (row + 1) >> 1, tile), pair_beat(job, row >> 1, tile), (row & 1) != 0,
                                  true, true, 0};
  return result;
}

// A tap's pixels.
inline Fetch fetch_map(const Job& job, const Cursor& at) {
  HLS_INLINE
  const int moved = (at.tap_row - 1) * job.width + at.tap_column - 1;
  Fetch result = fetch_neighbours(job, job.first_pixel + 2 * at.step + moved, at.channel);
  const bool wraps = at.column == job.width - 1;
  const int line1 = wraps ? at.line + 1 : at.line;
  const int column1 = wraps ? 0 : at.column + 1;
  result.valid0 = conv3x3_source(at.line, at.column, at.tap_row, at.tap_column, job.height, job.width).inside;
  result.valid1 = conv3x3_source(line1, column1, at.tap_row, at.tap_column, job.height, job.width).inside;
  result.blank = static_cast<int8_t>(job.pad);
  return result;
}

// Queries while the tile is one of K; else keys or values of the next block, for the stage.
inline Fetch fetch_attention(const Job& job, const Cursor& at) {
  HLS_INLINE
  if (!at.average) {
    return fetch_neighbours(job, job.first_query + 2 * at.step, at.head * job.head_tiles + at.tile);
  }
  const int part = at.step < BLOCK_BEATS ? 1 : 2;  // of q, k, v
  const int key = at.next_block * config::key_block + 2 * (at.step % BLOCK_BEATS);
  const int tile = (part * job.heads + at.next_head) * job.head_tiles + at.tile;
  Fetch result = fetch_neighbours(job, key, tile);
  result.valid0 = key < job.keys;
  result.valid1 = key + 1 < job.keys;
  return result;
}

// A pair of rows, and which of them exist: a token without a partner is read on both sides and kept on one.
struct Rows {
  Slice8 row[2];
  bool has_even;
  bool has_odd;
};

inline Rows fetch_rows(const Job& job, const Cursor& at, const QueueTokens even_tokens,
                       const QueueTokens odd_tokens, const ScratchHalf even, const ScratchHalf odd) {
  HLS_INLINE
  Fetch fetch = {0, 0, false, true, true, 0};
  Rows rows;
  rows.has_even = true;
  rows.has_odd = true;
  if (job.source == Source::ATTENTION) {
    fetch = fetch_attention(job, at);
  } else if (job.source == Source::MAP) {
    fetch = fetch_map(job, at);
  } else if (job.source == Source::QUEUES) {
    const Crowd& crowd = job.crowd;
    rows.has_even = at.step < crowd.even.count;
    rows.has_odd = at.step < crowd.odd.count;
    fetch.even = pair_beat(job, even_tokens[rows.has_even ? crowd.even.start + at.step : 0] >> 1, at.in);
    fetch.odd = pair_beat(job, odd_tokens[rows.has_odd ? crowd.odd.start + at.step : 0] >> 1, at.in);
  } else {
    fetch.even = pair_beat(job, at.step, at.in);
    fetch.odd = fetch.even;
  }
  const Slice8 from_even = unpack(even[fetch.even]);
  const Slice8 from_odd = unpack(odd[fetch.odd]);
  const bool first_odd = fetch.swap || !rows.has_even;
  const bool second_odd = !fetch.swap && rows.has_odd;
  rows.row[0] = conv3x3_input(first_odd ? from_odd : from_even, fetch.valid0, fetch.blank);
  rows.row[1] = conv3x3_input(second_odd ? from_odd : from_even, fetch.valid1, fetch.blank);
  return rows;
}

}  // namespace edge_moe

#endif
