// SPDX-License-Identifier: Apache-2.0
// LINEAR, CONV3X3, GATE, ATTENTION and EXPERTS as sequences of jobs, which share the one call of compute.
// SPEC.md, section 8.
#ifndef EDGE_MOE_EXECUTOR_RUN_JOBS_HPP
#define EDGE_MOE_EXECUTOR_RUN_JOBS_HPP

#include "edge_moe/executor/attention.hpp"
#include "edge_moe/executor/compute/compute.hpp"
#include "edge_moe/executor/conv3x3.hpp"
#include "edge_moe/executor/experts.hpp"
#include "edge_moe/executor/gate.hpp"
#include "edge_moe/executor/linear.hpp"

namespace edge_moe {

// The next job of an instruction without experts.
inline Job next_job(const isa::Instruction& i, Sequence& at) {
  HLS_INLINE
  switch (static_cast<isa::Opcode>(i.opcode)) {
    case isa::Opcode::LINEAR:
      return job_of_linear(i, at);
    case isa::Opcode::CONV3X3:
      return job_of_conv3x3(i, at);
    case isa::Opcode::GATE:
      return job_of_gate_logits(i, at);
    default:
      return job_of_attention(i, at);
  }
}

inline void run_jobs(const isa::Instruction& i, WeightChannel& weights, EntryChannel& entries,
                     RoutedChannel& routed, const WideParameters wide, const NarrowParameters narrow,
                     ScratchHalf even, ScratchHalf odd, Sums sums0, Sums sums1, Finished finished0,
                     Finished finished1) {
  HLS_NO_INLINE
  const isa::Opcode opcode = static_cast<isa::Opcode>(i.opcode);
  const isa::Epilogue epilogue = static_cast<isa::Epilogue>(i.epilogue);
  QueueTokens even_tokens;
  HLS_BRAM(even_tokens)
  QueueTokens odd_tokens;
  HLS_BRAM(odd_tokens)
  QueueScores even_scores;
  HLS_BRAM(even_scores)
  QueueScores odd_scores;
  HLS_BRAM(odd_scores)
  uint8_t seen[config::max_tokens];  // experts that have added to a token
  HLS_LUTRAM(seen)
  HighSlice high[HIGH_SLICES];
  HLS_BRAM(high)
  QueueCounters evens;
  HLS_REGISTERS(evens.count)
  HLS_REGISTERS(evens.start)
  HLS_REGISTERS(evens.filled)
  QueueCounters odds;
  HLS_REGISTERS(odds.count)
  HLS_REGISTERS(odds.start)
  HLS_REGISTERS(odds.filled)
  Plane multipliers = {};
  HLS_REGISTERS(multipliers.byte)
  Sequence at = {};
  isa::ExpertEntry entry = isa::ExpertEntry();
  const bool routes = opcode == isa::Opcode::EXPERTS;
  if (routes) {
    fill_queues(i, even, odd, evens, odds, even_tokens, odd_tokens, even_scores, odd_scores, seen);
    routed.write(routed_mask(evens, odds));
  }
JOBS:
  while (!at.done) {
    HLS_TRIPS(1, 2 * edge_moe::config::max_experts)
    Job job = {};
    int dropped = 0;
    bool skipped = false;
    if (routes) {
      if (!at.second) {
        entry = entries.read();
      }
      const Crowd crowd = {queue_range(evens, at.expert), queue_range(odds, at.expert)};
      // no weights: either the reader knew that there are no tokens, or the entry failed its proof and the
      // program stops after this instruction
      skipped = entry.weight_beats == 0 || tokens_of(crowd) == 0;
      if (skipped) {
        dropped = static_cast<int>(entry.weight_beats / isa::beats_per_plane);
        ++at.expert;
        at.done = at.expert == i.experts;
      } else {
        job = job_of_expert(i, entry, crowd, at);
      }
    } else {
      job = next_job(i, at);
    }
    tap::add(0, SETUP_CYCLES);
    if (skipped) {
      drop_planes(dropped, weights);
    } else {
      compute(job, weights, multipliers, wide, narrow, even_tokens, odd_tokens, even, odd, sums0, sums1,
              finished0, finished1);
    }
    if (opcode == isa::Opcode::GATE) {
      route_rows(i, sums0, sums1, even, odd);
    } else if (!skipped && job.result == Result::INT16) {
      if (routes) {
        add_expert(job, i.top_k, even_tokens, odd_tokens, even_scores, odd_scores, seen, high, finished0,
                   finished1, even, odd);
      } else {
        write_rows(job, i.rows, epilogue == isa::Epilogue::RESIDUAL, finished0, finished1, even, odd);
      }
    }
  }
}

}  // namespace edge_moe

#endif
