// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/compute/epilogue.hpp.
// GELU of int16 Q10 values, a slice at a time. SPEC.md, section 4.
#include "edge_moe/operators/gelu.hpp"

using namespace edge_moe;

constexpr int GELU_VALUES = 1 << 16;

extern "C" void gelu(const int16_t x[GELU_VALUES], int16_t out[GELU_VALUES], int slices) {
  HLS_RESHAPE(x, edge_moe::LANES)
  HLS_RESHAPE(out, edge_moe::LANES)
GELU_SLICES:
  for (int slice = 0; slice < slices; ++slice) {
    HLS_PIPELINE
    HLS_TRIPS(1, GELU_VALUES / LANES)
    store(out + slice * LANES, edge_moe::gelu(load(x + slice * LANES)));
  }
}
