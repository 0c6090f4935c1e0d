// SPDX-License-Identifier: Apache-2.0
// FIFO between two parts of the design in C simulation: a ring of its depth on the chip, which reports by name
// what would hang or be lost there:
//   overflow    write to a full stream: its reader does not keep up, or it is not deep enough;
//   deadlock    read from an empty one: nobody will ever write what its reader waits for;
//   leftovers   finish() on a stream that is not empty: writer and reader disagree about the number.
// Parts run one after the other in one thread, so each of these is certain when it is reported.
#ifndef EDGE_MOE_CSIM_STREAM_HPP
#define EDGE_MOE_CSIM_STREAM_HPP

#include <array>
#include <cstddef>
#include <stdexcept>
#include <string>

namespace edge_moe {

// A stream was used in a way that would fail on the chip.
class StreamError : public std::runtime_error {
 public:
  StreamError(const std::string& stream, const std::string& what)
      : std::runtime_error("stream '" + stream + "': " + what + ".") {}
};

template <typename T, int DEPTH>
class Stream {
  static_assert(DEPTH >= 1, "a stream holds at least one element");

 public:
  explicit Stream(const char* name) : name_(name) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  bool empty() const { return count_ == 0; }
  bool full() const { return count_ == DEPTH; }

  void write(const T& value) {
    if (full()) {
      throw StreamError(name_, "overflow, all " + std::to_string(DEPTH) + " places are taken");
    }
    ring_[static_cast<std::size_t>((first_ + count_) % DEPTH)] = value;
    ++count_;
  }

  T read() {
    if (empty()) {
      throw StreamError(name_, "deadlock, read while empty after " + std::to_string(passed_) + " elements");
    }
    const T value = ring_[static_cast<std::size_t>(first_)];
    first_ = (first_ + 1) % DEPTH;
    --count_;
    ++passed_;
    return value;
  }

  // Every writer and reader is done.
  void finish() const {
    if (!empty()) {
      throw StreamError(name_, "leftovers, " + std::to_string(count_) + " elements were never read");
    }
  }

 private:
  std::string name_;
  std::array<T, DEPTH> ring_{};
  int first_ = 0;
  int count_ = 0;
  long long passed_ = 0;
};

}  // namespace edge_moe

#endif
