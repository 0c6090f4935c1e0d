// SPDX-License-Identifier: Apache-2.0
// The end of a pass for one row of the pair: its products are added to its sum, and a finished sum becomes a
// result. SPEC.md, section 4.
//
// A linear's epilogue, the logits rq(q k, m, n) and the average u = rq(A, R, e + 1), y = rq(u, m, n') are the
// same two requantisations with other operands, so one piece of hardware serves all.
#ifndef EDGE_MOE_EXECUTOR_COMPUTE_EPILOGUE_HPP
#define EDGE_MOE_EXECUTOR_COMPUTE_EPILOGUE_HPP

#include "edge_moe/executor/compute/job.hpp"
#include "edge_moe/operators/attention.hpp"
#include "edge_moe/operators/compute_unit.hpp"
#include "edge_moe/operators/gelu.hpp"

namespace edge_moe {

// State of a query between blocks, and between its logits and its average. In memory it takes 64 bits: the
// fields have 9, 27, 5, 15 and 5 bits.
struct QueryState {
  SoftmaxState softmax;  // exponent in [-128, 128]
  uint8_t rescale;       // at most 31
  Inverse inverse;       // exponent at most 27
};
static_assert(SUM_BITS == 27, "the sum's place among the 64 bits");

inline QueryState query_start() {
  HLS_INLINE
  const QueryState state = {softmax_start(), 0, {0, 0}};
  return state;
}

inline uint64_t pack(const QueryState& state) {
  HLS_INLINE
  const uint64_t exponent = static_cast<uint64_t>(state.softmax.exponent & 0x1FF);
  const uint64_t sum = static_cast<uint64_t>(state.softmax.sum);
  const uint64_t rescale = state.rescale;
  const uint64_t value = static_cast<uint64_t>(state.inverse.value);
  const uint64_t scale = static_cast<uint64_t>(state.inverse.exponent);
  return exponent | sum << 9 | rescale << 36 | value << 41 | scale << 56;
}

inline QueryState unpack_state(uint64_t bits) {
  HLS_INLINE
  const int raw = static_cast<int>(bits & 0x1FF);
  const int16_t exponent = static_cast<int16_t>(raw >= 0x100 ? raw - 0x200 : raw);
  const SoftmaxState softmax = {exponent, static_cast<int32_t>((bits >> 9) & 0x7FFFFFF)};
  const Inverse inverse = {static_cast<int16_t>((bits >> 41) & 0x7FFF),
                           static_cast<int8_t>((bits >> 56) & 0x1F)};
  const QueryState state = {softmax, static_cast<uint8_t>((bits >> 36) & 0x1F), inverse};
  return state;
}

// rq(a, m, n, low, high, z) of 32 lanes.
inline Slice16 requantise_sum(const Slice32& a, const Slice16& m, int n, int32_t low, int32_t high, int32_t z) {
  HLS_INLINE
  Slice16 result;
  HLS_LANES(result)
REQUANTISE_SUM:
  for (int j = 0; j < LANES; ++j) {
    HLS_UNROLL
    result.lane[j] = static_cast<int16_t>(requantise<32>(a.lane[j], m.lane[j], n, low, high, z));
  }
  return result;
}

// The second requantisation, for a value of 16 bits.
inline Slice8 requantise_value(const Slice16& x, const Slice16& m, int n, int32_t low, int32_t z) {
  HLS_INLINE
  Slice8 result;
  HLS_LANES(result)
REQUANTISE_VALUE:
  for (int j = 0; j < LANES; ++j) {
    HLS_UNROLL
    result.lane[j] = static_cast<int8_t>(requantise<16>(x.lane[j], m.lane[j], n, low, INT8_MAX, z));
  }
  return result;
}

inline Slice8 narrow_slice(const Slice16& x) {
  HLS_INLINE
  Slice8 result;
  HLS_LANES(result)
NARROW_SLICE:
  for (int j = 0; j < LANES; ++j) {
    HLS_UNROLL
    result.lane[j] = static_cast<int8_t>(x.lane[j]);
  }
  return result;
}

// Limits, zero point and shift for the requantisation of a job's finished sums.
struct Clip {
  int32_t low;
  int32_t high;
  int32_t zero_point;
  int shift;
};

inline Clip clip_of(const Job& job) {
  HLS_INLINE
  const bool linear = job.source != Source::ATTENTION;
  const bool narrow = linear && (job.result == Result::INT8 || job.result == Result::RELU);
  const bool relu = narrow && job.result == Result::RELU;
  const int32_t low = !narrow ? INT16_MIN : relu ? INT8_MIN : -INT8_MAX;
  const Clip result = {low, narrow ? INT8_MAX : INT16_MAX, relu ? INT8_MIN : 0, job.shift};
  return result;
}

// Kinds of pass: a linear's, of queries against K, of numerators against V.
enum class Pass : uint8_t { LINEAR, KEYS, VALUES };

// One row of the pair in progress.
struct Side {
  Slice32 sum;       // so far; what SUMS keeps
  QueryState state;  // of a query
  Slice16 value;     // the finished sum, requantised; what INT16 keeps
  Slice8 numerator;  // KEYS: for the passes of V
  Slice8 out;        // what goes to the scratch memory
};

// The sum plus this pass's products.
inline void add_products(Pass pass, const Slice32& y, Side& side) {
  HLS_INLINE
  const bool averages = pass == Pass::VALUES;
  side.sum = averages ? attention_accumulate(side.sum, side.state.rescale, y) : accumulate(side.sum, y);
}

// Results of a finished sum. The block's first `keys` are real; multipliers belong to the tile's channels.
inline void finish_sum(const Job& job, const Clip& clip, Pass pass, int keys, const Slice16& multiplier,
                       const Slice16& multiplier2, Side& side) {
  HLS_INLINE
  const bool averages = pass == Pass::VALUES;
  const Slice16 m = averages ? fill(side.state.inverse.value) : multiplier;
  const int n = averages ? side.state.inverse.exponent + 1 : clip.shift;
  side.value = requantise_sum(side.sum, m, n, clip.low, clip.high, clip.zero_point);
  if (pass == Pass::KEYS) {
    const SoftmaxBlock block = softmax_block(side.value, keys, side.state.softmax);
    side.numerator = block.numerator;
    side.state.rescale = block.rescale;
    side.state.inverse = softmax_inverse(side.state.softmax);
  } else if (averages || job.result == Result::GELU) {
    const int32_t low = averages ? -INT8_MAX : INT8_MIN;
    const int32_t z = averages ? 0 : job.zero_point;
    side.out = requantise_value(averages ? side.value : gelu(side.value), multiplier2, job.shift2, low, z);
  } else {
    side.out = narrow_slice(side.value);
  }
}

}  // namespace edge_moe

#endif
