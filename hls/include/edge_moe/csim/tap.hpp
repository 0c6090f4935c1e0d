// SPDX-License-Identifier: Apache-2.0
// Debug tap: the contents of the scratch memory and of the accumulators after each instruction, and its
// cycles. Synthesis omits it; C simulation copies nothing unless a tap is set.
//
// Cycles are those of the loops as written: each loop nest states its iterations (II = 1), by a function
// whose value is also the loop's bound, and the depth of its pipeline.
#ifndef EDGE_MOE_CSIM_TAP_HPP
#define EDGE_MOE_CSIM_TAP_HPP

#include "edge_moe/shell/accumulators.hpp"
#include "edge_moe/shell/scratch.hpp"

#ifndef __SYNTHESIS__
#include <cstring>
#include <vector>
#endif

namespace edge_moe {
namespace tap {

#ifdef __SYNTHESIS__

inline void reset() { HLS_INLINE }
inline void add(int /*iterations*/, int /*depth*/) { HLS_INLINE }
inline uint32_t total() {
  HLS_INLINE
  return 0;
}

#else

// Filled by the executor while a tap is set. `seen` gets the instruction's index in the program, its
// cycles, the scratch memory byte by byte and the accumulators [row][32].
struct Tap {
  void (*seen)(void* user, uint32_t index, uint32_t cycles, const uint8_t* scratch, uint32_t scratch_bytes,
               const int32_t* sums, uint32_t sum_rows);
  void* user;
};

// State of the run in progress in this thread.
struct State {
  const Tap* tap = nullptr;
  uint32_t index = 0;
  uint32_t cycles = 0;      // of this instruction
  uint32_t all_cycles = 0;  // of all instructions so far
};

inline State& state() {
  static thread_local State current;
  return current;
}

inline void reset() {
  state().index = 0;
  state().cycles = 0;
  state().all_cycles = 0;
}

inline void add(int iterations, int depth) { state().cycles += static_cast<uint32_t>(iterations + depth); }

inline uint32_t total() { return state().all_cycles; }

#endif

// Called after each instruction.
inline void instruction_done(const ScratchHalf even, const ScratchHalf odd,
                             const Sums sums0, const Sums sums1) {
  HLS_INLINE
#ifndef __SYNTHESIS__
  State& now = state();
  now.all_cycles += now.cycles;
  if (now.tap != nullptr) {
    std::vector<uint8_t> scratch(static_cast<std::size_t>(SCRATCH_BEATS) * BEAT_BYTES);
    std::vector<int32_t> sums(static_cast<std::size_t>(ACCUMULATOR_PAIRS) * 2 * LANES);
    for (int beat = 0; beat < SCRATCH_BEATS; ++beat) {
      const Slice8 first = unpack(even[beat]);
      const Slice8 second = unpack(odd[beat]);
      uint8_t* to = scratch.data() + static_cast<std::size_t>(beat) * BEAT_BYTES;
      std::memcpy(to, first.lane, LANES);
      std::memcpy(to + LANES, second.lane, LANES);
    }
    for (int pair = 0; pair < ACCUMULATOR_PAIRS; ++pair) {
      int32_t* to = sums.data() + static_cast<std::size_t>(pair) * 2 * LANES;
      std::memcpy(to, unpack32(sums0[pair]).lane, sizeof(Slice32));
      std::memcpy(to + LANES, unpack32(sums1[pair]).lane, sizeof(Slice32));
    }
    now.tap->seen(now.tap->user, now.index, now.cycles, scratch.data(), static_cast<uint32_t>(scratch.size()),
                  sums.data(), static_cast<uint32_t>(sums.size() / LANES));
  }
  now.cycles = 0;
  ++now.index;
#else
  (void)even;
  (void)odd;
  (void)sums0;
  (void)sums1;
#endif
}

}  // namespace tap
}  // namespace edge_moe

#endif
