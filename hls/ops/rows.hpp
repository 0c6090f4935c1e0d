// SPDX-License-Identifier: Apache-2.0
// Shared by operator tops: rows of slices in plain arrays, and the loops of a linear layer over tiles.
//
// A row of C channels takes tiles(C) slices of 32; the lanes beyond C are padding. Weights are
// [out][in], both padded to whole tiles with zeros.
#ifndef EDGE_MOE_OPS_ROWS_HPP
#define EDGE_MOE_OPS_ROWS_HPP

#include "edge_moe/operators/compute_unit.hpp"
#include "edge_moe/operators/weight_tile.hpp"

namespace edge_moe {
namespace ops {

constexpr int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

// Sizes of the tops' arrays.
constexpr int PAIR = config::tokens_parallel;
constexpr int MAX_TOKENS = round_up(config::max_tokens, PAIR);
constexpr int MAX_WIDTH = round_up(config::max_width, LANES);
constexpr int MAX_CHANNELS = round_up(config::max_channels, LANES);
constexpr int MAX_ACCUMULATORS = round_up(config::accumulator_rows, PAIR);
static_assert(config::max_tokens <= config::accumulator_rows, "all tokens pass through one tile at a time");

// Accumulators of one tile of outputs: row r is acc[r % 2][r / 2].
typedef int32_t Accumulators[PAIR][MAX_ACCUMULATORS / PAIR][LANES];

// Number of tiles of 32 that hold `channels`.
inline int tiles(int channels) {
  HLS_INLINE
  return (channels + LANES - 1) / LANES;
}

// Slice `tile` of a row; zeros if there is no such row, as for the partner of a single last row.
inline Slice8 row_slice(const int8_t* x, int row, int rows, int row_tiles, int tile) {
  HLS_INLINE
  return row < rows ? load(x + (row * row_tiles + tile) * LANES) : fill(static_cast<int8_t>(0));
}

// Tile (out_tile, in_tile) of a weight matrix.
inline void load_tile(WeightTile& tile, const int8_t* weight, int in_tiles, int out_tile, int in_tile) {
  HLS_INLINE
LOAD_TILE:
  for (int out = 0; out < config::tile_out; ++out) {
    HLS_PIPELINE
    const int row = out_tile * config::tile_out + out;
    weight_tile_row(tile, out, load(weight + (row * in_tiles + in_tile) * LANES));
  }
}

// Set all accumulators of `rows` rows to the same slice.
inline void start_accumulators(Accumulators acc, const Slice32& slice, int rows) {
  HLS_INLINE
START_ROWS:
  for (int row = 0; row < rows; row += PAIR) {
    HLS_PIPELINE
    HLS_TRIPS(1, MAX_ACCUMULATORS / PAIR)
    store(acc[0][row / PAIR], slice);
    store(acc[1][row / PAIR], slice);
  }
}

// Two rows of inputs through a tile into their accumulators.
inline void accumulate_pair(Accumulators acc, const WeightTile& tile, int row, const Slice8& x0,
                            const Slice8& x1) {
  HLS_INLINE
  Slice32 y0 = {};
  Slice32 y1 = {};
  HLS_LANES(y0)
  HLS_LANES(y1)
  compute_unit(tile, x0, x1, y0, y1);
  store(acc[0][row / PAIR], accumulate(load(acc[0][row / PAIR]), y0));
  store(acc[1][row / PAIR], accumulate(load(acc[1][row / PAIR]), y1));
}

// acc[row] = bias + sum w x for one tile of outputs, x int8 [rows][in_tiles][32].
inline void linear_tile(Accumulators acc, const int8_t* x, const int8_t* weight, const int32_t* bias,
                        int rows, int in_tiles, int out_tile) {
  WeightTile tile = {};
  HLS_REGISTERS(tile.weight)
  start_accumulators(acc, load(bias + out_tile * LANES), rows);
LINEAR_IN:
  for (int in_tile = 0; in_tile < in_tiles; ++in_tile) {
    HLS_TRIPS(1, MAX_CHANNELS / LANES)
    HLS_NO_FLATTEN
    load_tile(tile, weight, in_tiles, out_tile, in_tile);
  LINEAR_ROWS:
    for (int row = 0; row < rows; row += PAIR) {
      // each iteration has accumulators of its own, and the pipeline drains before the next tile
      HLS_PIPELINE
      HLS_INDEPENDENT(acc)
      HLS_TRIPS(1, MAX_ACCUMULATORS / PAIR)
      accumulate_pair(acc, tile, row, row_slice(x, row, rows, in_tiles, in_tile),
                      row_slice(x, row + 1, rows, in_tiles, in_tile));
    }
  }
}

// A row's accumulators.
inline Slice32 accumulator(const Accumulators acc, int row) {
  HLS_INLINE
  return load(acc[row % PAIR][row / PAIR]);
}

}  // namespace ops
}  // namespace edge_moe

#endif
