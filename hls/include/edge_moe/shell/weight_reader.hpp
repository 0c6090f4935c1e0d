// SPDX-License-Identifier: Apache-2.0
// The weight reader: blocks of the weight image through three ports into the weight FIFO, in the order of
// use. SPEC.md, section 9.
//
//   blocks ─► plan_bursts ─► bursts 0..2 ─► read_bursts ×3 ─► planes 0..2 ─► merge_planes ─► weights
//                   └──────────── lengths ────────────────────────────────────────┘
//
// It learns of a block as soon as the program has been read that far, and stops only for a full FIFO.
// If the routing is not yet known, it reads an expert's weights; if the expert then has no tokens, execute
// drops the planes. Waiting for the gate would stop reading ahead where it is needed most.
#ifndef EDGE_MOE_SHELL_WEIGHT_READER_HPP
#define EDGE_MOE_SHELL_WEIGHT_READER_HPP

#include "edge_moe/shell/accelerator.hpp"

namespace edge_moe {

// Blocks into bursts; burst n goes to port n mod 3.
inline void plan_bursts(BlockChannel& blocks, BlockChannel& bursts0, BlockChannel& bursts1,
                        BlockChannel& bursts2, LengthChannel& lengths) {
  HLS_NO_INLINE
  int port = 0;
  Block left = {0, 0};
  bool more = true;
PLAN_BURSTS:
  while (more) {
    // carried: an address, a count and the port; a burst is sent even if no other block is known
    HLS_PIPELINE_FLUSHING
    if (left.planes == 0) {
      left = blocks.read();
      more = left.planes != 0;
    }
    const uint32_t planes = left.planes < static_cast<uint32_t>(BURST_PLANES) ? left.planes : BURST_PLANES;
    const Block burst = {left.first, planes};
    if (port == 0 || !more) {
      bursts0.write(burst);
    }
    if (port == 1 || !more) {
      bursts1.write(burst);
    }
    if (port == 2 || !more) {
      bursts2.write(burst);
    }
    lengths.write(planes);
    left.first += planes;
    left.planes -= planes;
    port = port == WEIGHT_PORTS - 1 ? 0 : port + 1;
  }
}

// One port: up to BURSTS_AHEAD bursts are requested before the oldest one's data are taken. While a burst's
// data are outstanding, the port never waits for another burst to be planned.
inline void read_bursts(BurstPort memory, BlockChannel& bursts, PortChannel& planes) {
  HLS_NO_INLINE
  uint32_t lengths[BURSTS_AHEAD] = {};
  HLS_REGISTERS(lengths)
  int open = 0;
  int oldest = 0;
  bool more = true;
READ_BURSTS:
  while (more || open > 0) {
    const bool ask = more && open < BURSTS_AHEAD && (open == 0 || !bursts.empty());
    if (ask) {
      const Block burst = bursts.read();
      more = burst.planes != 0;
      if (more) {
        memory.read_request(static_cast<std::size_t>(burst.first) * TRANSFERS_PER_PLANE,
                            burst.planes * TRANSFERS_PER_PLANE);
        const int place = oldest + open;
        lengths[place < BURSTS_AHEAD ? place : place - BURSTS_AHEAD] = burst.planes;
        ++open;
      }
    } else {
      Plane plane = {};
      HLS_REGISTERS(plane.byte)
      const int transfers = static_cast<int>(lengths[oldest]) * TRANSFERS_PER_PLANE;
    READ_TRANSFERS:
      for (int i = 0; i < transfers; ++i) {
        // carried: the plane that is being filled, each byte written once
        HLS_PIPELINE
        HLS_TRIPS(8, edge_moe::BURST_TRANSFERS)
        const int place = i % TRANSFERS_PER_PLANE;
        const Transfer transfer = memory.read();
      TRANSFER_BYTES:
        for (int j = 0; j < PORT_BYTES; ++j) {
          HLS_UNROLL
          plane.byte[place * PORT_BYTES + j] = get_byte(transfer, j);
        }
        if (place == TRANSFERS_PER_PLANE - 1) {
          planes.write(plane);
        }
      }
      oldest = oldest == BURSTS_AHEAD - 1 ? 0 : oldest + 1;
      --open;
    }
  }
}

// The ports' planes in the order of the blocks.
inline void merge_planes(LengthChannel& lengths, PortChannel& planes0, PortChannel& planes1,
                         PortChannel& planes2, WeightChannel& weights) {
  HLS_NO_INLINE
  int port = 0;
  uint32_t left = 0;
  bool more = true;
MERGE_PLANES:
  while (more) {
    // carried: a count and the port; a plane is sent even if no other burst is planned
    HLS_PIPELINE_FLUSHING
    if (left == 0) {
      left = lengths.read();
      more = left != 0;
    }
    if (more) {
      weights.write(port == 0 ? planes0.read() : port == 1 ? planes1.read() : planes2.read());
      --left;
    }
    if (left == 0) {
      port = port == WEIGHT_PORTS - 1 ? 0 : port + 1;
    }
  }
}

}  // namespace edge_moe

#endif
