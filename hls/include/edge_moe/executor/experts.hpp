// SPDX-License-Identifier: Apache-2.0
// EXPERTS: two linears of each expert that has tokens; its results are weighted by the scores and added to the
// residual stream. SPEC.md, sections 4 and 8.
#ifndef EDGE_MOE_EXECUTOR_EXPERTS_HPP
#define EDGE_MOE_EXECUTOR_EXPERTS_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/executor/compute/job.hpp"
#include "edge_moe/executor/expert_queues.hpp"
#include "edge_moe/operators/compute_unit.hpp"
#include "edge_moe/operators/experts.hpp"
#include "edge_moe/shell/accelerator.hpp"

namespace edge_moe {

// The next linear of an expert; the second one goes in groups of outputs.
inline Job job_of_expert(const isa::Instruction& i, const isa::ExpertEntry& entry, const Crowd& crowd,
                         Sequence& at) {
  HLS_INLINE
  const int width = tiles(i.in_channels);
  const int hidden = tiles(i.hidden_channels);
  const bool first = !at.second;
  const int pair_count = first ? greater(crowd.even.count, crowd.odd.count) : pairs(tokens_of(crowd));
  const int count = first ? hidden : group_tiles(pair_count, width - at.next_out);
  Job job = linear_job(first ? width : hidden, at.next_out, count, first ? entry.bits1 : entry.bits2);
  job.source = first ? Source::QUEUES : Source::ROWS;
  job.result = first ? Result::GELU : Result::INT16;
  job.pairs = pair_count;
  job.rows_at = beat_of(first ? i.src : i.hidden);
  job.to = beat_of(first ? i.hidden : i.dst);
  job.to_tiles = first ? hidden : width;
  job.shift = first ? entry.shift1 : entry.shift2;
  job.shift2 = entry.gelu_shift;
  job.multiplier2 = entry.gelu_multiplier;
  job.zero_point = entry.zero_point;
  job.crowd = crowd;
  at.next_out = first ? 0 : at.next_out + count;
  const bool expert_done = !first && at.next_out == width;
  at.next_out = expert_done ? 0 : at.next_out;
  at.second = !expert_done;
  at.expert += expert_done ? 1 : 0;
  at.done = expert_done && at.expert == i.experts;
  return job;
}

// The weights of an expert without tokens.
inline void drop_planes(int planes, WeightChannel& weights) {
  HLS_NO_INLINE
DROP_PLANES:
  for (int n = 0; n < planes; ++n) {
    HLS_PIPELINE
    HLS_TRIPS(1, 10000)
    (void)weights.read();
  }
  tap::add(planes, MOVE_DEPTH);
}

// Between a token's experts its sum, a residual and up to max_top_k products of 16 bits, is split: the low 16
// bits take the residual's place, the others a separate memory.
static_assert(config::max_top_k != 4 || HIGH_BITS == 3, "19 bits hold the sum of 4 products and a residual");

#ifdef EDGE_MOE_EXACT_WIDTHS
typedef ap_uint<HIGH_BITS * LANES> HighSlice;

inline HighSlice pack_high(const Slice8& slice) {
  HLS_INLINE
  HighSlice stored = 0;
PACK_HIGH:
  for (int j = 0; j < LANES; ++j) {
    HLS_UNROLL
    stored.range(HIGH_BITS * j + HIGH_BITS - 1, HIGH_BITS * j) = slice.lane[j] & ((1 << HIGH_BITS) - 1);
  }
  return stored;
}

inline Slice8 unpack_high(const HighSlice& stored) {
  HLS_INLINE
  Slice8 slice;
  HLS_LANES(slice)
UNPACK_HIGH:
  for (int j = 0; j < LANES; ++j) {
    HLS_UNROLL
    const Int<HIGH_BITS> value = stored.range(HIGH_BITS * j + HIGH_BITS - 1, HIGH_BITS * j);
    slice.lane[j] = static_cast<int8_t>(value);
  }
  return slice;
}
#else
typedef Slice8 HighSlice;
inline const HighSlice& pack_high(const Slice8& slice) { return slice; }
inline const Slice8& unpack_high(const HighSlice& stored) { return stored; }
#endif

// Add an expert's results for one group of tiles to its tokens: one token and tile a cycle. A token's first
// expert reads the residual, its last one writes the saturated sum.
inline int experts_steps(const Job& job) {
  HLS_INLINE
  return tokens_of(job.crowd) * job.out_tiles;
}

inline void add_expert(const Job& job, int top_k, const QueueTokens even_tokens,
                       const QueueTokens odd_tokens, const QueueScores even_scores,
                       const QueueScores odd_scores, uint8_t seen[config::max_tokens],
                       HighSlice high[HIGH_SLICES], const Finished finished0,
                       const Finished finished1, ScratchHalf even, ScratchHalf odd) {
  HLS_NO_INLINE
  const int steps = experts_steps(job);
  const bool last_group = job.first_out + job.out_tiles == job.to_tiles;
  int number = 0;  // of the token among the expert's
  int tile = 0;
ADD_EXPERT:
  for (int step = 0; step < steps; ++step) {
    // a token is once in an expert's queues, so no iteration reads what another writes; carried: counters
    HLS_PIPELINE
    HLS_INDEPENDENT(even)
    HLS_INDEPENDENT(odd)
    HLS_INDEPENDENT(high)
    HLS_INDEPENDENT(seen)
    HLS_TRIPS(1, edge_moe::SCRATCH_BEATS)
    const Seat seat = seat_of(job.crowd, number);
    const int token = seat.odd ? odd_tokens[seat.entry] : even_tokens[seat.entry];
    const int16_t score = seat.odd ? odd_scores[seat.entry] : even_scores[seat.entry];
    const int place = token * job.to_tiles + job.first_out + tile;  // within the rows
    const int from = tile * job.pairs + seat.pair;
    const int before = seen[token];
    const bool last = before == top_k - 1;
    const Slice16 low = join_halves(even[job.to + place], odd[job.to + place]);
    const Slice32 sum = before == 0 ? experts_start(low) : experts_join(low, unpack_high(high[place]));
    const Slice16 result = unpack16(seat.side == 0 ? finished0[from] : finished1[from]);
    const Slice32 total = accumulate(sum, experts_weighted(result, score));
    Half first;
    Half second;
    split_halves(last ? experts_finish(total) : experts_low(total), first, second);
    even[job.to + place] = first;
    odd[job.to + place] = second;
    high[place] = pack_high(experts_high(total));
    const bool done = tile == job.out_tiles - 1;
    if (done && last_group) {
      seen[token] = static_cast<uint8_t>(before + 1);
    }
    tile = done ? 0 : tile + 1;
    number += done ? 1 : 0;
  }
  tap::add(steps, MOVE_DEPTH);
}

}  // namespace edge_moe

#endif
