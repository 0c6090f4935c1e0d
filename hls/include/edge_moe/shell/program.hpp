// SPDX-License-Identifier: Apache-2.0
// Proof that an instruction can run: every field, address and length before anything uses it. SPEC.md,
// sections 8 to 10. The rules of each opcode are generated: edge_moe_opcodes.hpp.
#ifndef EDGE_MOE_SHELL_PROGRAM_HPP
#define EDGE_MOE_SHELL_PROGRAM_HPP

#include "edge_moe/shell/accumulators.hpp"
#include "edge_moe/shell/ports.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// Sizes of the host's buffers.
struct Buffers {
  uint32_t weight_beats;  // of 64 bytes
  uint32_t image_bytes;
  uint32_t output_bytes;
};

inline Error check_regions(const isa::Regions& r) {
  HLS_INLINE
  Error error = Error::NONE;
CHECK_REGIONS:
  for (int a = 0; a < isa::max_regions; ++a) {
    HLS_UNROLL
    const isa::Region& one = r.region[a];
    const uint32_t start = one.address / BEAT_BYTES;
    if (one.address % isa::alignment != 0 || one.beats > static_cast<uint32_t>(SCRATCH_BEATS) ||
        start > SCRATCH_BEATS - one.beats) {
      error = Error::SCRATCH;
    }
  }
CHECK_OVERLAPS:
  for (int a = 1; a < isa::max_regions; ++a) {
    HLS_UNROLL
  CHECK_OTHERS:
    for (int b = 0; b < a; ++b) {
      HLS_UNROLL
      const isa::Region& one = r.region[a];
      const isa::Region& other = r.region[b];
      const uint32_t start = one.address / BEAT_BYTES;
      const uint32_t start_other = other.address / BEAT_BYTES;
      const bool apart = start + one.beats <= start_other || start_other + other.beats <= start;
      if (error == Error::NONE && one.beats > 0 && other.beats > 0 && !apart) {
        error = Error::OVERLAP;
      }
    }
  }
  return error;
}

// Whether a block of `planes` is within the weight image and has the stated length.
inline bool block_holds(uint32_t offset, uint32_t beats, uint32_t planes, const Buffers& buffers) {
  HLS_INLINE
  return beats == isa::beats_per_plane * planes && offset % isa::beats_per_plane == 0 && beats <= buffers.weight_beats &&
         offset <= buffers.weight_beats - beats;
}

// Transfers that STORE writes: each row is padded to whole ones.
inline uint32_t store_transfers(const isa::Instruction& i) {
  HLS_INLINE
  const uint32_t row = (2u * i.in_channels + PORT_BYTES - 1) / PORT_BYTES;
  return i.rows * row;
}

inline uint32_t image_bytes_of(const isa::Instruction& i) {
  HLS_INLINE
  return 3u * i.height * i.width;
}

// Whether checksum and opcode are valid and no bit without a meaning is set.
inline Error check_words(const Record& record) {
  HLS_INLINE
  if (isa::checksum(record.word) != record.word[isa::checksum_word]) {
    return Error::CHECKSUM;
  }
  const uint32_t opcode = record.word[0] & 0xFFu;
  if (opcode == 0 || opcode >= static_cast<uint32_t>(isa::opcode_count)) {
    return Error::UNKNOWN;
  }
  const isa::Instruction i = isa::decode_instruction(record.word);
  const bool gelu = static_cast<isa::Opcode>(opcode) == isa::Opcode::LINEAR &&
                    static_cast<isa::Epilogue>(i.epilogue) == isa::Epilogue::GELU;
  const bool used = gelu ? isa::uses_only(record.word, isa::linear_gelu_bits)
                         : isa::uses_only(record.word, isa::instruction_bits[opcode]);
  return used && i.epilogue < isa::epilogue_count ? Error::NONE : Error::UNKNOWN;
}

inline Error check_instruction(const isa::Instruction& i, const Buffers& buffers) {
  HLS_INLINE
  if (!isa::ranges_hold(i)) {
    return Error::RANGE;
  }
  if (!isa::shape_holds(i)) {
    return Error::SHAPE;
  }
  const Error error = check_regions(isa::regions_of(i));
  if (error != Error::NONE) {
    return error;
  }
  if (!block_holds(i.weight_offset, i.weight_beats, isa::weight_planes(i), buffers)) {
    return Error::WEIGHTS;
  }
  const isa::Opcode opcode = static_cast<isa::Opcode>(i.opcode);
  if (opcode == isa::Opcode::PATCHES && image_bytes_of(i) != buffers.image_bytes) {
    return Error::IMAGE;
  }
  if (opcode == isa::Opcode::STORE && store_transfers(i) > buffers.output_bytes / PORT_BYTES) {
    return Error::OUTPUT;
  }
  return Error::NONE;
}

// Whether an expert's entry fits its instruction.
inline bool entry_holds(const Record& record, const isa::Instruction& i, const Buffers& buffers) {
  HLS_INLINE
  if (isa::checksum(record.word) != record.word[isa::checksum_word] ||
      !isa::uses_only(record.word, isa::expert_entry_bits)) {
    return false;
  }
  const isa::ExpertEntry entry = isa::decode_expert_entry(record.word);
  return isa::ranges_hold(entry) &&
         block_holds(entry.weight_offset, entry.weight_beats, isa::expert_planes(i, entry), buffers);
}

}  // namespace edge_moe

#endif
