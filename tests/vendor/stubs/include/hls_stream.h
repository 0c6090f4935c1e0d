// SPDX-License-Identifier: Apache-2.0
// Stand-in for the tool's header: the members of hls::stream that UG1399 documents, without a body.
#ifndef HLS_STREAM_H
#define HLS_STREAM_H

namespace hls {

template <typename T, int DEPTH = 0>
class stream {
 public:
  stream();
  explicit stream(const char* name);
  stream(const stream&) = delete;
  bool empty();
  bool full();
  T read();
  void read(T& value);
  bool read_nb(T& value);
  void write(const T& value);
  bool write_nb(const T& value);
};

}  // namespace hls

#endif
