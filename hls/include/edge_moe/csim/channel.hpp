// SPDX-License-Identifier: Apache-2.0
// Channel between two processes in C simulation: a bounded stream at which a process yields. finish()
// reports elements that were never read. In synthesis Channel comes from vendor.hpp.
#ifndef EDGE_MOE_CSIM_CHANNEL_HPP
#define EDGE_MOE_CSIM_CHANNEL_HPP

#include <memory>

#include "edge_moe/csim/processes.hpp"
#include "edge_moe/csim/stream.hpp"

namespace edge_moe {

// Stream between two processes. Its ring is not on the stack: it may hold megabytes.
template <typename T, int DEPTH>
class Channel {
 public:
  explicit Channel(const char* name) : name_(name), stream_(new Stream<T, DEPTH>(name)) {}

  bool empty() const { return stream_->empty(); }

  void write(const T& value) {
    if (stream_->full()) {
      Processes::give_way({&Channel::has_room, stream_.get(), name_, "room in"});
    }
    stream_->write(value);
  }

  T read() {
    if (stream_->empty()) {
      Processes::give_way({&Channel::has_data, stream_.get(), name_, "data from"});
    }
    return stream_->read();
  }

  // Throws StreamError when elements were never read.
  void finish() const { stream_->finish(); }

 private:
  static bool has_room(const void* stream) { return !static_cast<const Stream<T, DEPTH>*>(stream)->full(); }
  static bool has_data(const void* stream) { return !static_cast<const Stream<T, DEPTH>*>(stream)->empty(); }

  const char* name_;
  std::unique_ptr<Stream<T, DEPTH>> stream_;
};

}  // namespace edge_moe

#endif
