// SPDX-License-Identifier: Apache-2.0
// STORE: int16 rows to the output port. SPEC.md, section 8.
#ifndef EDGE_MOE_EXECUTOR_STORE_HPP
#define EDGE_MOE_EXECUTOR_STORE_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/shell/accelerator.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// STORE: int16 rows to the output, each row padded to whole transfers with zeros.
inline int store_steps(const isa::Instruction& i) {
  HLS_INLINE
  return static_cast<int>(store_transfers(i));
}

inline void store_rows(const isa::Instruction& i, const ScratchHalf even, const ScratchHalf odd,
                       TransferChannel& results) {
  HLS_NO_INLINE
  constexpr int TRANSFERS = BEAT_BYTES / PORT_BYTES;  // of a beat
  constexpr int CHANNELS = PORT_BYTES / 2;
  const int row_tiles = tiles(i.in_channels);
  const int row_transfers = (i.in_channels + CHANNELS - 1) / CHANNELS;
  const int steps = store_steps(i);
  int row_beat = beat_of(i.src);
  int transfer = 0;
STORE_STEPS:
  for (int step = 0; step < steps; ++step) {
    // carried: an address and a count
    HLS_PIPELINE
    HLS_TRIPS(1, 4 * edge_moe::SCRATCH_BEATS)
    const int beat = row_beat + transfer / TRANSFERS;
    const Slice16 x = join_halves(even[beat], odd[beat]);
    Transfer out = zero_transfer();
  STORE_CHANNELS:
    for (int j = 0; j < CHANNELS; ++j) {
      HLS_UNROLL
      const bool real = transfer * CHANNELS + j < i.in_channels;
      const int16_t value = real ? x.lane[(transfer % TRANSFERS) * CHANNELS + j] : static_cast<int16_t>(0);
      set_byte(out, 2 * j, static_cast<uint8_t>(value & 0xFF));
      set_byte(out, 2 * j + 1, static_cast<uint8_t>(static_cast<uint16_t>(value) >> 8));
    }
    results.write(out);
    const bool done = transfer == row_transfers - 1;
    transfer = done ? 0 : transfer + 1;
    row_beat += done ? row_tiles : 0;
  }
  tap::add(steps, MOVE_DEPTH);
}

}  // namespace edge_moe

#endif
