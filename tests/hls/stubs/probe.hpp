// SPDX-License-Identifier: Apache-2.0
// Counts the calls of inlined functions in every iteration of a pipelined loop: an HLS tool builds these in
// parallel. The design's pragmas become calls of these functions.
#pragma once
#include <cstdio>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

namespace probe {

typedef std::map<const char*, long> Counts;  // by a function's full name, one string each

struct State {
  const char* loop = "";
  Counts now;
  std::map<std::pair<std::string, std::string>, long> most;
};

inline State& state() {
  static State current;
  return current;
}

inline void iteration(const char* loop) {
  State& s = state();
  for (const auto& entry : s.now) {
    long& most = s.most[std::make_pair(std::string(s.loop), std::string(entry.first))];
    most = entry.second > most ? entry.second : most;
  }
  s.now.clear();
  s.loop = loop;
}

inline void call(const char* function) { ++state().now[function]; }

inline void report() {
  iteration("");
  for (const auto& entry : state().most) {
    std::printf("calls\t%s\t%s\t%ld\n", entry.first.first.c_str(), entry.first.second.c_str(), entry.second);
  }
}

template <typename T>
struct Bits {
  static constexpr int value = 8 * sizeof(T);
};

template <typename A, unsigned N = 0>
inline void extents() {
  if (N < std::rank<A>::value) {
    std::printf("\t%zu", std::extent<A, N>::value);
    extents<A, (N + 1 < 4 ? N + 1 : 3)>();
  }
}

template <typename A>
inline void array(const char* function, const char* name) {
  std::printf("array\t%s\t%s\t%d", function, name, Bits<typename std::remove_all_extents<A>::type>::value);
  extents<A>();
  std::printf("\n");
}

}  // namespace probe
