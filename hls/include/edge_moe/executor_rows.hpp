// SPDX-License-Identifier: Apache-2.0
// Instructions that move rows or work on one row at a time: LOAD, LAYERNORM, UPSAMPLE2X, STORE. SPEC.md,
// section 8. Each loop makes at most one read and one write per half of the scratch memory and cycle.
#ifndef EDGE_MOE_EXECUTOR_ROWS_HPP
#define EDGE_MOE_EXECUTOR_ROWS_HPP

#include "edge_moe/accelerator.hpp"
#include "edge_moe/layernorm.hpp"
#include "edge_moe/scratch.hpp"
#include "edge_moe/tap.hpp"
#include "edge_moe/upsample2x.hpp"

namespace edge_moe {

// Parameters of LAYERNORM and ATTENTION: 32-bit values of each tile, 16-bit values of every two.
constexpr int PARAMETER_TILES =
    ((config::max_channels > config::max_width ? config::max_channels : config::max_width) +
     LANES - 1) / LANES;
constexpr int PARAMETER_PAIRS = (PARAMETER_TILES + 1) / 2;
typedef StoredWord WideParameters[PARAMETER_TILES];
typedef StoredWord NarrowParameters[PARAMETER_PAIRS];

inline int parameter_steps(int tile_count) {
  HLS_INLINE
  return tile_count + pairs(tile_count);
}

inline void load_parameters(int tile_count, WeightChannel& weights, WideParameters wide,
                            NarrowParameters narrow) {
  HLS_NO_INLINE
  const int steps = parameter_steps(tile_count);
  int tile = 0;
  bool second = false;
LOAD_PARAMETERS:
  for (int step = 0; step < steps; ++step) {
    // carried: a count
    HLS_PIPELINE
    HLS_TRIPS(2, 2 * edge_moe::PARAMETER_TILES)
    const StoredWord word = pack(weights.read());
    if (second) {
      narrow[tile / 2] = word;
    } else {
      wide[tile] = word;
    }
    const bool stay = !second && tile % 2 == 0;
    tile += stay ? 0 : 1;
    second = stay;
  }
  tap::add(steps, tap::MOVE_DEPTH);
}

// LOAD: int16 rows of the weight image, as they are; a word of it is two of the scratch memory.
inline int load_steps(const isa::Instruction& i) {
  HLS_INLINE
  return i.rows * tiles(i.out_channels);
}

inline void load_rows(const isa::Instruction& i, WeightChannel& weights, ScratchHalf even,
                      ScratchHalf odd) {
  HLS_NO_INLINE
  const int steps = load_steps(i);
  const int destination = word_of(i.dst);
  Word word = {};
  HLS_REGISTERS(word.byte)
LOAD_ROWS:
  for (int step = 0; step < steps; ++step) {
    HLS_PIPELINE
    HLS_TRIPS(1, edge_moe::SCRATCH_WORDS)
    if (step % 2 == 0) {
      word = weights.read();
    }
    Beat8 first;
    HLS_LANES(first)
    Beat8 second;
    HLS_LANES(second)
  LOAD_BYTES:
    for (int j = 0; j < LANES; ++j) {
      HLS_UNROLL
      const int at = step % 2 == 0 ? j : SCRATCH_WORD_BYTES + j;
      first.lane[j] = static_cast<int8_t>(word.byte[at]);
      second.lane[j] = static_cast<int8_t>(word.byte[at + LANES]);
    }
    even[destination + step] = pack(first);
    odd[destination + step] = pack(second);
  }
  tap::add(steps, tap::MOVE_DEPTH);
}

// LAYERNORM: a row's beats pass once for its moments; NORM_LAG iterations after the last of them, when
// the row's scale is known, the same beats pass again, from a ring, while later rows are read.
static_assert(isa::norm_shift_limit == LAYERNORM_SHIFT, "every shift that is let pass can be made");
constexpr int NORM_LAG = 24;
constexpr int NORM_RING = 64;  // beats: those of a row and NORM_LAG more
constexpr int NORM_ROWS = 32;  // rows whose scale is known and not used up yet, one word each
static_assert((config::max_width + LANES - 1) / LANES + NORM_LAG < NORM_RING,
              "the ring holds a row and the lag");
static_assert(NORM_LAG + 2 < NORM_ROWS, "a row has at least one beat");

inline uint64_t pack(const RowNorm& norm) {
  HLS_INLINE
  return static_cast<uint32_t>(norm.total) |
                               static_cast<uint64_t>(static_cast<uint16_t>(norm.inverse.value)) << 32 |
         static_cast<uint64_t>(static_cast<uint8_t>(norm.inverse.exponent)) << 48;
}

inline RowNorm unpack_norm(uint64_t word, int width) {
  HLS_INLINE
  const Inverse inverse = {static_cast<int16_t>((word >> 32) & 0x7FFF),
                           static_cast<int8_t>((word >> 48) & 0x7F)};
  const RowNorm norm = {static_cast<int32_t>(static_cast<uint32_t>(word)), width, inverse};
  return norm;
}

inline int layernorm_steps(const isa::Instruction& i) {
  HLS_INLINE
  return (i.rows + 1) * tiles(i.in_channels) + NORM_LAG;
}

inline void layernorm_rows(const isa::Instruction& i, ScratchHalf even, ScratchHalf odd,
                           const WideParameters wide, const NarrowParameters narrow) {
  HLS_NO_INLINE
  const int row_tiles = tiles(i.in_channels);
  const int beats = i.rows * row_tiles;
  const int lag = row_tiles + NORM_LAG;
  const int steps = layernorm_steps(i);
  const int source = word_of(i.src);
  const int destination = word_of(i.dst);
  Half ring_even[NORM_RING];
  HLS_LUTRAM(ring_even)
  Half ring_odd[NORM_RING];
  HLS_LUTRAM(ring_odd)
  uint64_t norms[NORM_ROWS];
  HLS_LUTRAM(norms)
  Moments moments = layernorm_start();
  int read_tile = 0;
  int read_row = 0;
  int write_tile = 0;
  int write_row = 0;
LAYERNORM_STEPS:
  for (int step = 0; step < steps; ++step) {
    // carried: T and Q, an addition each, and counters; source and destination do not overlap
    HLS_PIPELINE
    HLS_INDEPENDENT(even)
    HLS_INDEPENDENT(odd)
    HLS_DISTANCE(ring_even, edge_moe::NORM_LAG)
    HLS_DISTANCE(ring_odd, edge_moe::NORM_LAG)
    HLS_DISTANCE(norms, edge_moe::NORM_LAG)
    HLS_TRIPS(1, edge_moe::SCRATCH_WORDS)
    if (step >= lag) {
      const int from = (step - lag) % NORM_RING;
      const Beat16 x = join_halves(ring_even[from], ring_odd[from]);
      const Beat32 beta = word_to_int32(unpack_word(wide[write_tile]));
      const Beat16 gamma = word_to_int16(unpack_word(narrow[write_tile / 2]), write_tile % 2);
      const Half y = pack(layernorm(x, unpack_norm(norms[write_row % NORM_ROWS], i.in_channels), gamma, beta,
                          i.shift));
      const int to = destination + (write_row >> 1) * row_tiles + write_tile;
      if (write_row % 2 == 0) {
        even[to] = y;
      } else {
        odd[to] = y;
      }
      const bool done = write_tile == row_tiles - 1;
      write_tile = done ? 0 : write_tile + 1;
      write_row += done ? 1 : 0;
    }
    if (step < beats) {
      const Half first = even[source + step];
      const Half second = odd[source + step];
      ring_even[step % NORM_RING] = first;
      ring_odd[step % NORM_RING] = second;
      const int left = i.in_channels - read_tile * LANES;
      const Moments before = read_tile == 0 ? layernorm_start() : moments;
      moments = layernorm_add(before, join_halves(first, second), left < LANES ? left : LANES);
      const bool done = read_tile == row_tiles - 1;
      if (done) {
        norms[read_row % NORM_ROWS] = pack(layernorm_scale(moments, i.in_channels, i.epsilon));
      }
      read_tile = done ? 0 : read_tile + 1;
      read_row += done ? 1 : 0;
    }
  }
  tap::add(steps, tap::NORM_DEPTH);
}

// UPSAMPLE2X: two neighbouring pixels of a line come in one cycle, so the two lines that an output line
// lies between take turns, and two output pixels leave in every cycle: those of column step - 2.
struct Window {
  Half left[2];     // column before `pair`, of both lines
  Half pair[2][2];  // [line][column] of the last two columns
  Half coming[2];   // of the upper line's next two
};

inline int upsample_line_steps(const isa::Instruction& i) {
  HLS_INLINE
  return i.width + 2;
}

inline int upsample_steps(const isa::Instruction& i) {
  HLS_INLINE
  return 2 * i.height * tiles(i.in_channels) * upsample_line_steps(i);
}

// Output pixels 2 x and 2 x + 1 from columns x - 1, x, x + 1 of both lines.
inline void upsample_pair(const Half (&before)[2], const Half (&at)[2], const Half (&behind)[2],
                          int row_weight, Half& first, Half& second) {
  HLS_INLINE
  const Beat8 at0 = unpack(at[0]);
  const Beat8 at1 = unpack(at[1]);
  first = pack(upsample2x(unpack(before[0]), at0, unpack(before[1]), at1, row_weight, 3));
  second = pack(upsample2x(at0, unpack(behind[0]), at1, unpack(behind[1]), row_weight, 1));
}

inline void upsample_rows(const isa::Instruction& i, ScratchHalf even, ScratchHalf odd) {
  HLS_NO_INLINE
  const int row_tiles = tiles(i.in_channels);
  const int steps = upsample_steps(i);
  const int line_steps = upsample_line_steps(i);
  const int source = word_of(i.src);
  const int destination = word_of(i.dst);
  Window window = {};
  int column = 0;
  int tile = 0;
  int line = 0;
UPSAMPLE_STEPS:
  for (int step = 0; step < steps; ++step) {
    // carried: the window, moved or kept, and counters; source and destination do not overlap
    HLS_PIPELINE
    HLS_INDEPENDENT(even)
    HLS_INDEPENDENT(odd)
    HLS_TRIPS(1, 4 * edge_moe::SCRATCH_WORDS)
    const UpsampleTaps rows = upsample2x_taps(line, i.height);
    const bool lower = column % 2 != 0;
    const int pixel = (lower ? rows.upper : rows.lower) * i.width + (column & ~1);
    const Half from_even = even[within_scratch(source + ((pixel + 1) >> 1) * row_tiles + tile)];
    const Half from_odd = odd[within_scratch(source + (pixel >> 1) * row_tiles + tile)];
    const Half one = pixel % 2 == 0 ? from_even : from_odd;
    const Half two = pixel % 2 == 0 ? from_odd : from_even;
    const int x = column - 2;
    // columns x - 1, x, x + 1 of both lines; x is even where only the upper line has been read
    const Half arriving[2] = {window.coming[0], one};
    Half before[2];
    Half at[2];
    Half behind[2];
  WINDOW_LINES:
    for (int j = 0; j < 2; ++j) {
      HLS_UNROLL
      at[j] = lower ? window.pair[j][1] : window.pair[j][0];
      before[j] = x <= 0 ? at[j] : lower ? window.pair[j][0] : window.left[j];
      behind[j] = x == i.width - 1 ? at[j] : lower ? arriving[j] : window.pair[j][1];
    }
    if (x >= 0) {
      Half first;
      Half second;
      upsample_pair(before, at, behind, rows.upper_weight, first, second);
      const int to = destination + (line * i.width + x) * row_tiles + tile;
      even[to] = first;
      odd[to] = second;
    }
    if (lower) {
    WINDOW_MOVE:
      for (int j = 0; j < 2; ++j) {
        HLS_UNROLL
        window.left[j] = window.pair[j][1];
        window.pair[j][0] = arriving[j];
        window.pair[j][1] = j == 0 ? window.coming[1] : two;
      }
    } else {
      window.coming[0] = one;
      window.coming[1] = two;
    }
    const bool line_done = column == line_steps - 1;
    column = line_done ? 0 : column + 1;
    const bool tile_done = line_done && tile == row_tiles - 1;
    tile = tile_done ? 0 : tile + (line_done ? 1 : 0);
    line += tile_done ? 1 : 0;
  }
  tap::add(steps, tap::MOVE_DEPTH);
}

// STORE: int16 rows to the output, each row padded to whole beats of 16 bytes with zeros.
inline int store_steps(const isa::Instruction& i) {
  HLS_INLINE
  return static_cast<int>(store_beats(i));
}

inline void store_rows(const isa::Instruction& i, const ScratchHalf even, const ScratchHalf odd,
                       BeatChannel& results) {
  HLS_NO_INLINE
  constexpr int BEATS = SCRATCH_WORD_BYTES / PORT_BYTES;  // of a word
  constexpr int CHANNELS = PORT_BYTES / 2;
  const int row_tiles = tiles(i.in_channels);
  const int row_beats = (i.in_channels + CHANNELS - 1) / CHANNELS;
  const int steps = store_steps(i);
  int row_word = word_of(i.src);
  int beat = 0;
STORE_STEPS:
  for (int step = 0; step < steps; ++step) {
    // carried: an address and a count
    HLS_PIPELINE
    HLS_TRIPS(1, 4 * edge_moe::SCRATCH_WORDS)
    const int word = row_word + beat / BEATS;
    const Beat16 x = join_halves(even[word], odd[word]);
    PortBeat out = zero_beat();
  STORE_CHANNELS:
    for (int j = 0; j < CHANNELS; ++j) {
      HLS_UNROLL
      const bool real = beat * CHANNELS + j < i.in_channels;
      const int16_t value = real ? x.lane[(beat % BEATS) * CHANNELS + j] : static_cast<int16_t>(0);
      set_byte(out, 2 * j, static_cast<uint8_t>(value & 0xFF));
      set_byte(out, 2 * j + 1, static_cast<uint8_t>(static_cast<uint16_t>(value) >> 8));
    }
    results.write(out);
    const bool done = beat == row_beats - 1;
    beat = done ? 0 : beat + 1;
    row_word += done ? row_tiles : 0;
  }
  tap::add(steps, tap::MOVE_DEPTH);
}

}  // namespace edge_moe

#endif
