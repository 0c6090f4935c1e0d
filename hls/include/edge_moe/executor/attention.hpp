// SPDX-License-Identifier: Apache-2.0
// ATTENTION: jobs of as many queries as the accumulators hold. The compute loop loads K and V as tiles
// (compute/load_tile.hpp) and makes numerators of the logits (compute/epilogue.hpp). SPEC.md, sections 4 and 8.
#ifndef EDGE_MOE_EXECUTOR_ATTENTION_HPP
#define EDGE_MOE_EXECUTOR_ATTENTION_HPP

#include "edge_moe/executor/compute/job.hpp"

namespace edge_moe {

// Pairs of queries that the accumulators hold, with their averages and, if a head has several tiles, their
// products with keys.
inline int query_pairs(const isa::Instruction& i, int head_tiles, int left) {
  HLS_INLINE
  const int fit = ACCUMULATOR_PAIRS / (head_tiles == 1 ? 1 : head_tiles + 1);
  const int parts = (pairs(i.rows) + fit - 1) / fit;
  const int even_share = (pairs(i.rows) + parts - 1) / parts;
  return even_share < left ? even_share : left;
}

inline Job job_of_attention(const isa::Instruction& i, Sequence& at) {
  HLS_INLINE
  Job job = {};
  job.source = Source::ATTENTION;
  job.result = Result::INT8;
  job.heads = i.heads;
  job.head_tiles = tiles(i.out_channels / i.heads);
  job.pairs = query_pairs(i, job.head_tiles, pairs(i.rows) - at.next_pair);
  job.rows_at = beat_of(i.src);
  job.row_tiles = tiles(i.in_channels);
  job.to_tiles = tiles(i.out_channels);
  job.to = beat_of(i.dst) + at.next_pair * job.to_tiles;
  job.shift = i.shift;
  job.shift2 = i.shift2;
  job.first_query = i.row_start + 2 * at.next_pair;
  job.keys = i.keys;
  at.next_pair += job.pairs;
  at.done = at.next_pair == pairs(i.rows);
  return job;
}

}  // namespace edge_moe

#endif
