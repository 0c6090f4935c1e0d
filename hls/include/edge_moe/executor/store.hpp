// SPDX-License-Identifier: Apache-2.0
// STORE: int16 rows to the output port. SPEC.md, section 8.
#ifndef EDGE_MOE_EXECUTOR_STORE_HPP
#define EDGE_MOE_EXECUTOR_STORE_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/shell/accelerator.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// STORE: int16 rows to the output, each row padded to whole beats of 16 bytes with zeros.
inline int store_steps(const isa::Instruction& i) {
  HLS_INLINE
  return static_cast<int>(store_beats(i));
}

inline void store_rows(const isa::Instruction& i, const ScratchHalf even, const ScratchHalf odd,
                       BeatChannel& results) {
  HLS_NO_INLINE
  constexpr int BEATS = SCRATCH_WORD_BYTES / PORT_BYTES;  // of a word
  constexpr int CHANNELS = PORT_BYTES / 2;
  const int row_tiles = tiles(i.in_channels);
  const int row_beats = (i.in_channels + CHANNELS - 1) / CHANNELS;
  const int steps = store_steps(i);
  int row_word = word_of(i.src);
  int beat = 0;
STORE_STEPS:
  for (int step = 0; step < steps; ++step) {
    // carried: an address and a count
    HLS_PIPELINE
    HLS_TRIPS(1, 4 * edge_moe::SCRATCH_WORDS)
    const int word = row_word + beat / BEATS;
    const Beat16 x = join_halves(even[word], odd[word]);
    PortBeat out = zero_beat();
  STORE_CHANNELS:
    for (int j = 0; j < CHANNELS; ++j) {
      HLS_UNROLL
      const bool real = beat * CHANNELS + j < i.in_channels;
      const int16_t value = real ? x.lane[(beat % BEATS) * CHANNELS + j] : static_cast<int16_t>(0);
      set_byte(out, 2 * j, static_cast<uint8_t>(value & 0xFF));
      set_byte(out, 2 * j + 1, static_cast<uint8_t>(static_cast<uint16_t>(value) >> 8));
    }
    results.write(out);
    const bool done = beat == row_beats - 1;
    beat = done ? 0 : beat + 1;
    row_word += done ? row_tiles : 0;
  }
  tap::add(steps, tap::MOVE_DEPTH);
}

}  // namespace edge_moe

#endif
