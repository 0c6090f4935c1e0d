// SPDX-License-Identifier: Apache-2.0
// LINEAR, CONV3X3, GATE, ATTENTION and EXPERTS as sequences of jobs, all of which pass the one call of
// compute. SPEC.md, section 8.
#ifndef EDGE_MOE_EXECUTOR_MULTIPLY_HPP
#define EDGE_MOE_EXECUTOR_MULTIPLY_HPP

#include "edge_moe/executor_compute.hpp"
#include "edge_moe/executor_finish.hpp"
#include "edge_moe/executor_gate.hpp"

namespace edge_moe {

// Where an instruction's jobs stand.
struct Sequence {
  int expert;       // EXPERTS
  bool second;      // EXPERTS: the expert's second linear, not its first
  int next_out;     // linears with int16 results: tile of outputs
  int next_pair;    // ATTENTION: pair of queries
  bool done;
};

// All rows of LINEAR, or as many tiles of its outputs as the accumulators hold where they stay there.
inline Job job_of_linear(const isa::Instruction& i, Sequence& at) {
  HLS_INLINE
  const isa::Epilogue epilogue = static_cast<isa::Epilogue>(i.epilogue);
  const bool stays = epilogue == isa::Epilogue::RESIDUAL || epilogue == isa::Epilogue::INT16;
  const int all = tiles(i.out_channels);
  const int count = stays ? group_tiles(pairs(i.rows), all - at.next_out) : all;
  Job job = linear_job(tiles(i.in_channels), at.next_out, count, i.weight_bits);
  job.result = stays ? Result::INT16 : epilogue == isa::Epilogue::GELU ? Result::GELU : Result::INT8;
  job.pairs = pairs(i.rows);
  job.rows_at = word_of(i.src);
  job.to = word_of(i.dst);
  job.to_tiles = all;
  job.shift = i.shift;
  job.shift2 = i.shift2;
  job.multiplier2 = i.multiplier;
  job.zero_point = i.zero_point;
  at.next_out += count;
  at.done = at.next_out == all;
  return job;
}

inline Job job_of_conv(const isa::Instruction& i, Sequence& at) {
  HLS_INLINE
  const int channel_tiles = tiles(i.in_channels);
  Job job = linear_job(TAPS * channel_tiles, 0, tiles(i.out_channels), i.weight_bits);
  job.source = Source::MAP;
  job.result = Result::RELU;
  job.pairs = pairs(i.rows);
  job.rows_at = word_of(i.src);
  job.row_tiles = channel_tiles;
  job.to = word_of(i.dst);
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

inline Job job_of_gate(const isa::Instruction& i, Sequence& at) {
  HLS_INLINE
  Job job = linear_job(tiles(i.in_channels), 0, gate_tiles(i.experts), 8);
  job.result = Result::SUMS;
  job.pairs = pairs(i.rows);
  job.rows_at = word_of(i.src);
  at.done = true;
  return job;
}

// Pairs of queries whose averages, and products with keys where a head has several tiles, the accumulators
// hold.
inline int query_pairs(const isa::Instruction& i, int head_tiles, int left) {
  HLS_INLINE
  const int fit = ACCUMULATOR_PAIRS / (head_tiles == 1 ? 1 : head_tiles + 1);
  const int parts = (pairs(i.rows) + fit - 1) / fit;
  const int even_share = (pairs(i.rows) + parts - 1) / parts;
  return even_share < left ? even_share : left;
}

inline Job job_of_attention(const isa::Instruction& i, Sequence& at) {
  HLS_INLINE
  Job job = {};
  job.source = Source::ATTENTION;
  job.result = Result::INT8;
  job.heads = i.heads;
  job.head_tiles = tiles(i.out_channels / i.heads);
  job.pairs = query_pairs(i, job.head_tiles, pairs(i.rows) - at.next_pair);
  job.rows_at = word_of(i.src);
  job.row_tiles = tiles(i.in_channels);
  job.to_tiles = tiles(i.out_channels);
  job.to = word_of(i.dst) + at.next_pair * job.to_tiles;
  job.shift = i.shift;
  job.shift2 = i.shift2;
  job.first_query = i.row_start + 2 * at.next_pair;
  job.keys = i.keys;
  at.next_pair += job.pairs;
  at.done = at.next_pair == pairs(i.rows);
  return job;
}

// The next linear of an expert, its second one in groups of outputs.
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
  job.rows_at = word_of(first ? i.src : i.hidden);
  job.to = word_of(first ? i.hidden : i.dst);
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

// The next job of an instruction without experts.
inline Job next_job(const isa::Instruction& i, Sequence& at) {
  HLS_INLINE
  switch (static_cast<isa::Opcode>(i.opcode)) {
    case isa::Opcode::LINEAR:
      return job_of_linear(i, at);
    case isa::Opcode::CONV3X3:
      return job_of_conv(i, at);
    case isa::Opcode::GATE:
      return job_of_gate(i, at);
    default:
      return job_of_attention(i, at);
  }
}

// The weights of an expert without tokens.
inline void drop_words(int words, WeightChannel& weights) {
  HLS_NO_INLINE
DROP_WORDS:
  for (int n = 0; n < words; ++n) {
    HLS_PIPELINE
    HLS_TRIPS(1, 10000)
    (void)weights.read();
  }
  tap::add(words, tap::MOVE_DEPTH);
}

inline void multiply(const isa::Instruction& i, WeightChannel& weights, EntryChannel& entries,
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
  HighWord high[HIGH_WORDS];
  HLS_BRAM(high)
  QueueCounters evens;
  HLS_REGISTERS(evens.count)
  HLS_REGISTERS(evens.start)
  HLS_REGISTERS(evens.filled)
  QueueCounters odds;
  HLS_REGISTERS(odds.count)
  HLS_REGISTERS(odds.start)
  HLS_REGISTERS(odds.filled)
  Word multipliers = {};
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
      // no weights: either the reader knew that there are no tokens, or the entry was not proved and the
      // program stops behind this instruction
      skipped = entry.weight_beats == 0 || tokens_of(crowd) == 0;
      if (skipped) {
        dropped = static_cast<int>(entry.weight_beats / BEATS_PER_WORD);
        ++at.expert;
        at.done = at.expert == i.experts;
      } else {
        job = job_of_expert(i, entry, crowd, at);
      }
    } else {
      job = next_job(i, at);
    }
    tap::add(0, tap::SETUP_CYCLES);
    if (skipped) {
      drop_words(dropped, weights);
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
