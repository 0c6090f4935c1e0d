// SPDX-License-Identifier: Apache-2.0
// Stand-in for the tool's header: the members of hls::burst_maxi that UG1399 documents and that read.
#ifndef HLS_BURST_MAXI_H
#define HLS_BURST_MAXI_H

#include <cstddef>
#include <deque>

namespace hls {

template <typename T>
class burst_maxi {
 public:
  burst_maxi(T* memory) : memory_(memory), asked_() {}

  void read_request(std::size_t offset, std::size_t length) {
    for (std::size_t i = 0; i < length; ++i) {
      asked_.push_back(memory_ + offset + i);
    }
  }

  T read() {
    const T* next = asked_.front();
    asked_.pop_front();
    return *next;
  }

 private:
  T* memory_;
  std::deque<T*> asked_;
};

}  // namespace hls

#endif
