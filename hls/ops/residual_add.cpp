// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/linear.hpp.
// clip16(residual + update), a slice at a time. SPEC.md, section 4.
#include "edge_moe/operators/residual_add.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int RESIDUAL_VALUES = ops::MAX_TOKENS * ops::MAX_WIDTH;

extern "C" void residual_add(const int16_t residual[RESIDUAL_VALUES],
                             const int16_t update[RESIDUAL_VALUES], int16_t out[RESIDUAL_VALUES], int slices) {
  HLS_RESHAPE(residual, edge_moe::LANES)
  HLS_RESHAPE(update, edge_moe::LANES)
  HLS_RESHAPE(out, edge_moe::LANES)
RESIDUAL_SLICES:
  for (int slice = 0; slice < slices; ++slice) {
    HLS_PIPELINE
    HLS_TRIPS(1, RESIDUAL_VALUES / LANES)
    const int at = slice * LANES;
    store(out + at, edge_moe::residual_add(load(residual + at), load(update + at)));
  }
}
