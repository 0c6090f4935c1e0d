// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/layernorm.hpp.
// LayerNorm of int16 rows to int8 rows. SPEC.md, section 4.
#include "edge_moe/operators/layernorm.hpp"
#include "rows.hpp"

using namespace edge_moe;

extern "C" void layernorm(const int16_t x[ops::MAX_TOKENS * ops::MAX_WIDTH],
                          const int16_t gamma[ops::MAX_WIDTH], const int32_t beta[ops::MAX_WIDTH],
                          int8_t out[ops::MAX_TOKENS * ops::MAX_WIDTH],
                          int rows, int channels, int n, uint32_t epsilon) {
  HLS_RESHAPE(x, edge_moe::LANES)
  HLS_RESHAPE(gamma, edge_moe::LANES)
  HLS_RESHAPE(beta, edge_moe::LANES)
  HLS_RESHAPE(out, edge_moe::LANES)
  const int row_tiles = ops::tiles(channels);
LAYERNORM_ROWS:
  for (int row = 0; row < rows; ++row) {
    HLS_TRIPS(1, ops::MAX_TOKENS)
    const int at = row * row_tiles * LANES;
    Moments moments = layernorm_start();
  LAYERNORM_MOMENTS:
    for (int tile = 0; tile < row_tiles; ++tile) {
      // carried: one addition each to T and Q
      HLS_PIPELINE
      HLS_TRIPS(1, ops::MAX_WIDTH / LANES)
      moments = layernorm_add(moments, load(x + at + tile * LANES), channels - tile * LANES);
    }
    const RowNorm norm = layernorm_scale(moments, channels, epsilon);
  LAYERNORM_APPLY:
    for (int tile = 0; tile < row_tiles; ++tile) {
      HLS_PIPELINE
      HLS_TRIPS(1, ops::MAX_WIDTH / LANES)
      const int c = tile * LANES;
      store(out + at + c, edge_moe::layernorm(load(x + at + c), norm, load(gamma + c), load(beta + c), n));
    }
  }
}
