// SPDX-License-Identifier: Apache-2.0
// The compute loop: the one array of multipliers and everything after it. SPEC.md, section 4.
//
//   weight FIFO ─► next tile ─► tile ─┐                        ┌─► accumulators
//   K, V ─► stage ───┘                ▼                        │
//   scratch ─► pair of rows ─► compute_unit ─► sum ─► requantise ─► GELU ─► requantise ─► scratch
//                  ▲                                   ├─► finished int16 rows
//                  │                                   └─► softmax ─► numerators ┐
//                  └─────────────────────────────────────────────────────────────┘
//
// It forms every product of the model, for a pair of rows and a tile of 32 x 32 weights each cycle. So the
// array, and the 64 multipliers of each requantisation, exist once.
#ifndef EDGE_MOE_EXECUTOR_COMPUTE_COMPUTE_HPP
#define EDGE_MOE_EXECUTOR_COMPUTE_COMPUTE_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/executor/compute/epilogue.hpp"
#include "edge_moe/executor/compute/fetch.hpp"
#include "edge_moe/executor/compute/load_tile.hpp"
#include "edge_moe/executor/parameters.hpp"
#include "edge_moe/operators/compute_unit.hpp"

namespace edge_moe {

// Progress of a sum in a pass, and the place of the sums.
struct Place {
  bool first;  // no sum yet
  bool last;   // the sum is finished
  int at;      // entry of the accumulators
};

inline Place place_of(const Job& job, const Trips& trips, const Cursor& at) {
  HLS_INLINE
  Place place = {at.in == 0, at.in_last, at.step};
  if (job.source == Source::ATTENTION) {
    // averages by tile of the head, then products of queries and keys
    place.first = at.average ? at.block == 0 : at.tile == 0;
    place.last = at.average ? at.block == trips.blocks - 1 : at.tile == job.head_tiles - 1;
    place.at = (at.average ? at.tile : job.head_tiles) * job.pairs + at.step;
  } else if (job.result == Result::SUMS || job.result == Result::INT16) {
    place.at = at.out * job.pairs + at.step;
  }
  return place;
}

// Destination of a pair's results: a beat, and which of its halves.
struct Target {
  int beat;
  bool even;
  bool odd;
};

inline Target target_of(const Job& job, const Cursor& at, const Rows& rows) {
  HLS_INLINE
  const bool attends = job.source == Source::ATTENTION;
  const int channels = attends ? at.head * job.head_tiles + at.tile : job.first_out + at.out;
  // tokens without a partner alternate between the two sides of the next pairs
  const bool alone = !rows.has_even || !rows.has_odd;
  const int single = alone ? at.step - matched(job.crowd) : 0;
  const int pair = alone ? matched(job.crowd) + single / 2 : at.step;
  const Target result = {within_scratch(job.to + pair * job.to_tiles + channels), !alone || single % 2 == 0,
                         !alone || single % 2 != 0};
  return result;
}

// One job. Results SUMS are left in the accumulators, INT16 in `finished`, entry tile * pairs + pair.
inline void compute(const Job& job, WeightChannel& weights, Plane& multipliers, const WideParameters wide,
                    const NarrowParameters narrow, const QueueTokens even_tokens,
                    const QueueTokens odd_tokens, ScratchHalf even, ScratchHalf odd, Sums sums0, Sums sums1,
                    Finished finished0, Finished finished1) {
  HLS_NO_INLINE
  WeightTile tile = {};
  HLS_REGISTERS(tile.weight)
  WeightTile next_tile = {};
  HLS_REGISTERS(next_tile.weight)
  Slice32 bias = fill(0);
  HLS_LANES(bias)
  Slice32 next_bias = fill(0);
  HLS_LANES(next_bias)
  Plane present_multipliers = multipliers;
  HLS_REGISTERS(present_multipliers.byte)
  Plane next_multipliers = multipliers;
  HLS_REGISTERS(next_multipliers.byte)
  Slice16 multiplier = fill(static_cast<int16_t>(0));
  HLS_LANES(multiplier)
  Slice16 multiplier2 = fill(static_cast<int16_t>(job.multiplier2));
  HLS_LANES(multiplier2)
  Half stage_even[STAGE_BEATS];
  HLS_LUTRAM(stage_even)
  Half stage_odd[STAGE_BEATS];
  HLS_LUTRAM(stage_odd)
  Half numerators0[QUERY_PAIRS];
  HLS_BRAM(numerators0)
  Half numerators1[QUERY_PAIRS];
  HLS_BRAM(numerators1)
  uint64_t states0[QUERY_PAIRS];
  HLS_BRAM(states0)
  uint64_t states1[QUERY_PAIRS];
  HLS_BRAM(states1)
  const bool attends = job.source == Source::ATTENTION;
  const Clip clip = clip_of(job);
  const Trips trips = trips_of(job);
  const int steps = compute_steps(job, trips);
  Cursor at = cursor_start(job, trips);
COMPUTE:
  for (int step = 0; step < steps; ++step) {
    // One read and one write of each memory. Carried: the counters; the tile being loaded; sums and states,
    // which recur after ACCUMULATOR_LAG and SOFTMAX_LAG iterations at the earliest, as no pass is shorter.
    // Source and destination rows do not overlap.
    HLS_PIPELINE
    HLS_INDEPENDENT(even)
    HLS_INDEPENDENT(odd)
    HLS_DISTANCE(sums0, edge_moe::ACCUMULATOR_LAG)
    HLS_DISTANCE(sums1, edge_moe::ACCUMULATOR_LAG)
    HLS_DISTANCE(stage_even, edge_moe::STAGE_LAG)
    HLS_DISTANCE(stage_odd, edge_moe::STAGE_LAG)
    HLS_DISTANCE(numerators0, edge_moe::SOFTMAX_LAG)
    HLS_DISTANCE(numerators1, edge_moe::SOFTMAX_LAG)
    HLS_DISTANCE(states0, edge_moe::SOFTMAX_LAG)
    HLS_DISTANCE(states1, edge_moe::SOFTMAX_LAG)
    HLS_TRIPS(10, 1000000)
    const Rows rows = fetch_rows(job, at, even_tokens, odd_tokens, even, odd);
    if (attends) {
      load_attention(job, at, stage_even, stage_odd, next_tile);
    } else {
      load_linear(job, at, weights, next_tile, next_bias, next_multipliers);
    }
    if (attends && at.average && at.more && at.step < 2 * BLOCK_BEATS) {
      const int to = stage_beat(!at.side, at.step / BLOCK_BEATS, at.tile, at.step % BLOCK_BEATS);
      stage_even[to] = pack(rows.row[0]);
      stage_odd[to] = pack(rows.row[1]);
    }
    if (!at.idle && at.step < job.pairs) {
      const Pass pass = !attends ? Pass::LINEAR : at.average ? Pass::VALUES : Pass::KEYS;
      const Place place = place_of(job, trips, at);
      Side side0 = {attends ? fill(0) : bias, query_start(), {}, rows.row[0], rows.row[0]};
      Side side1 = {attends ? fill(0) : bias, query_start(), {}, rows.row[1], rows.row[1]};
      if (!place.first) {
        side0.sum = unpack32(sums0[place.at]);
        side1.sum = unpack32(sums1[place.at]);
      }
      if (attends && (at.average || at.block > 0)) {
        side0.state = unpack_state(states0[at.step]);
        side1.state = unpack_state(states1[at.step]);
      }
      const bool averages = pass == Pass::VALUES;
      const Slice8 x0 = averages ? unpack(numerators0[at.step]) : rows.row[0];
      const Slice8 x1 = averages ? unpack(numerators1[at.step]) : rows.row[1];
      Slice32 y0 = {};
      HLS_LANES(y0)
      Slice32 y1 = {};
      HLS_LANES(y1)
      compute_unit(tile, x0, x1, y0, y1);
      add_products(pass, y0, side0);
      add_products(pass, y1, side1);
      const bool finished = place.last && job.result != Result::SUMS;
      if (finished) {
        const int keys = job.keys - at.block * config::key_block;
        const int real_keys = keys < config::key_block ? keys : config::key_block;
        finish_sum(job, clip, pass, real_keys, multiplier, multiplier2, side0);
        finish_sum(job, clip, pass, real_keys, multiplier, multiplier2, side1);
      }
      if (!finished) {
        sums0[place.at] = pack(side0.sum);
        sums1[place.at] = pack(side1.sum);
      } else if (pass == Pass::LINEAR && job.result == Result::INT16) {
        finished0[place.at] = pack(side0.value);
        finished1[place.at] = pack(side1.value);
      } else if (pass == Pass::KEYS) {
        numerators0[at.step] = pack(side0.numerator);
        numerators1[at.step] = pack(side1.numerator);
        states0[at.step] = pack(side0.state);
        states1[at.step] = pack(side1.state);
      } else {
        const Target to = target_of(job, at, rows);
        if (to.even) {
          even[to.beat] = pack(side0.out);
        }
        if (to.odd) {
          odd[to.beat] = pack(side1.out);
        }
      }
    }
    if (advance(job, trips, at)) {
      tile = next_tile;
      if (attends) {
        const int channels = at.head * job.head_tiles + at.tile;
        const int known = channels < PARAMETER_TILES ? channels : 0;  // after the last pass there are none
        multiplier = fill(static_cast<int16_t>(plane_to_int32(unpack_plane(wide[known])).lane[0]));
        multiplier2 = plane_to_int16(unpack_plane(narrow[known / 2]), known % 2);
      } else if (at.in == 0) {
        bias = next_bias;
        present_multipliers = next_multipliers;
        multiplier = plane_to_int16(present_multipliers, at.out_odd ? 1 : 0);
      }
    }
  }
  multipliers = present_multipliers;
  tap::add(steps, COMPUTE_DEPTH);
}

}  // namespace edge_moe

#endif
