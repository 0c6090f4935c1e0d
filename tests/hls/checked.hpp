// SPDX-License-Identifier: Apache-2.0
// Arrays that check the pragmas' claims about them: HLS_DISTANCE and HLS_INDEPENDENT, and one read and one
// write in an iteration of a pipelined loop (ram_s2p). Included in place of those macros.
#ifndef EDGE_MOE_TESTS_HLS_CHECKED_HPP
#define EDGE_MOE_TESTS_HLS_CHECKED_HPP

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace edge_moe {
namespace checked {

constexpr int INDEPENDENT = 1 << 30;  // as a distance: never

// Counters of the executor: iterations of pipelined loops so far, finished loops, and checked reads.
struct Time {
  uint64_t iteration = 0;
  uint64_t loop = 0;
  uint64_t iteration_loop = 0;  // the loop of the last iteration
  uint64_t checks = 0;
};

inline Time& now() {
  static Time time;
  return time;
}

// Added to an array's distances, to test that a wrong claim is detected.
inline std::map<std::string, int>& more() {
  static std::map<std::string, int> distances;
  return distances;
}

inline void iterate() {
  ++now().iteration;
  now().iteration_loop = now().loop;
}

template <typename T>
class Checked {
 public:
  explicit Checked(int size = 4096) : values_(size), written_(size) {}
  Checked(const Checked&) = delete;
  Checked& operator=(const Checked&) = delete;

  class Place {
   public:
    Place(Checked& array, int index) : array_(array), index_(index) {}
    operator T() const { return array_.read(index_); }
    void operator=(const T& value) { array_.write(index_, value); }

   private:
    Checked& array_;
    int index_;
  };

  Place operator[](int index) const { return Place(const_cast<Checked&>(*this), index); }

  // The value read was written this many iterations earlier in the running loop.
  void claim(int distance, const char* name) {
    distance_ = distance;
    claimed_in_ = now().loop;
    name_ = name;
  }

 private:
  struct Write {
    uint64_t iteration = 0;
    uint64_t loop = UINT64_MAX;
  };

  T read(int index) {
    const Write& last = written_.at(index);
    if (claimed_in_ == now().loop) {
      ++now().checks;
      if (last.loop == now().loop && last.iteration < now().iteration &&
          now().iteration - last.iteration < static_cast<uint64_t>(distance_)) {
        const uint64_t passed = now().iteration - last.iteration;
        fail("is read " + std::to_string(passed) + " iterations after it was written");
      }
    }
    use(read_at_, "read");
    return values_[index];
  }

  void write(int index, const T& value) {
    use(written_at_, "written");
    values_.at(index) = value;
    written_[index].iteration = now().iteration;
    written_[index].loop = now().loop;
  }

  void use(uint64_t& last, const char* how) {
    if (now().iteration_loop == now().loop && last == now().iteration) {
      fail(std::string("is ") + how + " twice in an iteration");
    }
    last = now().iteration;
  }

  void fail(const std::string& what) const {
    throw std::runtime_error(std::string("array ") + name_ + " " + what);
  }

  std::vector<T> values_;
  std::vector<Write> written_;
  uint64_t read_at_ = 0;
  uint64_t written_at_ = 0;
  int distance_ = 0;
  uint64_t claimed_in_ = UINT64_MAX;
  const char* name_ = "of no claim";
};

template <typename T>
void claim(Checked<T>& array, int distance, const char* name) {
  const auto found = more().find(name);
  array.claim(distance + (found == more().end() ? 0 : found->second), name);
}

template <typename T, std::size_t N>
void claim(T (&arrays)[N], int distance, const char* name) {
  for (T& array : arrays) {
    claim(array, distance, name);
  }
}

}  // namespace checked

using checked::Checked;

}  // namespace edge_moe

#undef HLS_PIPELINE
#define HLS_PIPELINE ::edge_moe::checked::iterate();
#undef HLS_INDEPENDENT
#define HLS_INDEPENDENT(x) ::edge_moe::checked::claim(x, ::edge_moe::checked::INDEPENDENT, #x);
#undef HLS_DISTANCE
#define HLS_DISTANCE(x, n) ::edge_moe::checked::claim(x, n, #x);

#endif
