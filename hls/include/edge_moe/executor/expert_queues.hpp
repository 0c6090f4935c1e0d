// SPDX-License-Identifier: Apache-2.0
// Routing rows sorted into queues, one for each expert and parity of the token's number. SPEC.md, section 4.
//
// The compute unit takes two tokens at a time, and the scratch memory gives one even and one odd row per
// cycle, so an expert's tokens form pairs of one each as long as there are both. The rest of one queue passes
// the first linear one by one, but fills pairs of hidden rows, so that the second linear has full pairs.
// Counting sort: the routing rows pass once to be counted, once to be placed. Any distribution fits, even all
// tokens on one expert.
#ifndef EDGE_MOE_EXECUTOR_EXPERT_QUEUES_HPP
#define EDGE_MOE_EXECUTOR_EXPERT_QUEUES_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/executor/routing_row.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// Entries of one parity's queues: each token is queued for up to top_k experts.
typedef uint16_t QueueTokens[QUEUE_ENTRIES];
typedef int16_t QueueScores[QUEUE_ENTRIES];
static_assert(config::max_tokens < (1 << 16) && QUEUE_ENTRIES < (1 << 16), "places are uint16_t");

// Counters of one parity.
struct QueueCounters {
  uint16_t count[config::max_experts];
  uint16_t start[config::max_experts];
  uint16_t filled[config::max_experts];
};

// Entries of a queue in the queues' memory.
struct QueueRange {
  int start;
  int count;
};

// The tokens of one expert: the even ones and the odd ones.
struct Crowd {
  QueueRange even;
  QueueRange odd;
};

// Whether the expert in place `slot` exists and is in no earlier place. This always holds for GATE's rows;
// other bytes may be anything, and must not make a queue longer than the number of tokens.
inline bool routes_to(const RoutingRow& row, int slot, int experts) {
  HLS_INLINE
  bool fresh = row.expert[slot] < experts;
ROUTES_BEFORE:
  for (int i = 0; i < isa::max_top_k; ++i) {
    HLS_UNROLL
    fresh = fresh && (i >= slot || row.expert[i] != row.expert[slot]);
  }
  return fresh;
}

// A token's route in one place of its routing row.
struct QueuedRoute {
  bool taken;  // the row has this token, and the route is one to queue
  uint16_t expert;
  int16_t score;
};

inline QueuedRoute queued_route(const Half& half, int slot, int experts, bool present) {
  HLS_INLINE
  const RoutingRow row = routing_row(half);
  const QueuedRoute route = {present && routes_to(row, slot, experts), row.expert[slot], row.score[slot]};
  return route;
}

// The routing rows in order: a place of a pair of tokens per step.
struct RouteCursor {
  int pair;
  int slot;
};

inline void next_route(RouteCursor& at, int top_k) {
  HLS_INLINE
  const bool done = at.slot == top_k - 1;
  at.slot = done ? 0 : at.slot + 1;
  at.pair += done ? 1 : 0;
}

inline int queue_steps(const isa::Instruction& i) {
  HLS_INLINE
  return pairs(i.rows) * i.top_k;
}

// Add one to the count of each route's expert.
inline void count_routes(const isa::Instruction& i, const ScratchHalf even, const ScratchHalf odd,
                         QueueCounters& evens, QueueCounters& odds) {
  HLS_NO_INLINE
  const int steps = queue_steps(i);
  const int from = beat_of(i.routing);
  RouteCursor at = {0, 0};
COUNT_ROUTES:
  for (int step = 0; step < steps; ++step) {
    // carried: counters in registers
    HLS_PIPELINE
    HLS_TRIPS(1, edge_moe::QUEUE_ENTRIES)
    const QueuedRoute first = queued_route(even[from + at.pair], at.slot, i.experts, true);
    const QueuedRoute second = queued_route(odd[from + at.pair], at.slot, i.experts, 2 * at.pair + 1 < i.rows);
    if (first.taken) {
      ++evens.count[first.expert];
    }
    if (second.taken) {
      ++odds.count[second.expert];
    }
    next_route(at, i.top_k);
  }
}

// A queue starts where the one before it ends.
inline void open_queues(QueueCounters& evens, QueueCounters& odds) {
  HLS_NO_INLINE
  uint16_t even_next = 0;
  uint16_t odd_next = 0;
OPEN_QUEUES:
  for (int e = 0; e < config::max_experts; ++e) {
    HLS_PIPELINE
    evens.start[e] = even_next;
    odds.start[e] = odd_next;
    even_next = static_cast<uint16_t>(even_next + evens.count[e]);
    odd_next = static_cast<uint16_t>(odd_next + odds.count[e]);
  }
}

// Put a token at the end of its expert's queue.
inline void put_route(const QueuedRoute& route, int token, QueueCounters& counters, QueueTokens tokens,
                      QueueScores scores) {
  HLS_INLINE
  if (route.taken) {
    const int place = counters.start[route.expert] + counters.filled[route.expert];
    tokens[place] = static_cast<uint16_t>(token);
    scores[place] = route.score;
    ++counters.filled[route.expert];
  }
}

inline void put_routes(const isa::Instruction& i, const ScratchHalf even, const ScratchHalf odd,
                       QueueCounters& evens, QueueCounters& odds, QueueTokens even_tokens,
                       QueueTokens odd_tokens, QueueScores even_scores, QueueScores odd_scores) {
  HLS_NO_INLINE
  const int steps = queue_steps(i);
  const int from = beat_of(i.routing);
  RouteCursor at = {0, 0};
PUT_ROUTES:
  for (int step = 0; step < steps; ++step) {
    // carried: counters in registers
    HLS_PIPELINE
    HLS_TRIPS(1, edge_moe::QUEUE_ENTRIES)
    const QueuedRoute first = queued_route(even[from + at.pair], at.slot, i.experts, true);
    const QueuedRoute second = queued_route(odd[from + at.pair], at.slot, i.experts, 2 * at.pair + 1 < i.rows);
    put_route(first, 2 * at.pair, evens, even_tokens, even_scores);
    put_route(second, 2 * at.pair + 1, odds, odd_tokens, odd_scores);
    next_route(at, i.top_k);
  }
}

inline void fill_queues(const isa::Instruction& i, const ScratchHalf even, const ScratchHalf odd,
                        QueueCounters& evens, QueueCounters& odds, QueueTokens even_tokens,
                        QueueTokens odd_tokens, QueueScores even_scores, QueueScores odd_scores,
                        uint8_t seen[config::max_tokens]) {
  HLS_NO_INLINE
CLEAR_QUEUES:
  for (int e = 0; e < config::max_experts; ++e) {
    HLS_UNROLL
    evens.count[e] = 0;
    odds.count[e] = 0;
    evens.filled[e] = 0;
    odds.filled[e] = 0;
  }
CLEAR_SEEN:
  for (int token = 0; token < i.rows; ++token) {
    HLS_PIPELINE
    HLS_TRIPS(1, edge_moe::config::max_tokens)
    seen[token] = 0;
  }
  count_routes(i, even, odd, evens, odds);
  open_queues(evens, odds);
  put_routes(i, even, odd, evens, odds, even_tokens, odd_tokens, even_scores, odd_scores);
  tap::add(i.rows + 2 * queue_steps(i) + config::max_experts, 4 * MOVE_DEPTH);
}

// Bit e: expert e has tokens.
inline uint64_t routed_mask(const QueueCounters& evens, const QueueCounters& odds) {
  HLS_INLINE
  uint64_t mask = 0;
ROUTED_MASK:
  for (int e = 0; e < config::max_experts; ++e) {
    HLS_UNROLL
    mask |= evens.count[e] + odds.count[e] > 0 ? static_cast<uint64_t>(1) << e : 0;
  }
  return mask;
}

// Number of pairs of two tokens.
inline int matched(const Crowd& crowd) {
  HLS_INLINE
  return crowd.even.count < crowd.odd.count ? crowd.even.count : crowd.odd.count;
}

inline int tokens_of(const Crowd& crowd) {
  HLS_INLINE
  return crowd.even.count + crowd.odd.count;
}

// An expert's n-th token: its entry in the queue of its parity, and its place among the hidden rows.
struct Seat {
  bool odd;
  int entry;
  int pair;
  int side;
};

inline Seat seat_of(const Crowd& crowd, int n) {
  HLS_INLINE
  const int both = matched(crowd);
  const bool alone = n >= 2 * both;
  const bool odd = alone ? crowd.odd.count > both : n % 2 != 0;
  const int place = alone ? n - both : n / 2;
  // an even number are in pairs, so that both sides are used in turn
  const Seat result = {odd, (odd ? crowd.odd.start : crowd.even.start) + place, n / 2, n % 2};
  return result;
}

inline QueueRange queue_range(const QueueCounters& counters, int expert) {
  HLS_INLINE
  const QueueRange result = {counters.start[expert], counters.count[expert]};
  return result;
}

}  // namespace edge_moe

#endif
