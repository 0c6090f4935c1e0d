// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/experts.hpp.
// A mixture of experts: tokens queued by expert, each expert's weights once, results weighted by score
// and added to the residual. SPEC.md, section 4.
#include "edge_moe/operators/experts.hpp"
#include "edge_moe/operators/linear.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int MOE_EXPERTS = config::max_experts;
constexpr int MOE_ROWS = ops::MAX_TOKENS * ops::MAX_WIDTH;
constexpr int MOE_HIDDEN = MOE_EXPERTS * ops::MAX_CHANNELS;
constexpr int MOE_WIDTH = MOE_EXPERTS * ops::MAX_WIDTH;

namespace {

// Returns false if a route names no expert.
bool fill_queues(ExpertQueues& queues, const uint16_t* expert, const int16_t* score, int rows, int experts,
                 int top_k) {
  bool known = true;
  queues_clear(queues);
COUNT_ROUTES:
  for (int i = 0; i < rows * top_k; ++i) {
    // carried: counters in registers
    HLS_PIPELINE
    HLS_TRIPS(1, MAX_ROUTES)
    known = queues_count(queues, expert[i], experts) && known;
  }
  queues_open(queues);
PUT_ROUTES:
  for (int row = 0; row < rows; ++row) {
    HLS_TRIPS(1, ops::MAX_TOKENS)
  PUT_CHOICES:
    for (int i = 0; i < top_k; ++i) {
      HLS_PIPELINE
      HLS_TRIPS(1, config::max_top_k)
      const int route = row * top_k + i;
      known = queues_put(queues, expert[route], experts, row, score[route]) && known;
    }
  }
  return known;
}

// Residual rows as sums.
void start_sums(int16_t* low, int8_t* high, const int16_t* residual, int slices) {
START_SUMS:
  for (int slice = 0; slice < slices; ++slice) {
    HLS_PIPELINE
    HLS_TRIPS(1, MOE_ROWS / LANES)
    const Slice32 sum = experts_start(load(residual + slice * LANES));
    store(low + slice * LANES, experts_low(sum));
    store(high + slice * LANES, experts_high(sum));
  }
}

// Rows of an expert's tokens, in the order of its queue.
void gather_rows(int8_t* gathered, const int8_t* x, const ExpertQueues& queues, int expert, int row_tiles) {
GATHER_ROWS:
  for (int i = 0; i < queues.count[expert]; ++i) {
    HLS_TRIPS(1, ops::MAX_TOKENS)
    const int token = queues.entry[queues.start[expert] + i].token;
  GATHER_TILES:
    for (int tile = 0; tile < row_tiles; ++tile) {
      HLS_PIPELINE
      HLS_TRIPS(1, ops::MAX_WIDTH / LANES)
      store(gathered + (i * row_tiles + tile) * LANES, load(x + (token * row_tiles + tile) * LANES));
    }
  }
}

// A tile of an expert's result, weighted and added to its tokens' sums.
void add_weighted(int16_t* low, int8_t* high, const ops::Accumulators acc, const ExpertQueues& queues,
                  int expert, const Slice16& m, int n, int row_tiles, int tile) {
  HLS_INLINE
ADD_WEIGHTED:
  for (int row = 0; row < queues.count[expert]; ++row) {
    // a token comes once in an expert's queue, so no iteration reads what another writes
    HLS_PIPELINE
    HLS_INDEPENDENT(low)
    HLS_INDEPENDENT(high)
    HLS_TRIPS(1, ops::MAX_TOKENS)
    const Route route = queues.entry[queues.start[expert] + row];
    const int at = (route.token * row_tiles + tile) * LANES;
    const Slice16 f = linear_int16(ops::accumulator(acc, row), m, n);
    const Slice32 before = experts_join(load(low + at), load(high + at));
    const Slice32 sum = accumulate(before, experts_weighted(f, route.score));
    store(low + at, experts_low(sum));
    store(high + at, experts_high(sum));
  }
}

void finish_sums(int16_t* low, const int8_t* high, int slices) {
FINISH_SUMS:
  for (int slice = 0; slice < slices; ++slice) {
    HLS_PIPELINE
    HLS_TRIPS(1, MOE_ROWS / LANES)
    const Slice32 sum = experts_join(load(low + slice * LANES), load(high + slice * LANES));
    store(low + slice * LANES, experts_finish(sum));
  }
}

}  // namespace

// x int8 and residual int16 [rows][width], expert and score [rows][top_k]; of each expert weight1 int8
// [hidden][width], weight2 [width][hidden] and their parameters. low int16 and high int8 [rows][width]
// hold the sums between the experts; low is the result at the end. Returns 0, or 1 if a route names
// no expert.
extern "C" int experts(const int8_t x[MOE_ROWS], const uint16_t expert[MAX_ROUTES],
                       const int16_t score[MAX_ROUTES], const int16_t residual[MOE_ROWS],
                       const int8_t weight1[MOE_HIDDEN * ops::MAX_WIDTH], const int32_t bias1[MOE_HIDDEN],
                       const int16_t multiplier1[MOE_HIDDEN],
                       const int8_t weight2[MOE_WIDTH * ops::MAX_CHANNELS], const int32_t bias2[MOE_WIDTH],
                       const int16_t multiplier2[MOE_WIDTH], const uint8_t shift1[MOE_EXPERTS],
                       const uint8_t shift2[MOE_EXPERTS], const int16_t gelu_multiplier[MOE_EXPERTS],
                       const uint8_t gelu_shift[MOE_EXPERTS], const int8_t zero_point[MOE_EXPERTS],
                       int16_t low[MOE_ROWS], int8_t high[MOE_ROWS], int rows, int width, int hidden,
                       int experts, int top_k) {
  HLS_RESHAPE(x, edge_moe::LANES)
  HLS_RESHAPE(residual, edge_moe::LANES)
  HLS_RESHAPE(weight1, edge_moe::LANES)
  HLS_RESHAPE(bias1, edge_moe::LANES)
  HLS_RESHAPE(multiplier1, edge_moe::LANES)
  HLS_RESHAPE(weight2, edge_moe::LANES)
  HLS_RESHAPE(bias2, edge_moe::LANES)
  HLS_RESHAPE(multiplier2, edge_moe::LANES)
  HLS_RESHAPE(low, edge_moe::LANES)
  HLS_RESHAPE(high, edge_moe::LANES)
  ops::Accumulators acc = {};
  HLS_PARTITION(acc, 1)
  HLS_RESHAPE_DIM(acc, 3)
  int8_t gathered[MOE_ROWS] = {};
  HLS_RESHAPE(gathered, edge_moe::LANES)
  int8_t activated[ops::MAX_TOKENS * ops::MAX_CHANNELS] = {};
  HLS_RESHAPE(activated, edge_moe::LANES)
  ExpertQueues queues = {};
  HLS_REGISTERS(queues.count)
  HLS_REGISTERS(queues.start)
  HLS_REGISTERS(queues.filled)
  const int width_tiles = ops::tiles(width);
  const int hidden_tiles = ops::tiles(hidden);
  if (!fill_queues(queues, expert, score, rows, experts, top_k)) {
    return 1;
  }
  start_sums(low, high, residual, rows * width_tiles);
EXPERTS_LOOP:
  for (int e = 0; e < experts; ++e) {
    HLS_TRIPS(1, MOE_EXPERTS)
    const int count = queues.count[e];
    const int first1 = e * hidden_tiles * LANES;
    const int first2 = e * width_tiles * LANES;
    const int8_t* tiles1 = weight1 + first1 * width_tiles * LANES;
    const int8_t* tiles2 = weight2 + first2 * hidden_tiles * LANES;
    gather_rows(gathered, x, queues, e, width_tiles);
  FIRST_LINEAR:
    for (int tile = 0; count > 0 && tile < hidden_tiles; ++tile) {
      HLS_TRIPS(0, ops::MAX_CHANNELS / LANES)
      ops::linear_tile(acc, gathered, tiles1, bias1 + first1, count, width_tiles, tile);
      const Slice16 m = load(multiplier1 + first1 + tile * LANES);
    FIRST_EPILOGUE:
      for (int row = 0; row < count; ++row) {
        HLS_PIPELINE
        HLS_TRIPS(1, ops::MAX_TOKENS)
        store(activated + (row * hidden_tiles + tile) * LANES,
              linear_gelu(ops::accumulator(acc, row), m, shift1[e], gelu_multiplier[e], gelu_shift[e],
                          zero_point[e]));
      }
    }
  SECOND_LINEAR:
    for (int tile = 0; count > 0 && tile < width_tiles; ++tile) {
      HLS_TRIPS(0, ops::MAX_WIDTH / LANES)
      ops::linear_tile(acc, activated, tiles2, bias2 + first2, count, hidden_tiles, tile);
      const Slice16 m = load(multiplier2 + first2 + tile * LANES);
      add_weighted(low, high, acc, queues, e, m, shift2[e], width_tiles, tile);
    }
  }
  finish_sums(low, high, rows * width_tiles);
  return 0;
}
