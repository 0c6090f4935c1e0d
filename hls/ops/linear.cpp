// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/linear.hpp.
// A linear layer with each of its epilogues. SPEC.md, section 4.
#include "edge_moe/operators/linear.hpp"
#include "edge_moe_isa.hpp"
#include "rows.hpp"

using namespace edge_moe;

// x int8 [rows][in], weight int8 [out][in]. `epilogue` is an isa::Epilogue: REQUANTISE and GELU write
// out8, RESIDUAL (which reads residual) and INT16 write out16.
extern "C" void linear(const int8_t x[ops::MAX_TOKENS * ops::MAX_CHANNELS],
                       const int8_t weight[ops::MAX_CHANNELS * ops::MAX_CHANNELS],
                       const int32_t bias[ops::MAX_CHANNELS], const int16_t multiplier[ops::MAX_CHANNELS],
                       const int16_t residual[ops::MAX_TOKENS * ops::MAX_CHANNELS],
                       int8_t out8[ops::MAX_TOKENS * ops::MAX_CHANNELS],
                       int16_t out16[ops::MAX_TOKENS * ops::MAX_CHANNELS], int rows, int in_channels,
                       int out_channels, int epilogue, int shift, int16_t gelu_multiplier, int gelu_shift,
                       int8_t zero_point) {
  HLS_RESHAPE(x, edge_moe::LANES)
  HLS_RESHAPE(weight, edge_moe::LANES)
  HLS_RESHAPE(bias, edge_moe::LANES)
  HLS_RESHAPE(multiplier, edge_moe::LANES)
  HLS_RESHAPE(residual, edge_moe::LANES)
  HLS_RESHAPE(out8, edge_moe::LANES)
  HLS_RESHAPE(out16, edge_moe::LANES)
  ops::Accumulators acc = {};
  HLS_PARTITION(acc, 1)
  HLS_RESHAPE_DIM(acc, 3)
  const int in_tiles = ops::tiles(in_channels);
  const int out_tiles = ops::tiles(out_channels);
LINEAR_OUT:
  for (int tile = 0; tile < out_tiles; ++tile) {
    HLS_TRIPS(1, ops::MAX_CHANNELS / LANES)
    ops::linear_tile(acc, x, weight, bias, rows, in_tiles, tile);
    const Slice16 m = load(multiplier + tile * LANES);
  LINEAR_EPILOGUE:
    for (int row = 0; row < rows; ++row) {
      HLS_PIPELINE
      HLS_TRIPS(1, ops::MAX_TOKENS)
      const int at = (row * out_tiles + tile) * LANES;
      const Slice32 a = ops::accumulator(acc, row);
      switch (static_cast<isa::Epilogue>(epilogue)) {
        case isa::Epilogue::REQUANTISE:
          store(out8 + at, edge_moe::linear(a, m, shift));
          break;
        case isa::Epilogue::GELU:
          store(out8 + at, linear_gelu(a, m, shift, gelu_multiplier, gelu_shift, zero_point));
          break;
        case isa::Epilogue::RESIDUAL:
          store(out16 + at, linear_residual(a, m, shift, load(residual + at)));
          break;
        case isa::Epilogue::INT16:
          store(out16 + at, linear_int16(a, m, shift));
          break;
      }
    }
  }
}
