// SPDX-License-Identifier: Apache-2.0
// One instruction of every kind through `execute`, all operands zero: each pipelined loop runs, and each product
// in it at least once. Sizes are small, but rows are enough to fill every stage of a pipeline.

namespace probe {

template <int W>
struct Bits<ap_uint<W>> {
  static constexpr int value = W;
};

template <typename T, int DEPTH>
inline void stream(const char* name, const hls::stream<T, DEPTH>*) {
  std::printf("stream\t%s\t%d\t%d\n", name, DEPTH, Bits<T>::value);
}

}  // namespace probe

namespace edge_moe {

constexpr int TEST_ROWS = 60;
constexpr int TEST_EXPERTS = 16;
enum TestPlace { RESIDUAL = 0, NORM = 0x4000, WIDE = 0x6000, OUT = 0xA000, ROUTING = 0xC000, HIDDEN = 0xE000 };

inline isa::Instruction instruction(isa::Opcode opcode, uint32_t src, uint32_t dst, int in, int out) {
  isa::Instruction i = {};
  i.opcode = static_cast<uint8_t>(opcode);
  i.rows = TEST_ROWS;
  i.src = src;
  i.dst = dst;
  i.in_channels = static_cast<uint16_t>(in);
  i.out_channels = static_cast<uint16_t>(out);
  i.weight_bits = 8;
  i.shift = 8;
  i.shift2 = 8;
  i.experts = TEST_EXPERTS;
  i.top_k = config::max_top_k;
  i.epsilon = 1;
  return i;
}

inline isa::Instruction map(isa::Opcode opcode, int rows) {
  isa::Instruction i = instruction(opcode, NORM, OUT, LANES, LANES);
  i.rows = static_cast<uint16_t>(rows);
  i.height = 8;
  i.width = 8;
  return i;
}

inline void run_all() {
  InstructionChannel instructions;
  EntryChannel entries;
  WeightChannel weights;
  TransferChannel pixels;
  RoutedChannel routed;
  TransferChannel results;
  CountChannel finished;
  instructions.write(instruction(isa::Opcode::LOAD, 0, RESIDUAL, LANES, LANES));
  isa::Instruction patches = map(isa::Opcode::PATCHES, 4);
  patches.patch = 4;
  patches.out_channels = 48;
  instructions.write(patches);
  instructions.write(instruction(isa::Opcode::LAYERNORM, RESIDUAL, NORM, LANES, LANES));
  for (int epilogue = 0; epilogue < isa::epilogue_count; ++epilogue) {
    isa::Instruction linear = instruction(isa::Opcode::LINEAR, NORM, WIDE, LANES, 3 * LANES);
    linear.epilogue = static_cast<uint8_t>(epilogue);
    instructions.write(linear);
  }
  isa::Instruction attention = instruction(isa::Opcode::ATTENTION, WIDE, OUT, 3 * LANES, LANES);
  attention.keys = TEST_ROWS;
  attention.heads = 1;
  instructions.write(attention);
  instructions.write(instruction(isa::Opcode::GATE, NORM, ROUTING, LANES, 0));
  isa::Instruction experts = instruction(isa::Opcode::EXPERTS, NORM, RESIDUAL, LANES, LANES);
  experts.hidden_channels = LANES;
  experts.routing = ROUTING;
  experts.hidden = HIDDEN;
  instructions.write(experts);
  isa::ExpertEntry entry = {};
  entry.weight_beats = 2;
  entry.bits1 = entry.bits2 = 8;
  entry.shift1 = entry.shift2 = entry.gelu_shift = 8;
  for (int e = 0; e < TEST_EXPERTS; ++e) {
    entries.write(entry);
  }
  instructions.write(map(isa::Opcode::CONV3X3, 64));
  instructions.write(map(isa::Opcode::UPSAMPLE2X, 256));
  instructions.write(instruction(isa::Opcode::STORE, RESIDUAL, 0, LANES, 0));
  execute(instructions, entries, weights, pixels, routed, results, finished);
}

void declared();

}  // namespace edge_moe

int main() {
  edge_moe::declared();
  edge_moe::run_all();
  probe::report();
}
