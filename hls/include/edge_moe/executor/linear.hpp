// SPDX-License-Identifier: Apache-2.0
// LINEAR: its jobs, and the loop after a job whose result is int16, which writes it to the scratch memory or
// adds it to the residual stream. SPEC.md, sections 4 and 8.
#ifndef EDGE_MOE_EXECUTOR_LINEAR_HPP
#define EDGE_MOE_EXECUTOR_LINEAR_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/executor/compute/job.hpp"
#include "edge_moe/operators/residual_add.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// All rows of LINEAR, and all tiles of its outputs, or as many as the accumulators hold if sums stay there.
inline Job job_of_linear(const isa::Instruction& i, Sequence& at) {
  HLS_INLINE
  const isa::Epilogue epilogue = static_cast<isa::Epilogue>(i.epilogue);
  const bool stays = epilogue == isa::Epilogue::RESIDUAL || epilogue == isa::Epilogue::INT16;
  const int all = tiles(i.out_channels);
  const int count = stays ? group_tiles(pairs(i.rows), all - at.next_out) : all;
  Job job = linear_job(tiles(i.in_channels), at.next_out, count, i.weight_bits);
  job.result = stays ? Result::INT16 : epilogue == isa::Epilogue::GELU ? Result::GELU : Result::INT8;
  job.pairs = pairs(i.rows);
  job.rows_at = beat_of(i.src);
  job.to = beat_of(i.dst);
  job.to_tiles = all;
  job.shift = i.shift;
  job.shift2 = i.shift2;
  job.multiplier2 = i.multiplier;
  job.zero_point = i.zero_point;
  at.next_out += count;
  at.done = at.next_out == all;
  return job;
}

// LINEAR with an int16 result: one row and tile per cycle, added to the row there or replacing it.
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
    // each iteration has a beat of its own; carried: counters
    HLS_PIPELINE
    HLS_INDEPENDENT(even)
    HLS_INDEPENDENT(odd)
    HLS_TRIPS(1, edge_moe::SCRATCH_BEATS)
    const int from = tile * job.pairs + row / 2;
    const Slice16 update = unpack16(row % 2 == 0 ? finished0[from] : finished1[from]);
    const int to = job.to + row * job.to_tiles + job.first_out + tile;
    const Slice16 residual = join_halves(even[to], odd[to]);
    Half first;
    Half second;
    split_halves(add ? residual_add(residual, update) : update, first, second);
    even[to] = first;
    odd[to] = second;
    const bool done = tile == job.out_tiles - 1;
    tile = done ? 0 : tile + 1;
    row += done ? 1 : 0;
  }
  tap::add(steps, MOVE_DEPTH);
}

}  // namespace edge_moe

#endif
