// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis tops; the accelerator schedules this in executor/compute/load_tile.hpp.
// Bit planes of tiles to int8 weights, and planes of parameters. SPEC.md, section 9.
#include "edge_moe/operators/weight_tile.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int TILES = 64;  // per call
constexpr int TILE_WEIGHTS = config::tile_in * config::tile_out;

static Plane read_plane(const uint8_t* from) {
  HLS_INLINE
  Plane plane = {};
  HLS_REGISTERS(plane.byte)
READ_PLANE:
  for (int i = 0; i < PLANE_BYTES; ++i) {
    HLS_UNROLL
    plane.byte[i] = from[i];
  }
  return plane;
}

// out[tile][32 out + in] from `bits` planes for each tile.
extern "C" void weight_tile(const uint8_t planes[TILES * 8 * PLANE_BYTES], int8_t out[TILES * TILE_WEIGHTS],
                            int tiles, int bits) {
  HLS_RESHAPE(planes, edge_moe::PLANE_BYTES)
  HLS_RESHAPE(out, edge_moe::LANES)
  WeightTile tile = {};
  HLS_REGISTERS(tile.weight)
TILES_LOOP:
  for (int t = 0; t < tiles; ++t) {
    HLS_TRIPS(1, TILES)
  PLANES:
    for (int bit = 0; bit < bits; ++bit) {
      // carried: each bit of the tile is a register that is written once
      HLS_PIPELINE
      HLS_TRIPS(2, 8)
      weight_tile_plane(tile, read_plane(planes + (t * bits + bit) * PLANE_BYTES), bit, bits);
    }
  TILE_ROWS:
    for (int row = 0; row < config::tile_out; ++row) {
      HLS_PIPELINE
      store(out + t * TILE_WEIGHTS + row * LANES, load(tile.weight[row]));
    }
  }
}

// A plane as 32 biases, and as the multipliers of two tiles.
extern "C" void parameter_plane(const uint8_t plane[PLANE_BYTES], int32_t wide[LANES],
                                int16_t narrow[2 * LANES]) {
  const Plane from = read_plane(plane);
  store(wide, plane_to_int32(from));
  store(narrow, plane_to_int16(from, 0));
  store(narrow + LANES, plane_to_int16(from, 1));
}
