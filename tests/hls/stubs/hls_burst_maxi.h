// SPDX-License-Identifier: Apache-2.0
// hls::burst_maxi for a port that nothing uses.
#pragma once
#include <cstddef>

namespace hls {

template <typename T>
class burst_maxi {
 public:
  void read_request(std::size_t, std::size_t) {}
  T read() { return T(); }
};

}  // namespace hls
