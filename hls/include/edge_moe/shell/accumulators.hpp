// SPDX-License-Identifier: Apache-2.0
// The memories of the compute unit's sums, and of a linear's finished int16 results. SPEC.md, section 4.
#ifndef EDGE_MOE_SHELL_ACCUMULATORS_HPP
#define EDGE_MOE_SHELL_ACCUMULATORS_HPP

#include "edge_moe/shell/storage.hpp"

namespace edge_moe {

typedef StoredSlice32 Sums[ACCUMULATOR_PAIRS];      // accumulators of the first or the second rows of all pairs
typedef StoredSlice16 Finished[ACCUMULATOR_PAIRS];  // their requantised form if a linear's result is int16
static_assert(config::accumulator_rows % 2 == 0, "rows are stored in pairs");
static_assert((config::max_tokens + 1) / 2 <= ACCUMULATOR_PAIRS, "one expert may get all tokens");

}  // namespace edge_moe

#endif
