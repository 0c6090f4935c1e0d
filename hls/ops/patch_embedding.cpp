// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/patches.hpp, then executor/linear.hpp.
// uint8 RGB image to int16 tokens: patches as rows, a linear, the position added. SPEC.md, section 4.
#include "edge_moe/operators/patch_embedding.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int MAX_PATCH = ops::round_up(COLOURS * config::max_patch_size * config::max_patch_size, LANES);
constexpr int MAX_IMAGE = config::max_image_height * config::max_image_width * COLOURS;

// Every pixel to its place: row of its patch, byte of the row in the order line, column, colour.
static void split_patches(int8_t* patches, const uint8_t* image, int height, int width, int patch,
                          int row_bytes) {
  const int across = width / patch;
IMAGE_LINES:
  for (int y = 0; y < height; ++y) {
    HLS_TRIPS(1, config::max_image_height)
  IMAGE_PATCHES:
    for (int p = 0; p < across; ++p) {
      HLS_TRIPS(1, config::max_image_width)
      const int from = (y * width + p * patch) * COLOURS;
      const int to = ((y / patch) * across + p) * row_bytes + (y % patch) * patch * COLOURS;
    PATCH_LINE:
      for (int i = 0; i < patch * COLOURS; ++i) {
        HLS_PIPELINE
        HLS_TRIPS(COLOURS, COLOURS * config::max_patch_size)
        patches[to + i] = patch_pixel(image[from + i]);
      }
    }
  }
}

// image uint8 [height][width][3], weight int8 [channels][3 patch^2], position int16 [tokens][channels] to
// out int16 [tokens][channels]; tokens beyond the patches come first and are their positions.
extern "C" void patch_embedding(const uint8_t image[MAX_IMAGE],
                                const int8_t weight[ops::MAX_WIDTH * MAX_PATCH],
                                const int32_t bias[ops::MAX_WIDTH], const int16_t multiplier[ops::MAX_WIDTH],
                                const int16_t position[ops::MAX_TOKENS * ops::MAX_WIDTH],
                                int16_t out[ops::MAX_TOKENS * ops::MAX_WIDTH], int height, int width,
                                int patch, int tokens, int channels, int shift) {
  HLS_RESHAPE(weight, edge_moe::LANES)
  HLS_RESHAPE(bias, edge_moe::LANES)
  HLS_RESHAPE(multiplier, edge_moe::LANES)
  HLS_RESHAPE(position, edge_moe::LANES)
  HLS_RESHAPE(out, edge_moe::LANES)
  ops::Accumulators acc = {};
  HLS_PARTITION(acc, 1)
  HLS_RESHAPE_DIM(acc, 3)
  int8_t patches[ops::MAX_TOKENS * MAX_PATCH] = {};
  HLS_RESHAPE(patches, edge_moe::LANES)
  const int rows = (height / patch) * (width / patch);
  const int in_tiles = ops::tiles(COLOURS * patch * patch);
  const int out_tiles = ops::tiles(channels);
  const int first = tokens - rows;
  split_patches(patches, image, height, width, patch, in_tiles * LANES);
FIRST_TOKENS:
  for (int slice = 0; slice < first * out_tiles; ++slice) {
    HLS_PIPELINE
    HLS_TRIPS(0, ops::MAX_WIDTH / LANES)
    store(out + slice * LANES, load(position + slice * LANES));
  }
EMBEDDING_OUT:
  for (int tile = 0; tile < out_tiles; ++tile) {
    HLS_TRIPS(1, ops::MAX_WIDTH / LANES)
    ops::linear_tile(acc, patches, weight, bias, rows, in_tiles, tile);
    const Slice16 m = load(multiplier + tile * LANES);
  EMBEDDING_ROWS:
    for (int row = 0; row < rows; ++row) {
      HLS_PIPELINE
      HLS_TRIPS(1, ops::MAX_TOKENS)
      const int at = ((first + row) * out_tiles + tile) * LANES;
      store(out + at, edge_moe::patch_embedding(ops::accumulator(acc, row), m, shift, load(position + at)));
    }
  }
}
