// SPDX-License-Identifier: Apache-2.0
// Jobs of the compute unit: one form of LINEAR, CONV3X3, GATE, ATTENTION and an expert's linears. SPEC.md,
// section 8.
//
// A job is a sequence of passes. In a pass the compute unit holds one weight tile and multiplies it by the
// job's pairs of rows, one pair a cycle; meanwhile the next pass's tile is loaded. If that takes more planes
// than the pass has pairs, the pass takes one cycle per plane.
#ifndef EDGE_MOE_EXECUTOR_COMPUTE_JOB_HPP
#define EDGE_MOE_EXECUTOR_COMPUTE_JOB_HPP

#include "edge_moe/executor/expert_queues.hpp"
#include "edge_moe/shell/accumulators.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// Where a pair of rows comes from.
enum class Source : uint8_t {
  ROWS,      // rows 2 r and 2 r + 1
  QUEUES,    // an expert's r-th even token and its r-th odd token, or only one of them
  MAP,       // pixels 2 r and 2 r + 1 of the instruction, moved by the tap
  ATTENTION  // queries, then their numerators
};

// Use of a finished sum.
enum class Result : uint8_t {
  SUMS,   // it stays unchanged in the accumulators
  INT16,  // requantised to int16, for write_rows or add_expert
  INT8,   // int8 in [-127, 127] into the scratch memory
  GELU,   // int16, GELU, int8
  RELU    // int8, -128 for 0
};

// Scratch addresses are numbers of beats.
struct Job {
  Source source;
  Result result;
  int pairs;
  int rows_at;      // first source beat
  int row_tiles;    // of a source row
  int to;           // first destination beat
  int to_tiles;     // of a destination row
  int shift;        // of the first requantisation
  int shift2;       // of the second
  int multiplier2;  // after GELU
  int zero_point;   // after GELU
  // linears: tiles of outputs first_out to first_out + out_tiles - 1, in_tiles of inputs for each
  int in_tiles;
  int first_out;
  int out_tiles;
  int bits;
  Crowd crowd;  // QUEUES
  // CONV3X3
  int first_pixel;
  int first_line;
  int height;
  int width;
  int channel_tiles;
  int pad;
  // ATTENTION: queries from first_query on
  int heads;
  int head_tiles;
  int first_query;
  int keys;
};

// A pass may use the same accumulators again after ACCUMULATOR_LAG cycles: reading, shifting, adding and
// writing them takes fewer. Requantising takes more, so finished sums have a memory of their own.
// A block's beats of K and V arrive in the cycles from 0 on; its tiles are loaded from STAGE_LAG on.
static_assert(STAGE_LAG >= BLOCK_BEATS, "a tile of K is loaded in the pass that brings its beats");
static_assert(SOFTMAX_LAG >= 2 * BLOCK_BEATS, "a pass brings a tile of K and one of V");

inline int greater(int a, int b) {
  HLS_INLINE
  return a > b ? a : b;
}

// Planes of parameters before a tile of outputs: biases, and for even tiles the multipliers of two tiles.
inline int parameters_of(int out_tile) {
  HLS_INLINE
  return 2 - out_tile % 2;
}

// Planes to load during a pass, and the pass's cycles with them.
struct Trip {
  int planes;
  int steps;
  int last;  // step
};

// Trips of a job's passes, by the following pass. They are computed once; the compute loop only chooses.
struct Trips {
  Trip first;  // no products: the first tile is loaded
  Trip inner;  // another tile of inputs follows
  Trip even;   // an even tile of outputs
  Trip odd;    // an odd tile of outputs
  Trip last;   // no pass
  int blocks;  // ATTENTION: of keys
};

inline Trip trip_of_steps(int planes, int steps) {
  HLS_INLINE
  const Trip result = {planes, steps, steps - 1};
  return result;
}

inline Trip linear_trip(const Job& job, int planes) {
  HLS_INLINE
  return trip_of_steps(planes, greater(greater(job.pairs, planes), ACCUMULATOR_LAG));
}

inline Trips trips_of(const Job& job) {
  HLS_INLINE
  const int lead = parameters_of(job.first_out) + job.bits;
  Trips trips = {trip_of_steps(lead, lead), linear_trip(job, job.bits), linear_trip(job, job.bits + 2),
                 linear_trip(job, job.bits + 1), linear_trip(job, 0), 0};
  if (job.source == Source::ATTENTION) {
    trips.first = trip_of_steps(0, SOFTMAX_LAG);
    trips.inner = trip_of_steps(0, greater(job.pairs, SOFTMAX_LAG));
    trips.blocks = (job.keys + config::key_block - 1) / config::key_block;
  }
  return trips;
}

// Iterations of the compute loop for a linear: the first tile is loaded, then every pass of every tile of
// outputs.
inline int linear_steps(const Job& job, const Trips& trips) {
  HLS_INLINE
  const int end = job.first_out + job.out_tiles;
  const int evens = (end + 1) / 2 - (job.first_out + 2) / 2;  // even tiles of outputs after the first tile
  const int odds = job.out_tiles - 1 - evens;
  const int inner = job.out_tiles * (job.in_tiles - 1) * trips.inner.steps;
  return trips.first.steps + inner + evens * trips.even.steps + odds * trips.odd.steps + trips.last.steps;
}

// For ATTENTION: the first block's K and V, then for every head and block the passes of K, then those of V.
inline int attention_steps(const Job& job, const Trips& trips) {
  HLS_INLINE
  return job.head_tiles * (trips.first.steps + job.heads * trips.blocks * 2 * trips.inner.steps);
}

inline int compute_steps(const Job& job, const Trips& trips) {
  HLS_INLINE
  return job.source == Source::ATTENTION ? attention_steps(job, trips) : linear_steps(job, trips);
}

// A linear's job without its rows.
inline Job linear_job(int in_tiles, int first_out, int out_tiles, int bits) {
  HLS_INLINE
  Job job = {};
  job.source = Source::ROWS;
  job.result = Result::INT8;
  job.row_tiles = in_tiles;
  job.in_tiles = in_tiles;
  job.first_out = first_out;
  job.out_tiles = out_tiles;
  job.bits = bits;
  return job;
}

// Tiles of outputs whose sums the accumulators hold at the same time.
inline int group_tiles(int pair_count, int left) {
  HLS_INLINE
  const int fit = ACCUMULATOR_PAIRS / pair_count;
  return fit < left ? fit : left;
}

// Progress of an instruction's jobs.
struct Sequence {
  int expert;       // EXPERTS
  bool second;      // EXPERTS: the expert's second linear, not its first
  int next_out;     // linears with int16 results: tile of outputs
  int next_pair;    // ATTENTION: pair of queries
  bool done;
};

}  // namespace edge_moe

#endif
