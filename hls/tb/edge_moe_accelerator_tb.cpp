// SPDX-License-Identifier: Apache-2.0
// Test bench of cosimulation: runs a recorded program and compares its result with the recorded one.
//
//   edge_moe_accelerator_tb FOLDER     with the files of record.py
//
// Every buffer has as many transfers as the top's interface pragmas state, because cosimulation copies all of
// them. 0 if result, registers and the transfers after the result are right, else 1 and a sentence.
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "edge_moe/shell/accelerator.hpp"

namespace {

using namespace edge_moe;

constexpr uint8_t UNTOUCHED = 0xA5;
constexpr int GUARD_TRANSFERS = 4;

struct Registers {
  uint64_t config_id;
  uint32_t version;
  uint32_t status;
  uint32_t error;
  uint32_t position;
  uint32_t cycles;
};

bool read_file(const std::string& path, std::vector<uint8_t>& bytes) {
  std::ifstream file(path, std::ios::binary);
  bytes.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  if (!file) {
    std::cerr << "cannot read " << path << "\n";
  }
  return static_cast<bool>(file);
}

// `sizes.txt`: a name and a number in each line.
std::map<std::string, uint32_t> read_sizes(const std::string& path) {
  std::map<std::string, uint32_t> sizes;
  std::ifstream file(path);
  std::string name;
  uint32_t value = 0;
  while (file >> name >> value) {
    sizes[name] = value;
  }
  return sizes;
}

// `transfers` transfers and a guard: first the bytes, then zeros.
std::vector<Transfer> buffer(const std::vector<uint8_t>& bytes, std::size_t transfers) {
  std::vector<Transfer> result(transfers + GUARD_TRANSFERS, zero_transfer());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    set_byte(result[i / PORT_BYTES], static_cast<int>(i % PORT_BYTES), bytes[i]);
  }
  return result;
}

uint8_t byte_of(const std::vector<Transfer>& transfers, std::size_t index) {
  return get_byte(transfers[index / PORT_BYTES], static_cast<int>(index % PORT_BYTES));
}

// Number of result values that differ and of bytes written after the result.
int differences(const std::vector<Transfer>& output, const std::vector<uint8_t>& expected, uint32_t row_bytes,
                uint32_t used_bytes) {
  int wrong = 0;
  for (std::size_t i = 0; i < output.size() * PORT_BYTES; ++i) {
    const uint8_t value = byte_of(output, i);
    if (i >= expected.size()) {
      wrong += value != UNTOUCHED;
    } else if (i % row_bytes < used_bytes) {
      wrong += value != expected[i];
    }
  }
  return wrong;
}

// A port that reads at most `used` transfers, which C simulation checks.
BurstPort burst_port(std::vector<Transfer>& transfers, std::size_t used) {
#ifdef EDGE_MOE_VENDOR_PORTS
  (void)used;
  return BurstPort(transfers.data());
#else
  return BurstPort(transfers.data(), used);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argc == 2 ? argv[1] : "";
  std::vector<uint8_t> program;
  std::vector<uint8_t> weights;
  std::vector<uint8_t> image;
  std::vector<uint8_t> expected;
  if (!read_file(folder + "/program.bin", program) || !read_file(folder + "/weights.bin", weights) ||
      !read_file(folder + "/image.bin", image) || !read_file(folder + "/expected.bin", expected)) {
    return 1;
  }
  std::map<std::string, uint32_t> sizes = read_sizes(folder + "/sizes.txt");
  if (program.size() > PROGRAM_TRANSFERS * PORT_BYTES ||
      weights.size() > std::size_t{WEIGHT_IMAGE_TRANSFERS} * PORT_BYTES ||
      image.size() > IMAGE_TRANSFERS * PORT_BYTES || expected.size() > OUTPUT_TRANSFERS * PORT_BYTES) {
    std::cerr << "the recording is larger than the top's interface pragmas state\n";
    return 1;
  }

  std::vector<Transfer> program_transfers = buffer(program, PROGRAM_TRANSFERS);
  std::vector<Transfer> weight_transfers = buffer(weights, WEIGHT_IMAGE_TRANSFERS);
  std::vector<Transfer> image_transfers = buffer(image, IMAGE_TRANSFERS);
  const std::vector<uint8_t> untouched((OUTPUT_TRANSFERS + GUARD_TRANSFERS) * PORT_BYTES, UNTOUCHED);
  std::vector<Transfer> output = buffer(untouched, OUTPUT_TRANSFERS);
  const std::size_t used = weights.size() / PORT_BYTES;
  Registers registers = Registers();
  edge_moe_accelerator(program_transfers.data(), weight_transfers.data(), burst_port(weight_transfers, used),
                       burst_port(weight_transfers, used), burst_port(weight_transfers, used),
                       image_transfers.data(), output.data(), 0,
                       static_cast<uint32_t>(program.size() / isa::record_bytes),
                       static_cast<uint32_t>(weights.size() / isa::beat_bytes), sizes["image_bytes"],
                       static_cast<uint32_t>(expected.size()), &registers.config_id, &registers.version,
                       &registers.status, &registers.error, &registers.position, &registers.cycles);

  const int wrong = differences(output, expected, sizes["row_bytes"], sizes["used_bytes"]);
  const bool done = registers.status == static_cast<uint32_t>(Status::DONE) && registers.error == 0;
  const bool same = registers.config_id == config::hash && registers.version == isa::version;
  std::cout << expected.size() << " bytes compared, " << wrong << " differ; status " << registers.status
            << ", error " << registers.error << " at instruction " << registers.position << ", "
            << registers.cycles << " cycles\n";
  return wrong == 0 && done && same && !expected.empty() ? 0 : 1;
}
