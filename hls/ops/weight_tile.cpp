// SPDX-License-Identifier: Apache-2.0
// Bit planes of tiles to int8 weights, and words of parameters. SPEC.md, section 9.
#include "edge_moe/operators/weight_tile.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int TILES = 64;  // of one call
constexpr int TILE_WEIGHTS = config::tile_in * config::tile_out;

static Word read_word(const uint8_t* from) {
  HLS_INLINE
  Word word = {};
  HLS_REGISTERS(word.byte)
READ_WORD:
  for (int i = 0; i < WORD_BYTES; ++i) {
    HLS_UNROLL
    word.byte[i] = from[i];
  }
  return word;
}

// out[tile][32 out + in] from `planes` words for each tile.
extern "C" void weight_tile(const uint8_t words[TILES * 8 * WORD_BYTES], int8_t out[TILES * TILE_WEIGHTS],
                            int tiles, int planes) {
  HLS_RESHAPE(words, edge_moe::WORD_BYTES)
  HLS_RESHAPE(out, edge_moe::LANES)
  WeightTile tile = {};
  HLS_REGISTERS(tile.weight)
TILES_LOOP:
  for (int t = 0; t < tiles; ++t) {
    HLS_TRIPS(1, TILES)
  PLANES:
    for (int plane = 0; plane < planes; ++plane) {
      // carried: each bit of the tile is a register that is written once
      HLS_PIPELINE
      HLS_TRIPS(2, 8)
      weight_tile_plane(tile, read_word(words + (t * planes + plane) * WORD_BYTES), plane, planes);
    }
  TILE_ROWS:
    for (int row = 0; row < config::tile_out; ++row) {
      HLS_PIPELINE
      store(out + t * TILE_WEIGHTS + row * LANES, load(tile.weight[row]));
    }
  }
}

// A word as 32 biases, and as the multipliers of two tiles.
extern "C" void parameter_word(const uint8_t word[WORD_BYTES], int32_t wide[LANES],
                               int16_t narrow[2 * LANES]) {
  const Word from = read_word(word);
  store(wide, word_to_int32(from));
  store(narrow, word_to_int16(from, 0));
  store(narrow + LANES, word_to_int16(from, 1));
}
