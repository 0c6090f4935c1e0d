// SPDX-License-Identifier: Apache-2.0
// What follows a job with int16 results: they become rows of the scratch memory, are added to the residual
// stream, or are weighted by their scores and added. SPEC.md, section 4.
#ifndef EDGE_MOE_EXECUTOR_FINISH_HPP
#define EDGE_MOE_EXECUTOR_FINISH_HPP

#include "edge_moe/executor_queues.hpp"
#include "edge_moe/experts.hpp"
#include "edge_moe/residual_add.hpp"

namespace edge_moe {

// LINEAR with an int16 result: one row and tile a cycle, added to what is there or not.
inline int rows_steps(int rows, const Job& job) {
  HLS_INLINE
  return rows * job.out_tiles;
}

inline void write_rows(const Job& job, int rows, bool add, const Finished finished0,
                       const Finished finished1, ScratchHalf even, ScratchHalf odd) {
  HLS_NO_INLINE
  const int steps = rows_steps(rows, job);
  int row = 0;
  int tile = 0;
WRITE_ROWS:
  for (int step = 0; step < steps; ++step) {
    // each iteration has a word of its own; carried: counters
    HLS_PIPELINE
    HLS_INDEPENDENT(even)
    HLS_INDEPENDENT(odd)
    HLS_TRIPS(1, edge_moe::SCRATCH_WORDS)
    const int from = tile * job.pairs + row / 2;
    const Beat16 update = unpack16(row % 2 == 0 ? finished0[from] : finished1[from]);
    const int to = job.to + row * job.to_tiles + job.first_out + tile;
    const Beat16 residual = join_halves(even[to], odd[to]);
    Half first;
    Half second;
    split_halves(add ? residual_add(residual, update) : update, first, second);
    even[to] = first;
    odd[to] = second;
    const bool done = tile == job.out_tiles - 1;
    tile = done ? 0 : tile + 1;
    row += done ? 1 : 0;
  }
  tap::add(steps, tap::MOVE_DEPTH);
}

// Between a token's experts its sum, a residual and up to max_top_k products of 16 bits, is kept with the low
// 16 bits in place of the residual and the others in a memory beside it.
constexpr int WIDTH_TILES = (config::max_width + LANES - 1) / LANES;
constexpr int HIGH_WORDS = config::max_tokens * WIDTH_TILES;
constexpr int HIGH_BITS = 1 + bits_of((1ull + config::max_top_k) * 32768) - 16;
static_assert(config::max_top_k != 4 || HIGH_BITS == 3, "19 bits hold the sum of 4 products and a residual");

#ifdef EDGE_MOE_EXACT_WIDTHS
typedef ap_uint<HIGH_BITS * LANES> HighWord;

inline HighWord pack_high(const Beat8& beat) {
  HLS_INLINE
  HighWord word = 0;
PACK_HIGH:
  for (int j = 0; j < LANES; ++j) {
    HLS_UNROLL
    word.range(HIGH_BITS * j + HIGH_BITS - 1, HIGH_BITS * j) = beat.lane[j] & ((1 << HIGH_BITS) - 1);
  }
  return word;
}

inline Beat8 unpack_high(const HighWord& word) {
  HLS_INLINE
  Beat8 beat;
  HLS_LANES(beat)
UNPACK_HIGH:
  for (int j = 0; j < LANES; ++j) {
    HLS_UNROLL
    const Int<HIGH_BITS> value = word.range(HIGH_BITS * j + HIGH_BITS - 1, HIGH_BITS * j);
    beat.lane[j] = static_cast<int8_t>(value);
  }
  return beat;
}
#else
typedef Beat8 HighWord;
inline const HighWord& pack_high(const Beat8& beat) { return beat; }
inline const Beat8& unpack_high(const HighWord& word) { return word; }
#endif

// An expert's results for its tokens, those of one group of tiles: one token and tile a cycle. A token's
// first expert finds the residual, its last one leaves the saturated sum.
inline int experts_steps(const Job& job) {
  HLS_INLINE
  return tokens_of(job.crowd) * job.out_tiles;
}

inline void add_expert(const Job& job, int top_k, const QueueTokens even_tokens,
                       const QueueTokens odd_tokens, const QueueScores even_scores,
                       const QueueScores odd_scores, uint8_t seen[config::max_tokens],
                       HighWord high[HIGH_WORDS], const Finished finished0,
                       const Finished finished1, ScratchHalf even, ScratchHalf odd) {
  HLS_NO_INLINE
  const int steps = experts_steps(job);
  const bool last_group = job.first_out + job.out_tiles == job.to_tiles;
  int number = 0;  // of the token among the expert's
  int tile = 0;
ADD_EXPERT:
  for (int step = 0; step < steps; ++step) {
    // a token comes once in an expert's queues, so no iteration reads what another writes; carried: counters
    HLS_PIPELINE
    HLS_INDEPENDENT(even)
    HLS_INDEPENDENT(odd)
    HLS_INDEPENDENT(high)
    HLS_INDEPENDENT(seen)
    HLS_TRIPS(1, edge_moe::SCRATCH_WORDS)
    const Seat seat = seat_of(job.crowd, number);
    const int token = seat.odd ? odd_tokens[seat.entry] : even_tokens[seat.entry];
    const int16_t score = seat.odd ? odd_scores[seat.entry] : even_scores[seat.entry];
    const int place = token * job.to_tiles + job.first_out + tile;  // within the rows
    const int from = tile * job.pairs + seat.pair;
    const int before = seen[token];
    const bool last = before == top_k - 1;
    const Beat16 low = join_halves(even[job.to + place], odd[job.to + place]);
    const Beat32 sum = before == 0 ? experts_start(low) : experts_join(low, unpack_high(high[place]));
    const Beat16 result = unpack16(seat.side == 0 ? finished0[from] : finished1[from]);
    const Beat32 total = accumulate(sum, experts_weighted(result, score));
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
  tap::add(steps, tap::MOVE_DEPTH);
}

}  // namespace edge_moe

#endif
