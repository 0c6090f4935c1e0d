// SPDX-License-Identifier: Apache-2.0
// Processes at the image's and the output's ports, and the cycle counter.
#ifndef EDGE_MOE_SHELL_MEMORY_MOVERS_HPP
#define EDGE_MOE_SHELL_MEMORY_MOVERS_HPP

#include "edge_moe/shell/accelerator.hpp"

namespace edge_moe {

inline void read_image(const Transfer* image, CountChannel& image_transfers, TransferChannel& pixels) {
  HLS_NO_INLINE
  const uint32_t transfers = image_transfers.read();
READ_IMAGE:
  for (uint32_t n = 0; n < transfers; ++n) {
    HLS_PIPELINE  // consecutive addresses: bursts
    HLS_TRIPS(1, edge_moe::IMAGE_TRANSFERS)
    pixels.write(image[n]);
  }
}

inline void write_output(CountChannel& output_transfers, TransferChannel& results, Transfer* output) {
  HLS_NO_INLINE
  const uint32_t transfers = output_transfers.read();
WRITE_OUTPUT:
  for (uint32_t n = 0; n < transfers; ++n) {
    HLS_PIPELINE  // consecutive addresses: bursts
    HLS_TRIPS(1, edge_moe::OUTPUT_TRANSFERS)
    output[n] = results.read();
  }
}

// Cycles until execute is done: this process checks once per cycle. g++ has no clock; there these are the
// cycles of the loops as written, without waiting for memory.
inline void count_cycles(CountChannel& finished, uint32_t* cycles) {
  HLS_NO_INLINE
  uint32_t count = 0;
#ifdef __SYNTHESIS__
COUNT_CYCLES:
  while (finished.empty()) {
    HLS_PIPELINE
    ++count;
  }
#endif
  count += finished.read();
  *cycles = count;
}

}  // namespace edge_moe

#endif
