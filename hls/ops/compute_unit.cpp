// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis tops; the accelerator schedules this in executor/compute/compute.hpp.
// The array of multipliers, two products in each or product by product, and one of its cascades. SPEC.md,
// section 4.
#include "edge_moe/operators/compute_unit.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int UNIT_STEPS = 1024;    // pairs of rows of one call
constexpr int UNIT_SUMS = 1 << 16;  // cascades of one call

namespace {

template <bool PACKED>
void unit_steps(const int8_t* weight, const int8_t* x, int32_t* y, int steps) {
  HLS_INLINE
  WeightTile tile = {};
  HLS_REGISTERS(tile.weight)
  ops::load_tile(tile, weight, 1, 0, 0);
UNIT_LOOP:
  for (int step = 0; step < steps; ++step) {
    HLS_PIPELINE
    HLS_TRIPS(1, UNIT_STEPS)
    const int at = step * 2 * LANES;
    const Slice8 x0 = load(x + at);
    const Slice8 x1 = load(x + at + LANES);
    Slice32 y0 = {};
    HLS_LANES(y0)
    Slice32 y1 = {};
    HLS_LANES(y1)
    if (PACKED) {
      edge_moe::compute_unit_packed(tile, x0, x1, y0, y1);
    } else {
      edge_moe::compute_unit_native(tile, x0, x1, y0, y1);
    }
    store(y + at, y0);
    store(y + at + LANES, y1);
  }
}

}  // namespace

// y[2 s] and y[2 s + 1] = tile x[2 s] and tile x[2 s + 1], two products in each multiplier.
extern "C" void compute_unit(const int8_t weight[LANES * LANES], const int8_t x[UNIT_STEPS * 2 * LANES],
                             int32_t y[UNIT_STEPS * 2 * LANES], int steps) {
  HLS_RESHAPE(weight, edge_moe::LANES)
  HLS_RESHAPE(x, 2 * edge_moe::LANES)
  HLS_RESHAPE(y, 2 * edge_moe::LANES)
  unit_steps<true>(weight, x, y, steps);
}

// compute_unit with a multiplier for each product, as g++ computes it.
extern "C" void compute_unit_native(const int8_t weight[LANES * LANES], const int8_t x[UNIT_STEPS * 2 * LANES],
                                    int32_t y[UNIT_STEPS * 2 * LANES], int steps) {
  HLS_RESHAPE(weight, edge_moe::LANES)
  HLS_RESHAPE(x, 2 * edge_moe::LANES)
  HLS_RESHAPE(y, 2 * edge_moe::LANES)
  unit_steps<false>(weight, x, y, steps);
}

// sums[i] of 8 products each: w x0 and w x1 through the same 8 multipliers.
extern "C" void dual_dot(const int8_t w[UNIT_SUMS * CASCADE], const int8_t x0[UNIT_SUMS * CASCADE],
                         const int8_t x1[UNIT_SUMS * CASCADE], int32_t low[UNIT_SUMS],
                         int32_t high[UNIT_SUMS], int count) {
  HLS_RESHAPE(w, edge_moe::CASCADE)
  HLS_RESHAPE(x0, edge_moe::CASCADE)
  HLS_RESHAPE(x1, edge_moe::CASCADE)
CASCADES_LOOP:
  for (int i = 0; i < count; ++i) {
    HLS_PIPELINE
    HLS_TRIPS(1, UNIT_SUMS)
    const int at = i * CASCADE;
    const DualSum sums = edge_moe::dual_dot<CASCADE>(w + at, x0 + at, x1 + at);
    low[i] = sums.low;
    high[i] = sums.high;
  }
}

// One multiplier: all of w[i] x0[i] and w[i] x1[i].
extern "C" void dual_product(const int8_t w[UNIT_SUMS], const int8_t x0[UNIT_SUMS],
                             const int8_t x1[UNIT_SUMS], int32_t low[UNIT_SUMS], int32_t high[UNIT_SUMS],
                             int count) {
PRODUCTS_LOOP:
  for (int i = 0; i < count; ++i) {
    HLS_PIPELINE
    HLS_TRIPS(1, UNIT_SUMS)
    const DualSum sums = edge_moe::dual_dot<1>(w + i, x0 + i, x1 + i);
    low[i] = sums.low;
    high[i] = sums.high;
  }
}
