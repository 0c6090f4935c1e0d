// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/compute/epilogue.hpp.
// clip(rs(a m, n) + z, low, high), one multiplier for each channel. SPEC.md, section 2.
#include "edge_moe/operators/requantise.hpp"
#include "rows.hpp"

using namespace edge_moe;

extern "C" void requantise(const int32_t a[ops::MAX_TOKENS * ops::MAX_CHANNELS],
                           const int16_t m[ops::MAX_CHANNELS],
                           int16_t out[ops::MAX_TOKENS * ops::MAX_CHANNELS], int rows, int channels, int n,
                           int low, int high, int z) {
  int next = 0;
REQUANTISE_ROWS:
  for (int row = 0; row < rows; ++row) {
    HLS_TRIPS(1, ops::MAX_TOKENS)
  REQUANTISE_CHANNELS:
    for (int c = 0; c < channels; ++c) {
      HLS_PIPELINE
      HLS_TRIPS(1, ops::MAX_CHANNELS)
      out[next] = static_cast<int16_t>(edge_moe::requantise<32>(a[next], m[c], n, low, high, z));
      ++next;
    }
  }
}
