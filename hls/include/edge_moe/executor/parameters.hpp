// SPDX-License-Identifier: Apache-2.0
// The parameters of LAYERNORM and ATTENTION from the weight FIFO. SPEC.md, section 9.
#ifndef EDGE_MOE_EXECUTOR_PARAMETERS_HPP
#define EDGE_MOE_EXECUTOR_PARAMETERS_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/operators/weight_tile.hpp"
#include "edge_moe/shell/accelerator.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// Parameters of LAYERNORM and ATTENTION: 32-bit values of each tile, 16-bit values of every two tiles.
typedef StoredPlane WideParameters[PARAMETER_TILES];
typedef StoredPlane NarrowParameters[PARAMETER_PAIRS];

inline int parameter_steps(int tile_count) {
  HLS_INLINE
  return tile_count + pairs(tile_count);
}

inline void load_parameters(int tile_count, WeightChannel& weights, WideParameters wide,
                            NarrowParameters narrow) {
  HLS_NO_INLINE
  const int steps = parameter_steps(tile_count);
  int tile = 0;
  bool second = false;
LOAD_PARAMETERS:
  for (int step = 0; step < steps; ++step) {
    // carried: a count
    HLS_PIPELINE
    HLS_TRIPS(2, 2 * edge_moe::PARAMETER_TILES)
    const StoredPlane plane = pack(weights.read());
    if (second) {
      narrow[tile / 2] = plane;
    } else {
      wide[tile] = plane;
    }
    const bool stay = !second && tile % 2 == 0;
    tile += stay ? 0 : 1;
    second = stay;
  }
  tap::add(steps, MOVE_DEPTH);
}

}  // namespace edge_moe

#endif
