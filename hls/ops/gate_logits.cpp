// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/gate.hpp.
// Gate logits of every token: int16 weights as two int8 halves in the compute unit. SPEC.md, section 4.
#include "edge_moe/operators/gate_logits.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int MAX_GATE_EXPERTS = ops::round_up(config::max_experts, isa::gate_experts);

// 16 experts as a tile: rows of high halves, then rows of low ones.
static void load_gate_tile(WeightTile& tile, const int16_t* weight, int in_tiles, int first, int in_tile) {
  HLS_INLINE
GATE_ROWS:
  for (int e = 0; e < isa::gate_experts; ++e) {
    HLS_PIPELINE
    const Slice16 row = load(weight + ((first + e) * in_tiles + in_tile) * LANES);
    Slice8 high = {};
    Slice8 low = {};
  GATE_HALVES:
    for (int i = 0; i < LANES; ++i) {
      HLS_UNROLL
      high.lane[i] = gate_high(row.lane[i]);
      low.lane[i] = gate_low(row.lane[i]);
    }
    weight_tile_row(tile, e, high);
    weight_tile_row(tile, isa::gate_experts + e, low);
  }
}

// x int8 [rows][in], weight int16 [experts][in], experts padded to a multiple of 16, to logits
// int32 [rows][experts], padded in the same way.
extern "C" void gate_logits(const int8_t x[ops::MAX_TOKENS * ops::MAX_WIDTH],
                            const int16_t weight[MAX_GATE_EXPERTS * ops::MAX_WIDTH],
                            const int32_t bias[MAX_GATE_EXPERTS],
                            int32_t logits[ops::MAX_TOKENS * MAX_GATE_EXPERTS],
                            int rows, int in_channels, int experts) {
  HLS_RESHAPE(x, edge_moe::LANES)
  HLS_RESHAPE(weight, edge_moe::LANES)
  HLS_RESHAPE(bias, edge_moe::isa::gate_experts)
  HLS_RESHAPE(logits, edge_moe::isa::gate_experts)
  ops::Accumulators acc = {};
  HLS_PARTITION(acc, 1)
  HLS_RESHAPE_DIM(acc, 3)
  WeightTile tile = {};
  HLS_REGISTERS(tile.weight)
  const int in_tiles = ops::tiles(in_channels);
  const int padded = (experts + isa::gate_experts - 1) / isa::gate_experts * isa::gate_experts;
GATE_TILES:
  for (int first = 0; first < experts; first += isa::gate_experts) {
    HLS_TRIPS(1, MAX_GATE_EXPERTS / isa::gate_experts)
    ops::start_accumulators(acc, fill(static_cast<int32_t>(0)), rows);
  GATE_IN:
    for (int in_tile = 0; in_tile < in_tiles; ++in_tile) {
      HLS_TRIPS(1, ops::MAX_WIDTH / LANES)
      HLS_NO_FLATTEN
      load_gate_tile(tile, weight, in_tiles, first, in_tile);
    GATE_PAIRS:
      for (int row = 0; row < rows; row += ops::PAIR) {
        // each iteration has accumulators of its own, and the pipeline drains before the next tile
        HLS_PIPELINE
        HLS_INDEPENDENT(acc)
        HLS_TRIPS(1, ops::MAX_TOKENS / ops::PAIR)
        ops::accumulate_pair(acc, tile, row, ops::row_slice(x, row, rows, in_tiles, in_tile),
                             ops::row_slice(x, row + 1, rows, in_tiles, in_tile));
      }
    }
  GATE_LOGITS:
    for (int row = 0; row < rows; ++row) {
      HLS_PIPELINE
      HLS_TRIPS(1, ops::MAX_TOKENS)
      const Slice32 sums = ops::accumulator(acc, row);
    GATE_EXPERT:
      for (int e = 0; e < isa::gate_experts; ++e) {
        HLS_UNROLL
        logits[row * padded + first + e] =
            gate_logit(sums.lane[e], sums.lane[isa::gate_experts + e], bias[first + e]);
      }
    }
  }
}
