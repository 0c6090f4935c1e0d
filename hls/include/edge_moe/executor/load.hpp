// SPDX-License-Identifier: Apache-2.0
// LOAD: int16 rows of the weight image into the scratch memory. SPEC.md, section 8.
#ifndef EDGE_MOE_EXECUTOR_LOAD_HPP
#define EDGE_MOE_EXECUTOR_LOAD_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/shell/accelerator.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// LOAD: int16 rows of the weight image, unchanged; one of its planes is two beats of the scratch memory.
inline int load_steps(const isa::Instruction& i) {
  HLS_INLINE
  return i.rows * tiles(i.out_channels);
}

inline void load_rows(const isa::Instruction& i, WeightChannel& weights, ScratchHalf even,
                      ScratchHalf odd) {
  HLS_NO_INLINE
  const int steps = load_steps(i);
  const int destination = beat_of(i.dst);
  Plane plane = {};
  HLS_REGISTERS(plane.byte)
LOAD_ROWS:
  for (int step = 0; step < steps; ++step) {
    HLS_PIPELINE
    HLS_TRIPS(1, edge_moe::SCRATCH_BEATS)
    if (step % 2 == 0) {
      plane = weights.read();
    }
    Slice8 first;
    HLS_LANES(first)
    Slice8 second;
    HLS_LANES(second)
  LOAD_BYTES:
    for (int j = 0; j < LANES; ++j) {
      HLS_UNROLL
      const int at = step % 2 == 0 ? j : BEAT_BYTES + j;
      first.lane[j] = static_cast<int8_t>(plane.byte[at]);
      second.lane[j] = static_cast<int8_t>(plane.byte[at + LANES]);
    }
    even[destination + step] = pack(first);
    odd[destination + step] = pack(second);
  }
  tap::add(steps, MOVE_DEPTH);
}

}  // namespace edge_moe

#endif
