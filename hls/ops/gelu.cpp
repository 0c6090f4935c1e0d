// SPDX-License-Identifier: Apache-2.0
// GELU of int16 Q10 values, a beat at a time. SPEC.md, section 4.
#include "edge_moe/operators/gelu.hpp"

using namespace edge_moe;

constexpr int GELU_VALUES = 1 << 16;

extern "C" void gelu(const int16_t x[GELU_VALUES], int16_t out[GELU_VALUES], int beats) {
  HLS_RESHAPE(x, edge_moe::LANES)
  HLS_RESHAPE(out, edge_moe::LANES)
GELU_BEATS:
  for (int beat = 0; beat < beats; ++beat) {
    HLS_PIPELINE
    HLS_TRIPS(1, GELU_VALUES / LANES)
    store(out + beat * LANES, edge_moe::gelu(load(x + beat * LANES)));
  }
}
