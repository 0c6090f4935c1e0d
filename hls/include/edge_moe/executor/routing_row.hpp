// SPDX-License-Identifier: Apache-2.0
// A routing row, which GATE writes and EXPERTS reads. SPEC.md, section 9.
#ifndef EDGE_MOE_EXECUTOR_ROUTING_ROW_HPP
#define EDGE_MOE_EXECUTOR_ROUTING_ROW_HPP

#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// One routing row: up to 8 pairs of expert and score.
struct RoutingRow {
  uint16_t expert[isa::max_top_k];
  int16_t score[isa::max_top_k];
};

inline RoutingRow routing_row(const Half& half) {
  HLS_INLINE
  const Slice8 bytes = unpack(half);
  RoutingRow row = {};
  HLS_REGISTERS(row.expert)
  HLS_REGISTERS(row.score)
ROUTING_PAIRS:
  for (int i = 0; i < isa::max_top_k; ++i) {
    HLS_UNROLL
    row.expert[i] = static_cast<uint16_t>(static_cast<uint8_t>(bytes.lane[4 * i]) |
                                          static_cast<uint8_t>(bytes.lane[4 * i + 1]) << 8);
    row.score[i] = static_cast<int16_t>(static_cast<uint8_t>(bytes.lane[4 * i + 2]) |
                                        static_cast<uint8_t>(bytes.lane[4 * i + 3]) << 8);
  }
  return row;
}

inline Half routing_half(const RoutingRow& row) {
  HLS_INLINE
  Slice8 bytes;
  HLS_LANES(bytes)
ROUTING_BYTES:
  for (int i = 0; i < isa::max_top_k; ++i) {
    HLS_UNROLL
    bytes.lane[4 * i] = static_cast<int8_t>(row.expert[i] & 0xFF);
    bytes.lane[4 * i + 1] = static_cast<int8_t>(row.expert[i] >> 8);
    bytes.lane[4 * i + 2] = static_cast<int8_t>(row.score[i] & 0xFF);
    bytes.lane[4 * i + 3] = static_cast<int8_t>(static_cast<uint16_t>(row.score[i]) >> 8);
  }
  return pack(bytes);
}

}  // namespace edge_moe

#endif
