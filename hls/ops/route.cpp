// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this in executor/gate.hpp.
// Gate logits to the best experts and their scores. SPEC.md, section 4.
#include "edge_moe/operators/route.hpp"
#include "rows.hpp"

using namespace edge_moe;

// logits int32 [rows][experts] to expert and score [rows][top_k], best first.
extern "C" void route(const int32_t logits[ops::MAX_TOKENS * config::max_experts],
                      uint16_t expert[ops::MAX_TOKENS * config::max_top_k],
                      int16_t score[ops::MAX_TOKENS * config::max_top_k], int rows, int experts, int top_k,
                      int16_t multiplier, int shift) {
ROUTE_ROWS:
  for (int row = 0; row < rows; ++row) {
    HLS_TRIPS(1, ops::MAX_TOKENS)
    RouteState state = route_start();
    HLS_REGISTERS(state.best)
    int16_t scaled[config::max_experts] = {};
  ROUTE_OFFER:
    for (int e = 0; e < experts; ++e) {
      // carried: one comparison and one selection
      HLS_PIPELINE
      HLS_TRIPS(1, config::max_experts)
      const int32_t logit = logits[row * experts + e];
      scaled[e] = route_scale(logit, multiplier, shift);
      route_offer(state, e, logit, scaled[e]);
    }
    int32_t sum = 0;
  ROUTE_SUM:
    for (int e = 0; e < experts; ++e) {
      HLS_PIPELINE
      HLS_TRIPS(1, config::max_experts)
      sum += route_numerator(scaled[e], state.maximum);
    }
    const Inverse inverse = route_inverse(sum);
  ROUTE_SCORES:
    for (int i = 0; i < top_k; ++i) {
      HLS_PIPELINE
      HLS_TRIPS(1, config::max_top_k)
      const Choice choice = state.best[i];
      expert[row * top_k + i] = choice.expert;
      score[row * top_k + i] = route_score(route_numerator(choice.scaled, state.maximum), inverse);
    }
  }
}
