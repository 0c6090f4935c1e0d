// SPDX-License-Identifier: Apache-2.0
// Tokens sorted into one queue for each expert, and the score-weighted sum of the experts' results.
// SPEC.md, section 4.
//
// Queues follow each other in one memory of tokens x top-k entries (counting sort): all routes
// pass once through queues_count, queues_open places the queues, all pass again through queues_put. Any
// distribution fits, even all tokens on one expert. Weights are then read once for each expert that has
// tokens, whatever the routing.
#ifndef EDGE_MOE_OPERATORS_EXPERTS_HPP
#define EDGE_MOE_OPERATORS_EXPERTS_HPP

#include "edge_moe/arithmetic.hpp"

namespace edge_moe {

constexpr int MAX_ROUTES = config::max_tokens * config::max_top_k;
static_assert(config::max_tokens < (1 << 15) && MAX_ROUTES < (1 << 16), "queue places are uint16_t");

// One token in an expert's queue.
struct Route {
  uint16_t token;
  int16_t score;  // Q15
};

// Tokens of expert e: entry[start[e]] to entry[start[e] + count[e] - 1], in rising order.
struct ExpertQueues {
  uint16_t count[config::max_experts];
  uint16_t start[config::max_experts];
  uint16_t filled[config::max_experts];
  Route entry[MAX_ROUTES];
};

inline void queues_clear(ExpertQueues& queues) {
  HLS_INLINE
QUEUES_CLEAR:
  for (int e = 0; e < config::max_experts; ++e) {
    HLS_UNROLL
    queues.count[e] = 0;
    queues.start[e] = 0;
    queues.filled[e] = 0;
  }
}

// First pass. Returns false, and does nothing, if there is no such expert. The counters are registers, so
// that the same expert may come again in the next cycle.
inline bool queues_count(ExpertQueues& queues, int expert, int experts) {
  HLS_INLINE
  const bool known = expert >= 0 && expert < experts && expert < config::max_experts;
  if (known) {
    queues.count[expert] = static_cast<uint16_t>(queues.count[expert] + 1);
  }
  return known;
}

// Between the passes: a queue starts where the one before it ends.
inline void queues_open(ExpertQueues& queues) {
  HLS_INLINE
  uint16_t next = 0;
QUEUES_OPEN:
  for (int e = 0; e < config::max_experts; ++e) {
    HLS_PIPELINE
    queues.start[e] = next;
    queues.filled[e] = 0;
    next = static_cast<uint16_t>(next + queues.count[e]);
  }
}

// Second pass, with the same experts as the first. Returns false if the queues have no place left.
inline bool queues_put(ExpertQueues& queues, int expert, int experts, int token, int16_t score) {
  HLS_INLINE
  const bool known = expert >= 0 && expert < experts && expert < config::max_experts;
  const int index = known ? expert : 0;
  const bool room = known && queues.filled[index] < queues.count[index];
  const int place = queues.start[index] + queues.filled[index];
  if (room && place < MAX_ROUTES) {
    queues.entry[place].token = static_cast<uint16_t>(token);
    queues.entry[place].score = score;
    queues.filled[index] = static_cast<uint16_t>(queues.filled[index] + 1);
    return true;
  }
  return false;
}

// rs(f score, 15) for a slice of an expert's int16 result.
inline Slice32 experts_weighted(const Slice16& f, int16_t score) {
  HLS_INLINE
  constexpr int FRACTION = tables::score_fraction;
  Slice32 result = {};
  HLS_LANES(result)
EXPERTS_WEIGHTED:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    const Int<32> scaled = product<16, 16>(f.lane[i], score);
    result.lane[i] = static_cast<int32_t>(rounding_shift<32, FRACTION>(scaled, FRACTION));
  }
  return result;
}

// Residual plus up to 8 products of 16 bits stays within 20 bits: a sum is kept in 24, as an int16 row
// (the low bits) and an int8 row (the high ones).
constexpr int EXPERTS_SUM_BITS = 24;
static_assert((1 + tables::top_k_limit) * 32768 < (1 << (EXPERTS_SUM_BITS - 1)), "24 bits hold every sum");

// A sum from its two rows.
inline Slice32 experts_join(const Slice16& low, const Slice8& high) {
  HLS_INLINE
  Slice32 result = {};
  HLS_LANES(result)
EXPERTS_JOIN:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = static_cast<int32_t>(high.lane[i]) * (1 << 16) + static_cast<uint16_t>(low.lane[i]);
  }
  return result;
}

// Low and high rows of a sum.
inline Slice16 experts_low(const Slice32& sum) {
  HLS_INLINE
  Slice16 result = {};
  HLS_LANES(result)
EXPERTS_LOW:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = static_cast<int16_t>(static_cast<uint16_t>(sum.lane[i]));
  }
  return result;
}

inline Slice8 experts_high(const Slice32& sum) {
  HLS_INLINE
  Slice8 result = {};
  HLS_LANES(result)
EXPERTS_HIGH:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = static_cast<int8_t>(sum.lane[i] >> 16);
  }
  return result;
}

// A residual row's slice as the initial sum of the experts.
inline Slice32 experts_start(const Slice16& residual) {
  HLS_INLINE
  Slice32 result = {};
  HLS_LANES(result)
EXPERTS_START:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = residual.lane[i];
  }
  return result;
}

// The one saturation at the end.
inline Slice16 experts_finish(const Slice32& sum) {
  HLS_INLINE
  Slice16 result = {};
  HLS_LANES(result)
EXPERTS_FINISH:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    result.lane[i] = clip16(sum.lane[i]);
  }
  return result;
}

}  // namespace edge_moe

#endif
