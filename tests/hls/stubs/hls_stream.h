// SPDX-License-Identifier: Apache-2.0
// hls::stream for a single process: never full, and zeros once it is empty.
#pragma once
#include <deque>

namespace hls {

template <typename T, int DEPTH = 0>
class stream {
 public:
  explicit stream(const char* = "") {}
  bool empty() const { return values_.empty(); }
  void write(const T& value) { values_.push_back(value); }
  T read() {
    if (values_.empty()) {
      return T();
    }
    const T value = values_.front();
    values_.pop_front();
    return value;
  }

 private:
  std::deque<T> values_;
};

}  // namespace hls
