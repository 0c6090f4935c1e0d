// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/upsample2x.hpp.
// Bilinear enlargement of an int8 map by two. SPEC.md, section 4.
#include "edge_moe/operators/upsample2x.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int MAX_MAP = config::max_map_rows * ops::round_up(config::max_conv_channels, LANES);

// x int8 [height * width][channels] to out int8 [2 height * 2 width][channels].
extern "C" void upsample2x(const int8_t x[MAX_MAP], int8_t out[MAX_MAP], int height, int width,
                           int channels) {
  HLS_RESHAPE(x, edge_moe::LANES)
  HLS_RESHAPE(out, edge_moe::LANES)
  const int row_tiles = ops::tiles(channels);
OUTPUT_LINES:
  for (int y = 0; y < 2 * height; ++y) {
    HLS_TRIPS(2, config::max_map_rows)
    const UpsampleTaps line = upsample2x_taps(y, height);
  OUTPUT_PIXELS:
    for (int column = 0; column < 2 * width; ++column) {
      HLS_TRIPS(2, config::max_map_rows)
      const UpsampleTaps taps = upsample2x_taps(column, width);
    OUTPUT_TILES:
      for (int tile = 0; tile < row_tiles; ++tile) {
        HLS_PIPELINE
        HLS_TRIPS(1, ops::round_up(config::max_conv_channels, LANES) / LANES)
        const int8_t* above = x + (line.lower * width * row_tiles + tile) * LANES;
        const int8_t* below = x + (line.upper * width * row_tiles + tile) * LANES;
        const int lower = taps.lower * row_tiles * LANES;
        const int upper = taps.upper * row_tiles * LANES;
        store(out + ((y * 2 * width + column) * row_tiles + tile) * LANES,
              edge_moe::upsample2x(load(above + lower), load(above + upper), load(below + lower),
                                   load(below + upper), line.upper_weight, taps.upper_weight));
      }
    }
  }
}
