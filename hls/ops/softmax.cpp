// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/compute/epilogue.hpp.
// The single-pass softmax of attention: logits to numerators and the running state.
// SPEC.md, section 4.
#include "edge_moe/operators/softmax.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int SOFTMAX_BLOCKS = (config::max_tokens + config::key_block - 1) / config::key_block;

// logits int16 [rows][blocks][32], the last block shorter if keys is not a multiple of 32, to numerators
// of the same shape, the rescale before each block, and each row's M and S.
extern "C" void softmax(const int16_t logits[ops::MAX_TOKENS * SOFTMAX_BLOCKS * LANES],
                        int8_t numerator[ops::MAX_TOKENS * SOFTMAX_BLOCKS * LANES],
                        uint8_t rescale[ops::MAX_TOKENS * SOFTMAX_BLOCKS], int16_t exponent[ops::MAX_TOKENS],
                        int32_t sum[ops::MAX_TOKENS], int rows, int keys) {
  HLS_RESHAPE(logits, edge_moe::LANES)
  HLS_RESHAPE(numerator, edge_moe::LANES)
  const int blocks = ops::tiles(keys);
  SoftmaxState state[ops::MAX_TOKENS] = {};
SOFTMAX_START:
  for (int row = 0; row < rows; ++row) {
    HLS_PIPELINE
    HLS_TRIPS(1, ops::MAX_TOKENS)
    state[row] = softmax_start();
  }
SOFTMAX_KEY_BLOCKS:
  for (int block = 0; block < blocks; ++block) {
    HLS_TRIPS(1, SOFTMAX_BLOCKS)
    HLS_NO_FLATTEN
  SOFTMAX_ROWS:
    for (int row = 0; row < rows; ++row) {
      // a row's state is read and written once in this loop
      HLS_PIPELINE
      HLS_INDEPENDENT(state)
      HLS_TRIPS(1, ops::MAX_TOKENS)
      const int at = row * blocks + block;
      const SoftmaxBlock result =
          softmax_block(load(logits + at * LANES), keys - block * config::key_block, state[row]);
      store(numerator + at * LANES, result.numerator);
      rescale[at] = result.rescale;
    }
  }
SOFTMAX_STATE:
  for (int row = 0; row < rows; ++row) {
    HLS_PIPELINE
    HLS_TRIPS(1, ops::MAX_TOKENS)
    exponent[row] = state[row].exponent;
    sum[row] = state[row].sum;
  }
}
