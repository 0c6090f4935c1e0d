// SPDX-License-Identifier: Apache-2.0
// The process that executes instructions, one after the other. All have passed their proof. SPEC.md, section
// 8.
#ifndef EDGE_MOE_EXECUTOR_EXECUTE_HPP
#define EDGE_MOE_EXECUTOR_EXECUTE_HPP

#include "edge_moe/executor/layernorm.hpp"
#include "edge_moe/executor/load.hpp"
#include "edge_moe/executor/patches.hpp"
#include "edge_moe/executor/run_jobs.hpp"
#include "edge_moe/executor/store.hpp"
#include "edge_moe/executor/upsample2x.hpp"

namespace edge_moe {

#ifndef __SYNTHESIS__
// Initial contents of a memory: no result may depend on them.
template <typename T>
inline void spoil(T* memory, int count) {
  std::memset(static_cast<void*>(memory), 0xA5, sizeof(T) * static_cast<std::size_t>(count));
}
#endif

inline void execute(InstructionChannel& instructions, EntryChannel& entries, WeightChannel& weights,
                    TransferChannel& pixels, RoutedChannel& routed, TransferChannel& results,
                    CountChannel& finished) {
  HLS_NO_INLINE
  ScratchHalf even;
  HLS_SCRATCH(even)
  ScratchHalf odd;
  HLS_SCRATCH(odd)
  Sums sums0;
  HLS_BRAM(sums0)
  Sums sums1;
  HLS_BRAM(sums1)
  Finished finished0;
  HLS_BRAM(finished0)
  Finished finished1;
  HLS_BRAM(finished1)
  WideParameters wide;
  HLS_LUTRAM(wide)
  NarrowParameters narrow;
  HLS_LUTRAM(narrow)
#ifndef __SYNTHESIS__
  spoil(even, SCRATCH_BEATS);
  spoil(odd, SCRATCH_BEATS);
  spoil(sums0, ACCUMULATOR_PAIRS);
  spoil(sums1, ACCUMULATOR_PAIRS);
  spoil(finished0, ACCUMULATOR_PAIRS);
  spoil(finished1, ACCUMULATOR_PAIRS);
#endif
  tap::reset();
  bool running = true;
EXECUTE:
  while (running) {
    HLS_TRIPS(1, edge_moe::config::max_instructions)
    const isa::Instruction i = instructions.read();
    const isa::Opcode opcode = static_cast<isa::Opcode>(i.opcode);
    if (opcode == isa::Opcode::LAYERNORM || opcode == isa::Opcode::ATTENTION) {
      load_parameters(tiles(opcode == isa::Opcode::LAYERNORM ? i.in_channels : i.out_channels), weights, wide,
                      narrow);
    }
    switch (opcode) {
      case isa::Opcode::LOAD:
        load_rows(i, weights, even, odd);
        break;
      case isa::Opcode::PATCHES:
        patch_rows(i, pixels, even, odd);
        break;
      case isa::Opcode::LAYERNORM:
        layernorm_rows(i, even, odd, wide, narrow);
        break;
      case isa::Opcode::LINEAR:
      case isa::Opcode::ATTENTION:
      case isa::Opcode::GATE:
      case isa::Opcode::EXPERTS:
      case isa::Opcode::CONV3X3:
        run_jobs(i, weights, entries, routed, wide, narrow, even, odd, sums0, sums1, finished0, finished1);
        break;
      case isa::Opcode::UPSAMPLE2X:
        upsample_rows(i, even, odd);
        break;
      case isa::Opcode::STORE:
        store_rows(i, even, odd, results);
        break;
      default:  // the end
        running = false;
        break;
    }
    if (running) {
      tap::add(0, SETUP_CYCLES);
      tap::instruction_done(even, odd, sums0, sums1);
    }
  }
  finished.write(tap::total());
}

}  // namespace edge_moe

#endif
