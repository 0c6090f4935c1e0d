// SPDX-License-Identifier: Apache-2.0
// CONV3X3: one job, whose rows are the pixels that the nine taps read. SPEC.md, sections 4 and 8.
#ifndef EDGE_MOE_EXECUTOR_CONV3X3_HPP
#define EDGE_MOE_EXECUTOR_CONV3X3_HPP

#include "edge_moe/executor/compute/job.hpp"
#include "edge_moe/operators/conv3x3.hpp"

namespace edge_moe {

inline Job job_of_conv3x3(const isa::Instruction& i, Sequence& at) {
  HLS_INLINE
  const int channel_tiles = tiles(i.in_channels);
  Job job = linear_job(TAPS * channel_tiles, 0, tiles(i.out_channels), i.weight_bits);
  job.source = Source::MAP;
  job.result = Result::RELU;
  job.pairs = pairs(i.rows);
  job.rows_at = beat_of(i.src);
  job.row_tiles = channel_tiles;
  job.to = beat_of(i.dst);
  job.to_tiles = job.out_tiles;
  job.shift = i.shift;
  job.first_pixel = i.row_start;
  job.first_line = i.row_start / i.width;
  job.height = i.height;
  job.width = i.width;
  job.channel_tiles = channel_tiles;
  job.pad = i.pad;
  at.done = true;
  return job;
}

}  // namespace edge_moe

#endif
