// SPDX-License-Identifier: Apache-2.0
// PATCHES: the image, a stream of transfers, to int8 rows of one patch each. SPEC.md, section 8.
//
// A band is the p lines of one row of patches. While the next band is read, the last one is written: up to 16
// bytes per cycle that are adjacent both in the image and in the patch's row. Two bands are kept.
#ifndef EDGE_MOE_EXECUTOR_PATCHES_HPP
#define EDGE_MOE_EXECUTOR_PATCHES_HPP

#include "edge_moe/csim/tap.hpp"
#include "edge_moe/operators/patch_embedding.hpp"
#include "edge_moe/shell/accelerator.hpp"
#include "edge_moe/shell/scratch.hpp"

namespace edge_moe {

// A band need not start or end with a transfer: it may need one more. Even and odd transfers are stored
// separately, so that two neighbours are read in one cycle.
typedef Transfer Bands[2][2][BAND_PAIRS];  // [band][even or odd][transfer / 2]

// Sizes that follow from one PATCHES instruction, in bytes unless stated otherwise.
struct PatchShape {
  int segment;     // of one line of one patch
  int patch_size;  // lines
  int line;        // of the image
  int band;        // of a row of patches
  int across;      // patches in a band
  int bands;
  int row_tiles;
};

inline PatchShape patch_shape(const isa::Instruction& i) {
  HLS_INLINE
  const int segment = COLOURS * i.patch;
  const int line = COLOURS * i.width;
  const PatchShape result = {segment, i.patch, line, line * i.patch, i.width / i.patch, i.height / i.patch,
                             tiles(i.out_channels)};
  return result;
}

// Moves that assemble a patch's row, from the segments of its lines into slices of 32 bytes: none crosses
// a segment's end, a slice's end, or 16 bytes. They are the same for every patch, so they are found once.
struct Move {
  uint8_t bytes;
  uint8_t line;        // of the patch
  uint8_t in_segment;  // first byte
  uint8_t in_slice;    // first byte
  uint8_t tile;        // slice of the row
  bool completes;      // the slice
};

static_assert(MAX_SEGMENT < 256 && config::max_patch_size * MAX_SEGMENT <= 256 * LANES,
              "a move's fields are bytes");

// The moves of a patch; returns their number.
inline int plan_moves(const PatchShape& shape, Move (&moves)[MAX_MOVES]) {
  HLS_NO_INLINE
  int count = 0;
  int line = 0;
  int in_segment = 0;
  int in_slice = 0;
  int tile = 0;
PLAN_MOVES:
  while (line < shape.patch_size) {
    HLS_TRIPS(1, edge_moe::MAX_MOVES)
    const int to_segment = shape.segment - in_segment;
    const int to_slice = LANES - in_slice;
    const int to_end = to_segment < to_slice ? to_segment : to_slice;
    const int bytes = to_end < PORT_BYTES ? to_end : PORT_BYTES;
    const bool segment_done = bytes == to_segment;
    const bool patch_done = segment_done && line == shape.patch_size - 1;
    const bool completes = bytes == to_slice || patch_done;
    Move move = {};
    move.bytes = static_cast<uint8_t>(bytes);
    move.line = static_cast<uint8_t>(line);
    move.in_segment = static_cast<uint8_t>(in_segment);
    move.in_slice = static_cast<uint8_t>(in_slice);
    move.tile = static_cast<uint8_t>(tile);
    move.completes = completes;
    moves[count] = move;
    ++count;
    in_segment = segment_done ? 0 : in_segment + bytes;
    in_slice = completes ? 0 : in_slice + bytes;
    tile += completes ? 1 : 0;
    line += segment_done ? 1 : 0;
  }
  tap::add(4 * count, MOVE_DEPTH);
  return count;
}

// Transfers that hold bytes [start, start + length), counted from the one that holds `start`.
inline int transfers_from(int start, int length) {
  HLS_INLINE
  return (start % PORT_BYTES + length + PORT_BYTES - 1) / PORT_BYTES;
}

// Steps of one band: the larger number of the next band's transfers and this band's moves.
inline int band_steps(const PatchShape& shape, int moves) {
  HLS_INLINE
  const int transfers = transfers_from(PORT_BYTES - 1, shape.band);
  const int all_moves = moves * shape.across;
  return transfers > all_moves ? transfers : all_moves;
}

inline int patches_steps(const PatchShape& shape, int moves) {
  HLS_INLINE
  return (shape.bands + 1) * band_steps(shape, moves);
}

// 16 bytes from byte `at` of a band on.
inline void band_bytes(const Bands& bands, int side, int at, uint8_t (&bytes)[PORT_BYTES]) {
  HLS_INLINE
  const int transfer = at / PORT_BYTES;
  const Transfer even = bands[side][0][(transfer + 1) / 2];
  const Transfer odd = bands[side][1][transfer / 2];
  const Transfer first = transfer % 2 == 0 ? even : odd;
  const Transfer second = transfer % 2 == 0 ? odd : even;
BAND_BYTES:
  for (int j = 0; j < PORT_BYTES; ++j) {
    HLS_UNROLL
    const int place = at % PORT_BYTES + j;
    bytes[j] = place < PORT_BYTES ? get_byte(first, place) : get_byte(second, place - PORT_BYTES);
  }
}

inline void patch_rows(const isa::Instruction& i, TransferChannel& pixels, ScratchHalf even,
                       ScratchHalf odd) {
  HLS_NO_INLINE
  const PatchShape shape = patch_shape(i);
  Move moves[MAX_MOVES];
  const int move_count = plan_moves(shape, moves);
  const int steps = band_steps(shape, move_count);
  const int destination = beat_of(i.dst);
  Bands bands;
  HLS_PARTITION(bands, 1)
  HLS_PARTITION(bands, 2)
  Transfer shared = zero_transfer();  // the last transfer, which the next band may start in
  int row = 0;
  int start = 0;  // bytes of the arriving band's first transfer that belong to the previous band
PATCH_BANDS:
  for (int b = 0; b <= shape.bands; ++b) {
    HLS_TRIPS(2, edge_moe::config::max_image_height + 1)
    const int side = b % 2;
    // start of the previous band, which is being written, from its length and this band's start
    const int leaving_start = (start + PORT_BYTES - shape.band % PORT_BYTES) % PORT_BYTES;
    const int transfers = b < shape.bands ? transfers_from(start, shape.band) : 0;
    int patch = b > 0 ? 0 : shape.across;  // across the band
    int number = 0;                        // of the move
    uint8_t slice[LANES] = {};
    HLS_REGISTERS(slice)
  PATCH_STEPS:
    for (int step = 0; step < steps; ++step) {
      // carried: the slice that is being filled and counters; one band is written, the other read, and the
      // pipeline drains before they swap
      HLS_PIPELINE
      HLS_NO_FLATTEN
      HLS_INDEPENDENT(bands)
      HLS_TRIPS(1, edge_moe::BAND_TRANSFERS)
      if (step < transfers) {
        // a band that starts within a transfer uses that transfer again
        const bool again = step == 0 && start > 0;
        shared = again ? shared : pixels.read();
        bands[side][step % 2][step / 2] = shared;
      }
      if (patch < shape.across) {
        const Move move = moves[number];
        const int from = leaving_start + move.line * shape.line + patch * shape.segment + move.in_segment;
        uint8_t bytes[PORT_BYTES] = {};
        HLS_REGISTERS(bytes)
        band_bytes(bands, 1 - side, from, bytes);
        Slice8 out;
        HLS_LANES(out)
      FILL_SLICE:
        for (int j = 0; j < LANES; ++j) {
          HLS_UNROLL
          const int offset = j - move.in_slice;
          const bool moved = offset >= 0 && offset < move.bytes;
          // bytes after a patch's last one are 0
          const uint8_t kept = move.in_slice == 0 ? static_cast<uint8_t>(0) : slice[j];
          slice[j] = moved ? static_cast<uint8_t>(patch_pixel(bytes[moved ? offset : 0])) : kept;
          out.lane[j] = static_cast<int8_t>(slice[j]);
        }
        if (move.completes) {
          const int to = destination + (row >> 1) * shape.row_tiles + move.tile;
          if (row % 2 == 0) {
            even[to] = pack(out);
          } else {
            odd[to] = pack(out);
          }
        }
        const bool patch_done = number == move_count - 1;
        number = patch_done ? 0 : number + 1;
        patch += patch_done ? 1 : 0;
        row += patch_done ? 1 : 0;
      }
    }
    start = (start + shape.band) % PORT_BYTES;
  }
  tap::add(patches_steps(shape, move_count), (shape.bands + 1) * MOVE_DEPTH);
}

}  // namespace edge_moe

#endif
