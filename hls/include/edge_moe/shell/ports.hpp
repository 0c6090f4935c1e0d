// SPDX-License-Identifier: Apache-2.0
// The external ports. A transfer is 16 bytes, the width of the Zynq's HP ports. In synthesis it is an
// ap_uint, which fixes its layout.
#ifndef EDGE_MOE_SHELL_PORTS_HPP
#define EDGE_MOE_SHELL_PORTS_HPP

#include <cstddef>

#include "edge_moe/types.hpp"
#include "edge_moe_isa.hpp"

#ifndef EDGE_MOE_VENDOR_PORTS
#include <array>
#include <stdexcept>
#endif

namespace edge_moe {

static_assert(PORT_BYTES == isa::output_alignment, "output rows are whole transfers");
static_assert(isa::record_bytes % PORT_BYTES == 0 && PLANE_BYTES % PORT_BYTES == 0, "whole transfers");

#ifdef EDGE_MOE_EXACT_WIDTHS

typedef ap_uint<8 * PORT_BYTES> Transfer;

inline uint8_t get_byte(const Transfer& transfer, int i) {
  HLS_INLINE
  return static_cast<uint8_t>(static_cast<uint32_t>(transfer.range(8 * i + 7, 8 * i)));
}

inline void set_byte(Transfer& transfer, int i, uint8_t value) {
  HLS_INLINE
  transfer.range(8 * i + 7, 8 * i) = value;
}

#else

struct Transfer {
  uint8_t byte[PORT_BYTES];
};

inline uint8_t get_byte(const Transfer& transfer, int i) { return transfer.byte[i]; }
inline void set_byte(Transfer& transfer, int i, uint8_t value) { transfer.byte[i] = value; }

#endif

static_assert(sizeof(Transfer) == PORT_BYTES || PORT_BYTES % 8 != 0, "buffers are arrays of transfers");

inline Transfer zero_transfer() {
  HLS_INLINE
  Transfer transfer = Transfer();
ZERO_TRANSFER:
  for (int i = 0; i < PORT_BYTES; ++i) {
    HLS_UNROLL
    set_byte(transfer, i, 0);
  }
  return transfer;
}

// One record of a program or an expert table, 16 little-endian words, from four transfers.
struct Record {
  uint32_t word[isa::record_words];
};

inline Record read_record(const Transfer* memory, uint32_t index) {
  HLS_INLINE  // two ports call it: a port cannot be chosen at run time
  constexpr int TRANSFERS = isa::record_bytes / PORT_BYTES;
  constexpr int WORDS = PORT_BYTES / 4;
  Record record = {};
  HLS_REGISTERS(record.word)
RECORD_TRANSFERS:
  for (int i = 0; i < TRANSFERS; ++i) {
    HLS_PIPELINE  // consecutive addresses: the tool makes one burst of them
    const Transfer transfer = memory[static_cast<std::size_t>(index) * TRANSFERS + static_cast<std::size_t>(i)];
  RECORD_WORDS:
    for (int j = 0; j < WORDS; ++j) {
      HLS_UNROLL
      uint32_t word = 0;
    RECORD_BYTES:
      for (int k = 0; k < 4; ++k) {
        HLS_UNROLL
        word |= static_cast<uint32_t>(get_byte(transfer, 4 * j + k)) << (8 * k);
      }
      record.word[i * WORDS + j] = word;
    }
  }
  return record;
}

// A port whose bursts are requested before their data are taken. In simulation it checks that no request
// exceeds the buffer and that no more is taken than was requested.
#ifdef EDGE_MOE_VENDOR_PORTS

typedef VendorBurstPort<Transfer> BurstPort;

#else

class BurstPort {
 public:
  BurstPort(const Transfer* memory, std::size_t transfers) : memory_(memory), transfers_(transfers), open_() {}

  void read_request(std::size_t offset, std::size_t count) {
    if (offset > transfers_ || count > transfers_ - offset) {
      throw std::runtime_error("a burst reaches beyond the weight image.");
    }
    if (requests_ == open_.size()) {
      throw std::runtime_error("more bursts are open than the port can hold.");
    }
    open_[(first_ + requests_) % open_.size()] = {offset, count};
    ++requests_;
  }

  const Transfer& read() {
    if (requests_ == 0) {
      throw std::runtime_error("a transfer was taken that no burst had asked for.");
    }
    Request& request = open_[first_];
    const Transfer& transfer = memory_[request.next++];
    if (--request.left == 0) {
      first_ = (first_ + 1) % open_.size();
      --requests_;
    }
    return transfer;
  }

 private:
  struct Request {
    std::size_t next;
    std::size_t left;
  };

  const Transfer* memory_;
  std::size_t transfers_;
  std::array<Request, 16> open_;
  std::size_t first_ = 0;
  std::size_t requests_ = 0;
};

#endif

}  // namespace edge_moe

#endif
