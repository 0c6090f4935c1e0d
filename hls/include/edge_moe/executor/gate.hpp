// SPDX-License-Identifier: Apache-2.0
// GATE: gate_logits, a job whose sums stay in the accumulators, then route, each token's choice and scores.
// SPEC.md, sections 4 and 8.
//
// Route takes ROUTE_PAIRS pairs of tokens at a time. For each tile of experts their sums are fetched, pair by
// pair; then experts come one per cycle: while these tokens' logits are offered, the numerators of the
// previous tokens are summed.
#ifndef EDGE_MOE_EXECUTOR_GATE_HPP
#define EDGE_MOE_EXECUTOR_GATE_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/executor/compute/job.hpp"
#include "edge_moe/executor/routing_row.hpp"
#include "edge_moe/operators/gate_logits.hpp"
#include "edge_moe/operators/route.hpp"
#include "edge_moe/shell/program.hpp"

namespace edge_moe {

inline Job job_of_gate_logits(const isa::Instruction& i, Sequence& at) {
  HLS_INLINE
  Job job = linear_job(tiles(i.in_channels), 0, gate_tiles(i.experts), isa::gate_bits);
  job.result = Result::SUMS;
  job.pairs = pairs(i.rows);
  job.rows_at = beat_of(i.src);
  at.done = true;
  return job;
}

// One token in the gate.
struct RouteLane {
  StoredSlice32 sums;  // of the tile of experts at hand
  RouteState state;    // of the token whose logits are offered
  RouteState chosen;   // of the one before
  int32_t numerators;  // sum over the experts so far, of the one before
};

inline int route_groups(const isa::Instruction& i) {
  HLS_INLINE
  return (pairs(i.rows) + ROUTE_PAIRS - 1) / ROUTE_PAIRS;
}

inline int route_group_steps(const isa::Instruction& i) {
  HLS_INLINE
  return i.experts + ROUTE_PAIRS * gate_tiles(i.experts);
}

inline int route_steps(const isa::Instruction& i) {
  HLS_INLINE
  return (route_groups(i) + 1) * route_group_steps(i);
}

// The next logit of a token; its scaled form.
inline int16_t offer_logit(RouteLane& lane, int expert, const isa::Instruction& i) {
  HLS_INLINE
  const int place = expert % isa::gate_experts;
  const Slice32 sums = unpack32(lane.sums);
  HLS_LANES(sums)
  const int32_t logit = gate_logit(sums.lane[place], sums.lane[isa::gate_experts + place], 0);
  const int16_t scaled = route_scale(logit, static_cast<int16_t>(i.multiplier), i.shift);
  if (expert == 0) {
    lane.state = route_start();
  }
  route_offer(lane.state, expert, logit, scaled);
  return scaled;
}

// The numerator of one expert of the previous token.
inline void sum_numerator(RouteLane& lane, int expert, int16_t scaled) {
  HLS_INLINE
  const int32_t before = expert == 0 ? 0 : lane.numerators;
  lane.numerators = before + route_numerator(scaled, lane.chosen.maximum);
}

// Experts and scores, after all numerators are summed.
inline Half chosen_row(const RouteLane& lane, int top_k) {
  HLS_INLINE
  const Inverse inverse = route_inverse(lane.numerators);
  RoutingRow row = {};
  HLS_REGISTERS(row.expert)
  HLS_REGISTERS(row.score)
CHOSEN:
  for (int k = 0; k < MAX_TOP_K; ++k) {
    HLS_UNROLL
    const Choice choice = lane.chosen.best[k];
    if (k < top_k) {
      row.expert[k] = choice.expert;
      row.score[k] = route_score(route_numerator(choice.scaled, lane.chosen.maximum), inverse);
    }
  }
  return routing_half(row);
}

inline void route_rows(const isa::Instruction& i, const Sums sums0,
                       const Sums sums1, ScratchHalf even, ScratchHalf odd) {
  HLS_NO_INLINE
  const int pair_count = pairs(i.rows);
  const int steps = route_steps(i);
  const int to = beat_of(i.dst);
  int16_t scaled[ROUTE_TOKENS][config::max_experts] = {};
  HLS_PARTITION(scaled, 1)
  RouteLane lanes[ROUTE_TOKENS] = {};
  HLS_REGISTERS(lanes)
  Half rows[ROUTE_TOKENS] = {};
  HLS_REGISTERS(rows)
  int waiting = 0;  // pairs of `rows` still to be written
  int written = 0;
  int group = 0;
  int expert = 0;
  int fetched = 0;  // pairs whose sums of this tile have been fetched
ROUTE_ROWS:
  for (int step = 0; step < steps; ++step) {
    // carried: a comparison and a selection for the choice, an addition for the numerators; a scaled logit is
    // read a group later, and a group has at least one expert and its sums to fetch
    HLS_PIPELINE
    HLS_DISTANCE(scaled, edge_moe::ROUTE_PAIRS + 1)
    HLS_TRIPS(1, 100000)
    if (waiting > 0) {
      const int place = ROUTE_PAIRS - waiting;
      if (written < pair_count) {
        even[to + written] = rows[2 * place];
        odd[to + written] = rows[2 * place + 1];
      }
      ++written;
      --waiting;
    }
    if (fetched < ROUTE_PAIRS) {
      const int pair = group * ROUTE_PAIRS + fetched;
      const int from = (expert / isa::gate_experts) * pair_count + (pair < pair_count ? pair : 0);
      lanes[2 * fetched].sums = sums0[from];
      lanes[2 * fetched + 1].sums = sums1[from];
      ++fetched;
    } else {
      const bool done = expert == i.experts - 1;
    ROUTE_LANES:
      for (int t = 0; t < ROUTE_TOKENS; ++t) {
        HLS_UNROLL
        sum_numerator(lanes[t], expert, scaled[t][expert]);
        scaled[t][expert] = offer_logit(lanes[t], expert, i);
        if (done) {
          rows[t] = chosen_row(lanes[t], i.top_k);
          lanes[t].chosen = lanes[t].state;
        }
      }
      waiting = done && group > 0 ? ROUTE_PAIRS : waiting;
      group += done ? 1 : 0;
      const bool tile_done = done || expert % isa::gate_experts == isa::gate_experts - 1;
      fetched = tile_done ? 0 : fetched;
      expert = done ? 0 : expert + 1;
    }
  }
LAST_ROWS:
  for (int place = ROUTE_PAIRS - waiting; place < ROUTE_PAIRS; ++place) {
    HLS_PIPELINE
    HLS_TRIPS(1, 4)
    if (written < pair_count) {
      even[to + written] = rows[2 * place];
      odd[to + written] = rows[2 * place + 1];
    }
    ++written;
  }
  tap::add(steps + ROUTE_PAIRS, COMPUTE_DEPTH);
}

}  // namespace edge_moe

#endif
