// SPDX-License-Identifier: Apache-2.0
// The process that reads the program and the expert tables, proves them, and tells the others what to
// expect. SPEC.md, sections 8 to 10.
//
// It runs ahead of execute as far as its channels allow. A block is announced before its instruction, so
// that everything that execute waits for has been requested.
#ifndef EDGE_MOE_SHELL_PROGRAM_FETCH_HPP
#define EDGE_MOE_SHELL_PROGRAM_FETCH_HPP

#include "edge_moe/shell/accelerator.hpp"

namespace edge_moe {

// Whether instructions of these opcodes have come.
struct Progress {
  bool patches;
  bool store;
};

// PATCHES and STORE come once; END only after both.
inline bool order_holds(isa::Opcode opcode, Progress& progress) {
  HLS_INLINE
  const bool patches = opcode == isa::Opcode::PATCHES;
  const bool store = opcode == isa::Opcode::STORE;
  const bool again = (patches && progress.patches) || (store && progress.store);
  progress.patches = progress.patches || patches;
  progress.store = progress.store || store;
  return !again && (opcode != isa::Opcode::END || (progress.patches && progress.store));
}

inline void announce_block(BlockChannel& blocks, uint32_t offset, uint32_t beats) {
  HLS_INLINE
  const Block block = {offset / isa::beats_per_plane, beats / isa::beats_per_plane};
  blocks.write(block);
}

// Masks of experts from execute, in the order of EXPERTS instructions.
struct Routing {
  int owed;       // masks of earlier instructions that have not arrived yet
  bool known;     // this instruction's mask has arrived
  uint64_t mask;  // bit e: expert e has tokens
};

// Take the masks that have arrived.
inline void look_at_routing(RoutedChannel& routed, Routing& routing) {
  HLS_INLINE
LOOK:
  while (!routing.known && !routed.empty()) {
    HLS_TRIPS(0, 2)
    const uint64_t mask = routed.read();
    routing.known = routing.owed == 0;
    routing.mask = mask;
    routing.owed -= routing.known ? 0 : 1;
  }
}

// The table that an EXPERTS instruction points to. False at the first invalid entry; even then all of the
// instruction's entries are passed on, so that execute gets what it will read. An entry without weights is
// skipped: its expert is known to have no tokens, or the entry failed its proof.
inline bool fetch_entries(const Transfer* tables, const isa::Instruction& i, const Buffers& buffers,
                          RoutedChannel& routed, Routing& routing, EntryChannel& entries,
                          BlockChannel& blocks) {
  bool good = true;
  routing.known = false;
FETCH_ENTRIES:
  for (int e = 0; e < i.experts; ++e) {
    HLS_TRIPS(1, edge_moe::config::max_experts)
    isa::ExpertEntry entry = isa::ExpertEntry();
    if (good) {
      const Record record = read_record(tables, i.weight_offset + static_cast<uint32_t>(e));
      good = entry_holds(record, i, buffers);
      look_at_routing(routed, routing);
      if (good && (!routing.known || ((routing.mask >> e) & 1) != 0)) {
        entry = isa::decode_expert_entry(record.word);
        announce_block(blocks, entry.weight_offset, entry.weight_beats);
      }
    }
    entries.write(entry);
  }
  routing.owed += routing.known ? 0 : 1;
  return good;
}

// Tell the other processes what an instruction takes from them, then pass the instruction to execute.
inline void announce(const isa::Instruction& i, InstructionChannel& instructions, BlockChannel& blocks,
                     CountChannel& image_transfers, CountChannel& output_transfers) {
  HLS_INLINE
  const isa::Opcode opcode = static_cast<isa::Opcode>(i.opcode);
  if (opcode == isa::Opcode::PATCHES) {
    image_transfers.write((image_bytes_of(i) + PORT_BYTES - 1) / PORT_BYTES);
  }
  if (opcode == isa::Opcode::STORE) {
    output_transfers.write(store_transfers(i));
  }
  if (i.weight_beats > 0 && opcode != isa::Opcode::EXPERTS) {
    announce_block(blocks, i.weight_offset, i.weight_beats);
  }
  instructions.write(i);
}

inline void fetch_program(const Transfer* program, const Transfer* tables, uint32_t program_offset,
                          uint32_t program_records, uint32_t weight_beats, uint32_t image_bytes,
                          uint32_t output_bytes, InstructionChannel& instructions, EntryChannel& entries,
                          BlockChannel& blocks, RoutedChannel& routed, CountChannel& image_transfers,
                          CountChannel& output_transfers, uint64_t* config_id, uint32_t* version,
                          uint32_t* status, uint32_t* error, uint32_t* position) {
  HLS_NO_INLINE
  const Buffers buffers = {weight_beats, image_bytes, output_bytes};
  const isa::Instruction end = {};  // opcode 0: execute stops
  Progress progress = {false, false};
  Routing routing = {0, false, 0};
  Error found = Error::NONE;
  uint32_t index = 0;
  bool running = program_records > 0;
FETCH_PROGRAM:
  while (running) {
    HLS_TRIPS(1, edge_moe::config::max_instructions)
    isa::Instruction i = end;
    routing.known = routing.owed == 0;
    look_at_routing(routed, routing);
    if (index >= program_records || index >= static_cast<uint32_t>(config::max_instructions)) {
      found = Error::UNFINISHED;
    } else {
      const Record record = read_record(program, program_offset + index);
      found = check_words(record);
      i = isa::decode_instruction(record.word);
    }
    const isa::Opcode opcode = static_cast<isa::Opcode>(i.opcode);
    if (found == Error::NONE) {
      found = check_instruction(i, buffers);
    }
    if (found == Error::NONE && !order_holds(opcode, progress)) {
      found = Error::ORDER;
    }
    running = found == Error::NONE && opcode != isa::Opcode::END;
    if (running) {
      announce(i, instructions, blocks, image_transfers, output_transfers);
      const bool experts = opcode == isa::Opcode::EXPERTS;
      if (experts && !fetch_entries(tables, i, buffers, routed, routing, entries, blocks)) {
        found = Error::ENTRY;
        running = false;
      }
    }
    index += running ? 1 : 0;
  }
  instructions.write(end);
  const Block no_block = {0, 0};
  blocks.write(no_block);
LAST_ROUTING:
  while (routing.owed > 0) {
    HLS_TRIPS(0, edge_moe::ROUTED_AHEAD)
    (void)routed.read();
    --routing.owed;
  }
  if (!progress.patches) {
    image_transfers.write(0);
  }
  if (!progress.store) {
    output_transfers.write(0);
  }
  *config_id = config::hash;
  *version = isa::version;
  *status = static_cast<uint32_t>(found == Error::NONE ? Status::DONE : Status::STOPPED);
  *error = static_cast<uint32_t>(found);
  *position = index;
}

}  // namespace edge_moe

#endif
