// SPDX-License-Identifier: Apache-2.0
// The accelerator's top: one box of the block diagram in accelerator.hpp per line. SPEC.md, sections 7 to 12.
#include "edge_moe/shell/accelerator.hpp"

#include "edge_moe/shell/memory_movers.hpp"
#include "edge_moe/executor/execute.hpp"
#include "edge_moe/shell/program_fetch.hpp"
#include "edge_moe/shell/weight_reader.hpp"

using namespace edge_moe;

extern "C" void edge_moe_accelerator(const Transfer* program, const Transfer* tables, BurstPort weights0,
                                     BurstPort weights1, BurstPort weights2, const Transfer* image,
                                     Transfer* output, uint32_t program_offset, uint32_t program_records,
                                     uint32_t weight_beats, uint32_t image_bytes, uint32_t output_bytes,
                                     uint64_t* config_id, uint32_t* version, uint32_t* status,
                                     uint32_t* error, uint32_t* position, uint32_t* cycles) {
  HLS_READS(program, gmem_program, edge_moe::RECORD_REQUESTS, edge_moe::RECORD_TRANSFERS, edge_moe::PROGRAM_TRANSFERS)
  HLS_READS(tables, gmem_tables, edge_moe::RECORD_REQUESTS, edge_moe::RECORD_TRANSFERS, edge_moe::WEIGHT_IMAGE_TRANSFERS)
  HLS_STREAMS(weights0, gmem_weights0)
  HLS_STREAMS(weights1, gmem_weights1)
  HLS_STREAMS(weights2, gmem_weights2)
  HLS_READS(image, gmem_image, edge_moe::REQUESTS_AHEAD, edge_moe::REQUEST_TRANSFERS, edge_moe::IMAGE_TRANSFERS)
  HLS_WRITES(output, gmem_output, edge_moe::REQUESTS_AHEAD, edge_moe::REQUEST_TRANSFERS, edge_moe::OUTPUT_TRANSFERS)
  HLS_REGISTER(program_offset)
  HLS_REGISTER(program_records)
  HLS_REGISTER(weight_beats)
  HLS_REGISTER(image_bytes)
  HLS_REGISTER(output_bytes)
  HLS_REGISTER(config_id)
  HLS_REGISTER(version)
  HLS_REGISTER(status)
  HLS_REGISTER(error)
  HLS_REGISTER(position)
  HLS_REGISTER(cycles)
  HLS_CONTROL
  HLS_DATAFLOW

  InstructionChannel instructions("instructions");
  EntryChannel entries("entries");
  BlockChannel blocks("blocks");
  RoutedChannel routed("routed");
  BlockChannel bursts0("bursts0");
  BlockChannel bursts1("bursts1");
  BlockChannel bursts2("bursts2");
  LengthChannel lengths("lengths");
  PortChannel planes0("planes0");
  PortChannel planes1("planes1");
  PortChannel planes2("planes2");
  WeightChannel weights("weights");
  CountChannel image_transfers("image_transfers");
  CountChannel output_transfers("output_transfers");
  TransferChannel pixels("pixels");
  TransferChannel results("results");
  CountChannel finished("finished");
  HLS_WEIGHT_FIFO(weights)
  // wide and shallow: the tool would use block RAM for them, nearly all of it empty
  HLS_FIFO_IN(instructions, lutram)
  HLS_FIFO_IN(entries, lutram)
  HLS_FIFO_IN(routed, lutram)
  HLS_FIFO_IN(planes0, lutram)
  HLS_FIFO_IN(planes1, lutram)
  HLS_FIFO_IN(planes2, lutram)
  HLS_FIFO_IN(pixels, lutram)
  HLS_FIFO_IN(results, lutram)

  EDGE_MOE_REGION
  EDGE_MOE_PROCESS("fetch_program",
                   fetch_program(program, tables, program_offset, program_records, weight_beats, image_bytes,
                                 output_bytes, instructions, entries, blocks, routed, image_transfers,
                                 output_transfers, config_id, version, status, error, position))
  EDGE_MOE_PROCESS("plan_bursts", plan_bursts(blocks, bursts0, bursts1, bursts2, lengths))
  EDGE_MOE_PROCESS("read_bursts0", read_bursts(weights0, bursts0, planes0))
  EDGE_MOE_PROCESS("read_bursts1", read_bursts(weights1, bursts1, planes1))
  EDGE_MOE_PROCESS("read_bursts2", read_bursts(weights2, bursts2, planes2))
  EDGE_MOE_PROCESS("merge_planes", merge_planes(lengths, planes0, planes1, planes2, weights))
  EDGE_MOE_PROCESS("read_image", read_image(image, image_transfers, pixels))
  EDGE_MOE_PROCESS("execute", execute(instructions, entries, weights, pixels, routed, results, finished))
  EDGE_MOE_PROCESS("write_output", write_output(output_transfers, results, output))
  EDGE_MOE_PROCESS("count_cycles", count_cycles(finished, cycles))
  EDGE_MOE_RUN

#ifndef __SYNTHESIS__
  instructions.finish();
  entries.finish();
  blocks.finish();
  routed.finish();
  bursts0.finish();
  bursts1.finish();
  bursts2.finish();
  lengths.finish();
  planes0.finish();
  planes1.finish();
  planes2.finish();
  weights.finish();
  image_transfers.finish();
  output_transfers.finish();
  pixels.finish();
  results.finish();
  finished.finish();
#endif
}
