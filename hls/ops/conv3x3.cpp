// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/conv3x3.hpp.
// 3x3 convolution with ReLU: nine linears over shifted rows, accumulated. SPEC.md, section 4.
#include "edge_moe/operators/conv3x3.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int MAX_CONV = ops::round_up(config::max_conv_channels, LANES);

// x int8 [height * width][in], weight int8 [out][9][in] to out int8 [height * width][out]. Pixels pass in
// groups that the accumulators hold.
extern "C" void conv3x3(const int8_t x[config::max_map_rows * MAX_CONV],
                        const int8_t weight[MAX_CONV * TAPS * MAX_CONV], const int32_t bias[MAX_CONV],
                        const int16_t multiplier[MAX_CONV], int8_t out[config::max_map_rows * MAX_CONV],
                        int height, int width, int in_channels, int out_channels, int shift, int8_t pad) {
  HLS_RESHAPE(x, edge_moe::LANES)
  HLS_RESHAPE(weight, edge_moe::LANES)
  HLS_RESHAPE(bias, edge_moe::LANES)
  HLS_RESHAPE(multiplier, edge_moe::LANES)
  HLS_RESHAPE(out, edge_moe::LANES)
  ops::Accumulators acc = {};
  HLS_PARTITION(acc, 1)
  HLS_RESHAPE_DIM(acc, 3)
  WeightTile tile = {};
  HLS_REGISTERS(tile.weight)
  const int in_tiles = ops::tiles(in_channels);
  const int out_tiles = ops::tiles(out_channels);
  const int pixels = height * width;
PIXEL_GROUPS:
  for (int first = 0; first < pixels; first += ops::MAX_ACCUMULATORS) {
    HLS_TRIPS(1, (config::max_map_rows + ops::MAX_ACCUMULATORS - 1) / ops::MAX_ACCUMULATORS)
    const int left = pixels - first;
    const int rows = left < ops::MAX_ACCUMULATORS ? left : ops::MAX_ACCUMULATORS;
  CONV_OUT:
    for (int o = 0; o < out_tiles; ++o) {
      HLS_TRIPS(1, MAX_CONV / LANES)
      ops::start_accumulators(acc, load(bias + o * LANES), rows);
    CONV_IN:
      for (int i = 0; i < TAPS * in_tiles; ++i) {
        HLS_TRIPS(TAPS, TAPS * MAX_CONV / LANES)
        HLS_NO_FLATTEN
        const int tap = i / in_tiles;
        const int dy = tap / TAP_SIDE;
        const int dx = tap % TAP_SIDE;
        ops::load_tile(tile, weight, TAPS * in_tiles, o, i);
        int y = first / width;
        int column = first % width;
      CONV_PIXELS:
        for (int row = 0; row < rows; row += ops::PAIR) {
          // each iteration has accumulators of its own, and the pipeline drains before the next tile;
          // carried: the position in the map, an increment and a comparison
          HLS_PIPELINE
          HLS_INDEPENDENT(acc)
          HLS_TRIPS(1, ops::MAX_ACCUMULATORS / ops::PAIR)
          const ConvSource source0 = conv3x3_source(y, column, dy, dx, height, width);
          const bool wraps = column + 1 == width;
          const int y1 = wraps ? y + 1 : y;
          const int column1 = wraps ? 0 : column + 1;
          const ConvSource source1 = conv3x3_source(y1, column1, dy, dx, height, width);
          const int at = i - tap * in_tiles;
          const Slice8 row0 = load(x + (source0.pixel * in_tiles + at) * LANES);
          const Slice8 row1 = load(x + (source1.pixel * in_tiles + at) * LANES);
          ops::accumulate_pair(acc, tile, row, conv3x3_input(row0, source0.inside, pad),
                               conv3x3_input(row1, source1.inside, pad));
          y = column1 + 1 == width ? y1 + 1 : y1;
          column = column1 + 1 == width ? 0 : column1 + 1;
        }
      }
      const Slice16 m = load(multiplier + o * LANES);
    CONV_EPILOGUE:
      for (int row = 0; row < rows; ++row) {
        HLS_PIPELINE
        HLS_TRIPS(1, ops::MAX_ACCUMULATORS)
        store(out + ((first + row) * out_tiles + o) * LANES,
              edge_moe::conv3x3(ops::accumulator(acc, row), m, shift));
      }
    }
  }
}
