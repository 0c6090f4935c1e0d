// SPDX-License-Identifier: Apache-2.0
// Proof that an instruction can run: every field, address and length before anything uses it. SPEC.md,
// sections 8 to 10. host/edge_moe_host/contract/program.py has the same rules in the same order, and the ranges of single
// fields, from which those of edge_moe_isa.hpp are made.
//
// Sizes in the scratch memory are beats of 64 bytes; in weights, planes of 128 bytes, the weight FIFO's width.
#ifndef EDGE_MOE_SHELL_PROGRAM_HPP
#define EDGE_MOE_SHELL_PROGRAM_HPP

#include "edge_moe/shell/accumulators.hpp"
#include "edge_moe/shell/ports.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// Sizes of the buffers that the host has given.
struct Buffers {
  uint32_t weight_beats;  // of 64 bytes
  uint32_t image_bytes;
  uint32_t output_bytes;
};

constexpr int BEATS_PER_PLANE = isa::plane_bytes / isa::beat_bytes;

// Planes of the parameters of so many tiles: one of 32-bit values for each, one of 16-bit values for two.
inline uint32_t parameter_planes(uint32_t tile_count) {
  HLS_INLINE
  return tile_count + (tile_count + 1) / 2;
}

// Planes of a linear's block.
inline uint32_t linear_planes(uint32_t in_tiles, uint32_t out_tiles, uint32_t bits) {
  HLS_INLINE
  return parameter_planes(out_tiles) + in_tiles * out_tiles * bits;
}

inline int gate_tiles(int experts) {
  HLS_INLINE
  return (experts + isa::gate_experts - 1) / isa::gate_experts;
}

// Planes of the block that an instruction points to; 0 where it has none.
inline uint32_t weight_planes(const isa::Instruction& i) {
  HLS_INLINE
  const uint32_t in = static_cast<uint32_t>(tiles(i.in_channels));
  const uint32_t out = static_cast<uint32_t>(tiles(i.out_channels));
  switch (static_cast<isa::Opcode>(i.opcode)) {
    case isa::Opcode::LOAD:
      return (i.rows * out + 1) / 2;
    case isa::Opcode::LINEAR:
      return linear_planes(in, out, i.weight_bits);
    case isa::Opcode::LAYERNORM:
      return parameter_planes(in);
    case isa::Opcode::ATTENTION:
      return parameter_planes(out);
    case isa::Opcode::GATE:
      return linear_planes(in, static_cast<uint32_t>(gate_tiles(i.experts)), 8);
    case isa::Opcode::EXPERTS:
      return (i.experts + 1u) / 2;
    case isa::Opcode::CONV3X3:
      return linear_planes(9 * in, out, i.weight_bits);
    default:
      return 0;
  }
}

// Planes of one expert's block: its first linear, then its second.
inline uint32_t expert_planes(const isa::Instruction& i, const isa::ExpertEntry& entry) {
  HLS_INLINE
  const uint32_t width = static_cast<uint32_t>(tiles(i.in_channels));
  const uint32_t hidden = static_cast<uint32_t>(tiles(i.hidden_channels));
  return linear_planes(width, hidden, entry.bits1) + linear_planes(hidden, width, entry.bits2);
}

// Relations between fields, once each is in its range.
inline bool shape_holds(const isa::Instruction& i) {
  HLS_INLINE
  const uint64_t pixels = static_cast<uint64_t>(i.height) * i.width;
  switch (static_cast<isa::Opcode>(i.opcode)) {
    case isa::Opcode::PATCHES:
      return i.height % i.patch == 0 && i.width % i.patch == 0 &&
             static_cast<uint64_t>(i.rows) * (i.patch * i.patch) == pixels &&
             i.out_channels == 3 * i.patch * i.patch;
    case isa::Opcode::ATTENTION: {
      const uint32_t head = i.out_channels / i.heads;
      return head * i.heads == i.out_channels && head > 0 && head % isa::tile == 0 &&
             head <= static_cast<uint32_t>(config::max_head_dim) && i.in_channels == 3 * i.out_channels &&
             i.row_start + i.rows <= i.keys &&
             i.rows * (head / isa::tile) <= static_cast<uint32_t>(config::accumulator_rows);
    }
    case isa::Opcode::GATE:
      return i.top_k <= i.experts && pairs(i.rows) * gate_tiles(i.experts) <= ACCUMULATOR_PAIRS;
    case isa::Opcode::EXPERTS:
      return i.top_k <= i.experts && i.in_channels == i.out_channels;
    case isa::Opcode::CONV3X3:
      return pixels <= static_cast<uint64_t>(config::max_map_rows) &&
             static_cast<uint32_t>(i.row_start) + i.rows <= pixels && i.row_start % i.width == 0 &&
             i.rows % i.width == 0;
    case isa::Opcode::UPSAMPLE2X:
      return i.rows == 4 * pixels;
    default:
      return true;
  }
}

// Beats of scratch memory that an instruction reads, writes or works in; `beats` 0 where there are none.
struct Region {
  uint32_t address;  // bytes
  uint32_t beats;
};

constexpr int MAX_REGIONS = 4;

struct Regions {
  Region region[MAX_REGIONS];
};

inline Region int8_region(uint32_t address, int rows, int channels) {
  HLS_INLINE
  const Region result = {address, static_cast<uint32_t>(pairs(rows) * tiles(channels))};
  return result;
}

inline Region int16_region(uint32_t address, int rows, int channels) {
  HLS_INLINE
  const Region result = {address, static_cast<uint32_t>(rows * tiles(channels))};
  return result;
}

// All regions of an instruction whose ranges and shape hold.
inline Regions regions_of(const isa::Instruction& i) {
  HLS_INLINE
  const bool wide = static_cast<isa::Epilogue>(i.epilogue) == isa::Epilogue::RESIDUAL ||
                    static_cast<isa::Epilogue>(i.epilogue) == isa::Epilogue::INT16;
  const int pixels = i.height * i.width;
  Regions r = {};
  switch (static_cast<isa::Opcode>(i.opcode)) {
    case isa::Opcode::END:
      break;
    case isa::Opcode::LOAD:
      r.region[0] = int16_region(i.dst, i.rows, i.out_channels);
      break;
    case isa::Opcode::PATCHES:
      r.region[0] = int8_region(i.dst, i.rows, i.out_channels);
      break;
    case isa::Opcode::LINEAR:
      r.region[0] = int8_region(i.src, i.rows, i.in_channels);
      r.region[1] = int8_region(i.dst, i.rows, i.out_channels);
      if (wide) {
        r.region[1] = int16_region(i.dst, i.rows, i.out_channels);
      }
      break;
    case isa::Opcode::LAYERNORM:
      r.region[0] = int16_region(i.src, i.rows, i.in_channels);
      r.region[1] = int8_region(i.dst, i.rows, i.in_channels);
      break;
    case isa::Opcode::ATTENTION:
      r.region[0] = int8_region(i.src, i.keys, i.in_channels);
      r.region[1] = int8_region(i.dst, i.rows, i.out_channels);
      break;
    case isa::Opcode::GATE:
      r.region[0] = int8_region(i.src, i.rows, i.in_channels);
      r.region[1] = int8_region(i.dst, i.rows, LANES);
      break;
    case isa::Opcode::EXPERTS:
      r.region[0] = int8_region(i.src, i.rows, i.in_channels);
      r.region[1] = int8_region(i.routing, i.rows, LANES);
      r.region[2] = int16_region(i.dst, i.rows, i.out_channels);
      r.region[3] = int8_region(i.hidden, i.rows, i.hidden_channels);
      break;
    case isa::Opcode::CONV3X3:
      r.region[0] = int8_region(i.src, pixels, i.in_channels);
      r.region[1] = int8_region(i.dst, i.rows, i.out_channels);
      break;
    case isa::Opcode::UPSAMPLE2X:
      r.region[0] = int8_region(i.src, pixels, i.in_channels);
      r.region[1] = int8_region(i.dst, i.rows, i.in_channels);
      break;
    case isa::Opcode::STORE:
      r.region[0] = int16_region(i.src, i.rows, i.in_channels);
      break;
  }
  return r;
}

inline Error check_regions(const Regions& r) {
  HLS_INLINE
  Error error = Error::NONE;
CHECK_REGIONS:
  for (int a = 0; a < MAX_REGIONS; ++a) {
    HLS_UNROLL
    const Region& one = r.region[a];
    const uint32_t start = one.address / BEAT_BYTES;
    if (one.address % isa::alignment != 0 || one.beats > static_cast<uint32_t>(SCRATCH_BEATS) ||
        start > SCRATCH_BEATS - one.beats) {
      error = Error::SCRATCH;
    }
  }
CHECK_OVERLAPS:
  for (int a = 1; a < MAX_REGIONS; ++a) {
    HLS_UNROLL
  CHECK_OTHERS:
    for (int b = 0; b < a; ++b) {
      HLS_UNROLL
      const Region& one = r.region[a];
      const Region& other = r.region[b];
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

// A block of `planes` is within the weight image and has the length that is stated.
inline bool block_holds(uint32_t offset, uint32_t beats, uint32_t planes, const Buffers& buffers) {
  HLS_INLINE
  return beats == BEATS_PER_PLANE * planes && offset % BEATS_PER_PLANE == 0 && beats <= buffers.weight_beats &&
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

// Checksum, opcode, and no bit that means nothing.
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
  if (!shape_holds(i)) {
    return Error::SHAPE;
  }
  const Error error = check_regions(regions_of(i));
  if (error != Error::NONE) {
    return error;
  }
  if (!block_holds(i.weight_offset, i.weight_beats, weight_planes(i), buffers)) {
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

// An expert's entry fits its instruction.
inline bool entry_holds(const Record& record, const isa::Instruction& i, const Buffers& buffers) {
  HLS_INLINE
  if (isa::checksum(record.word) != record.word[isa::checksum_word] ||
      !isa::uses_only(record.word, isa::expert_entry_bits)) {
    return false;
  }
  const isa::ExpertEntry entry = isa::decode_expert_entry(record.word);
  return isa::ranges_hold(entry) &&
         block_holds(entry.weight_offset, entry.weight_beats, expert_planes(i, entry), buffers);
}

}  // namespace edge_moe

#endif
