// SPDX-License-Identifier: Apache-2.0
// C simulation: the accelerator as a shared library. Not synthesised.
#include <cstdio>
#include <exception>

#include "edge_moe/shell/accelerator.hpp"
#include "edge_moe/csim/tap.hpp"

namespace {

// host/edge_moe_host/backends/csim_library.py declares the same structures under the same names.
struct HostBuffers {
  const uint8_t* program;
  const uint8_t* weights;
  const uint8_t* image;
  uint8_t* output;
  uint32_t program_offset;
  uint32_t program_records;
  uint32_t weight_beats;
  uint32_t image_bytes;
  uint32_t output_bytes;
};

struct HostRegisters {
  uint64_t config_id;
  uint32_t version;
  uint32_t status;
  uint32_t error;
  uint32_t position;
  uint32_t cycles;
};

}  // namespace

// 0, or 1 with a sentence in `message` if streams deadlock, overflow or keep leftovers. `tap` may be null.
extern "C" int edge_moe_csim_run(const HostBuffers* buffers, HostRegisters* registers,
                                 const edge_moe::tap::Tap* tap, char* message, uint32_t message_bytes) {
  using namespace edge_moe;
  const auto transfers = [](const uint8_t* bytes) { return reinterpret_cast<const Transfer*>(bytes); };
  const Transfer* weights = transfers(buffers->weights);
  const BurstPort port(weights, std::size_t{buffers->weight_beats} * isa::beat_bytes / PORT_BYTES);
  tap::state().tap = tap;
  int result = 0;
  try {
    edge_moe_accelerator(transfers(buffers->program), weights, port, port, port, transfers(buffers->image),
                         reinterpret_cast<Transfer*>(buffers->output), buffers->program_offset,
                         buffers->program_records, buffers->weight_beats, buffers->image_bytes,
                         buffers->output_bytes, &registers->config_id, &registers->version,
                         &registers->status, &registers->error, &registers->position, &registers->cycles);
  } catch (const std::exception& error) {
    std::snprintf(message, message_bytes, "%s", error.what());
    result = 1;
  }
  tap::state().tap = nullptr;
  return result;
}
