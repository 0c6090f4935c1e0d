// SPDX-License-Identifier: Apache-2.0
// The accelerator: its concurrent processes and their channels. SPEC.md, sections 7 to 12.
//
//   program, tables ─► fetch_program ─┬─ instructions, entries ──────────────► execute ─► finished ─► count_cycles
//                          ▲          └─ blocks ─► plan_bursts ─► bursts 0..2     ▲  │
//   weights 0..2 ──────────│───────────────────► read_bursts ×3 ─► merge_planes ──┤  ├─ results ─► write_output ─► output
//   image ─────────────────│───────────────────► read_image ──────────────────────┘  │
//                          └───────────────────────────── routed ◄───────────────────┘
//
// fetch_program proves every instruction before any other process sees it, so no other process can fail, and
// it tells each of them what it will receive: nothing is left in a channel when a program is stopped.
//
// `routed` is the only channel that leads back (UG1399, "Modeling Feedback in Dataflow Regions", permits it).
// It says which experts have tokens. fetch_program reads it without waiting and passes its decision on, so
// results do not depend on when it arrives.
#ifndef EDGE_MOE_SHELL_ACCELERATOR_HPP
#define EDGE_MOE_SHELL_ACCELERATOR_HPP

#include "edge_moe/shell/ports.hpp"
#include "edge_moe/shell/program.hpp"
#include "edge_moe/shell/region.hpp"

namespace edge_moe {

static_assert(config::memory_bytes_per_cycle == WEIGHT_PORTS * PORT_BYTES,
              "weights come through three ports");

// Consecutive planes of the weight image; planes = 0 marks the end.
struct Block {
  uint32_t first;
  uint32_t planes;
};

// A burst is 256 transfers. The bursts of a block go to the ports in turn; merge_planes puts their planes back
// into the order of the block.
static_assert(BURST_TRANSFERS <= 256, "an AXI4 burst has at most 256 transfers");
static_assert(MEMORY_LATENCY_LIMIT >= config::memory_latency,
              "the port would wait for each burst");

// The weight FIFO sets the reader's lead; no other queue may limit it earlier.
#ifdef __SYNTHESIS__
static_assert(HLS_TEXT_OF(EDGE_MOE_FIFO_MEMORY)[0] ==
                  (config::fifo_bytes >= FIFO_URAM_BYTES ? HLS_TEXT_OF(EDGE_MOE_SCRATCH_MEMORY)[0] : 'b'),
              "a weight FIFO below 512 KiB, or without UltraRAM, belongs in block RAM: "
              "-DEDGE_MOE_FIFO_MEMORY=bram");
#endif
static_assert(config::max_experts <= EXPERT_BITS, "a bit for each expert");

typedef Channel<isa::Instruction, INSTRUCTIONS_AHEAD> InstructionChannel;
typedef Channel<isa::ExpertEntry, ENTRIES_AHEAD> EntryChannel;
typedef Channel<Block, BLOCKS_AHEAD> BlockChannel;
typedef Channel<uint32_t, COUNTS_AHEAD> CountChannel;
typedef Channel<uint32_t, LENGTHS_AHEAD> LengthChannel;
typedef Channel<uint64_t, ROUTED_AHEAD> RoutedChannel;
typedef Channel<Plane, PORT_PLANES> PortChannel;
typedef Channel<Plane, FIFO_PLANES> WeightChannel;
typedef Channel<Transfer, TRANSFERS_AHEAD> TransferChannel;

}  // namespace edge_moe

// The top. Buffers are arrays of 16-byte transfers; the weight image is passed four times, so that three ports
// stream it and one reads expert tables. The program starts at record `program_offset` of its buffer and ends
// within `program_records`; if these are 0, only config_id and version are returned. `error` refers to the
// instruction `position`.
extern "C" void edge_moe_accelerator(
    const edge_moe::Transfer* program, const edge_moe::Transfer* tables, edge_moe::BurstPort weights0,
    edge_moe::BurstPort weights1, edge_moe::BurstPort weights2, const edge_moe::Transfer* image,
    edge_moe::Transfer* output, uint32_t program_offset, uint32_t program_records, uint32_t weight_beats,
    uint32_t image_bytes, uint32_t output_bytes, uint64_t* config_id, uint32_t* version, uint32_t* status,
    uint32_t* error, uint32_t* position, uint32_t* cycles);

#endif
