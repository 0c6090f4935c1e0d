// SPDX-License-Identifier: Apache-2.0
// The next pass's tile: from the weight FIFO, or from K and V in the scratch memory. SPEC.md, sections 4 and 9.
#ifndef EDGE_MOE_EXECUTOR_COMPUTE_LOAD_TILE_HPP
#define EDGE_MOE_EXECUTOR_COMPUTE_LOAD_TILE_HPP

#include "edge_moe/executor/compute/cursor.hpp"
#include "edge_moe/operators/gate_logits.hpp"
#include "edge_moe/operators/weight_tile.hpp"
#include "edge_moe/shell/accelerator.hpp"

namespace edge_moe {

// A block's K and V between scratch memory and tile: [side][K or V][tile of the head][pair of keys].
inline int stage_beat(bool side, int part, int tile, int beat) {
  HLS_INLINE
  return (((side ? 1 : 0) * 2 + part) * MAX_HEAD_TILES + tile) * BLOCK_BEATS + beat;
}

// A gate's biases belong to its experts and are stored in the places of the high halves. They are added to
// the low halves, as the high ones are later multiplied by 128.
inline Slice32 gate_bias(const Slice32& bias) {
  HLS_INLINE
  Slice32 result;
  HLS_LANES(result)
GATE_BIAS:
  for (int j = 0; j < LANES; ++j) {
    HLS_UNROLL
    result.lane[j] = j < isa::gate_experts ? 0 : bias.lane[j - (j < isa::gate_experts ? 0 : isa::gate_experts)];
  }
  return result;
}

// Planes of parameters and of weights of the next pass's tile.
inline void load_linear(const Job& job, const Cursor& at, WeightChannel& weights, WeightTile& next_tile,
                        Slice32& next_bias, Plane& next_multipliers) {
  HLS_INLINE
  if (at.step < at.trip.planes) {
    const Plane plane = weights.read();
    const int lead = at.trip.planes - job.bits;  // planes of parameters
    if (at.step >= lead) {
      weight_tile_plane(next_tile, plane, at.step - lead, job.bits);
    } else if (at.step == 0) {
      const Slice32 bias = plane_to_int32(plane);
      next_bias = job.result == Result::SUMS ? gate_bias(bias) : bias;
    } else {
      next_multipliers = plane;
    }
  }
}

// The next pass's tile from the stage: keys as rows of weights, values as columns.
inline void load_attention(const Job& job, const Cursor& at, const Half stage_even[STAGE_BEATS],
                           const Half stage_odd[STAGE_BEATS], WeightTile& next) {
  HLS_INLINE
  const int beat = at.step - STAGE_LAG;
  if (beat >= 0 && beat < BLOCK_BEATS) {
    // another tile of the same kind follows, or V after K, or K of the next block after V
    const bool same = at.tile + 1 < job.head_tiles;
    const bool values = same ? at.average : !at.average;
    const bool side = !same && at.average ? !at.side : at.side;
    const int from = stage_beat(side, values ? 1 : 0, same ? at.tile + 1 : 0, beat);
    const Slice8 first = unpack(stage_even[from]);
    const Slice8 second = unpack(stage_odd[from]);
    if (values) {
      weight_tile_column(next, 2 * beat, first);
      weight_tile_column(next, 2 * beat + 1, second);
    } else {
      weight_tile_row(next, 2 * beat, first);
      weight_tile_row(next, 2 * beat + 1, second);
    }
  }
}

}  // namespace edge_moe

#endif
