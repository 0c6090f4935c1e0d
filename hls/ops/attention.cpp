// SPDX-License-Identifier: Apache-2.0
// Unit-synthesis top; the accelerator schedules this, in another order, in executor/attention.hpp.
// Attention with K and V held in the compute unit, block by block, while all queries pass through.
// SPEC.md, section 4.
#include "edge_moe/operators/attention.hpp"
#include "rows.hpp"

using namespace edge_moe;

constexpr int HEAD_TILES = (config::max_head_dim + LANES - 1) / LANES;
constexpr int MAX_PAIRS = ops::MAX_TOKENS / ops::PAIR;
constexpr int MAX_HEADS_WIDTH = config::max_heads * HEAD_TILES * LANES;

namespace {

// For the queries of one head, query r at [r % 2][r / 2]: the state between blocks of keys, and the
// numerators and rescale of the present block.
typedef SoftmaxState States[ops::PAIR][MAX_PAIRS];
typedef int32_t Averages[HEAD_TILES][ops::PAIR][MAX_PAIRS][LANES];
typedef int8_t Numerators[ops::PAIR][MAX_PAIRS][LANES];
typedef uint8_t Rescales[ops::PAIR][MAX_PAIRS];

// The present head's channels in qkv [rows][3][tiles of all heads][32].
struct Head {
  int model_tiles;  // of all heads
  int first;        // its first tile
  int tiles;
};

// Slice `tile` of a head's q (part 0), k (1) or v (2); zeros from row `rows` on.
Slice8 head_slice(const int8_t* qkv, const Head& head, int row, int rows, int part, int tile) {
  HLS_INLINE
  return ops::row_slice(qkv, row, rows, 3 * head.model_tiles, part * head.model_tiles + head.first + tile);
}

void start_queries(States state, Averages average, int rows) {
START:
  for (int row = 0; row < rows + rows % ops::PAIR; ++row) {
    HLS_PIPELINE
    HLS_TRIPS(1, ops::MAX_TOKENS)
    state[row % ops::PAIR][row / ops::PAIR] = softmax_start();
  START_TILES:
    for (int tile = 0; tile < HEAD_TILES; ++tile) {
      HLS_UNROLL
      store(average[tile][row % ops::PAIR][row / ops::PAIR], fill(static_cast<int32_t>(0)));
    }
  }
}

// Dot products of every query with the keys from first_key to last_key - 1.
void dot_products(ops::Accumulators dot, const int8_t* qkv, const Head& head, int rows, int first_key,
                  int last_key) {
  WeightTile tile = {};
  HLS_REGISTERS(tile.weight)
  ops::start_accumulators(dot, fill(static_cast<int32_t>(0)), rows);
DOT_TILES:
  for (int t = 0; t < head.tiles; ++t) {
    HLS_TRIPS(1, HEAD_TILES)
    HLS_NO_FLATTEN
  LOAD_KEYS:
    for (int j = 0; j < config::key_block; ++j) {
      HLS_PIPELINE
      weight_tile_row(tile, j, head_slice(qkv, head, first_key + j, last_key, 1, t));
    }
  DOT_ROWS:
    for (int row = 0; row < rows; row += ops::PAIR) {
      // each iteration has accumulators of its own, and the pipeline drains before the next tile
      HLS_PIPELINE
      HLS_INDEPENDENT(dot)
      HLS_TRIPS(1, MAX_PAIRS)
      ops::accumulate_pair(dot, tile, row, head_slice(qkv, head, row, rows, 0, t),
                           head_slice(qkv, head, row + 1, rows, 0, t));
    }
  }
}

void softmax_rows(States state, Numerators numerator, Rescales rescale, const ops::Accumulators dot, int rows,
                  int keys, int16_t m, int n) {
SOFTMAX_ROWS:
  for (int row = 0; row < rows; ++row) {
    // a row's state is read and written once in this loop
    HLS_PIPELINE
    HLS_INDEPENDENT(state)
    HLS_TRIPS(1, ops::MAX_TOKENS)
    const int token = row % ops::PAIR;
    const int pair = row / ops::PAIR;
    const Slice16 logits = attention_logits(ops::accumulator(dot, row), m, n);
    const SoftmaxBlock block = softmax_block(logits, keys, state[token][pair]);
    store(numerator[token][pair], block.numerator);
    rescale[token][pair] = block.rescale;
  }
}

// Numerators times the values of one block, added to the averages.
void add_values(Averages average, const Numerators numerator, const Rescales rescale, const int8_t* qkv,
                const Head& head, int rows, int first_key, int last_key) {
  WeightTile tile = {};
  HLS_REGISTERS(tile.weight)
VALUE_TILES:
  for (int t = 0; t < head.tiles; ++t) {
    HLS_TRIPS(1, HEAD_TILES)
    HLS_NO_FLATTEN
  LOAD_VALUES:
    for (int j = 0; j < config::key_block; ++j) {
      HLS_PIPELINE
      weight_tile_column(tile, j, head_slice(qkv, head, first_key + j, last_key, 2, t));
    }
  VALUE_ROWS:
    for (int row = 0; row < rows; row += ops::PAIR) {
      // each iteration has averages of its own, and the pipeline drains before the next tile
      HLS_PIPELINE
      HLS_INDEPENDENT(average)
      HLS_TRIPS(1, MAX_PAIRS)
      const int pair = row / ops::PAIR;
      Slice32 y0 = {};
      Slice32 y1 = {};
      HLS_LANES(y0)
      HLS_LANES(y1)
      compute_unit(tile, load(numerator[0][pair]), load(numerator[1][pair]), y0, y1);
      store(average[t][0][pair], attention_accumulate(load(average[t][0][pair]), rescale[0][pair], y0));
      store(average[t][1][pair], attention_accumulate(load(average[t][1][pair]), rescale[1][pair], y1));
    }
  }
}

void write_head(int8_t* out, const States state, const Averages average, const int16_t* m, const Head& head,
                int rows, int n) {
WRITE_ROWS:
  for (int row = 0; row < rows; ++row) {
    HLS_TRIPS(1, ops::MAX_TOKENS)
    const Inverse inverse = softmax_inverse(state[row % ops::PAIR][row / ops::PAIR]);
  WRITE_TILES:
    for (int t = 0; t < head.tiles; ++t) {
      HLS_PIPELINE
      HLS_TRIPS(1, HEAD_TILES)
      const Slice32 sum = load(average[t][row % ops::PAIR][row / ops::PAIR]);
      store(out + (row * head.model_tiles + head.first + t) * LANES,
            attention_output(sum, inverse, load(m + (head.first + t) * LANES), n));
    }
  }
}

}  // namespace

// qkv int8 [rows][3][heads][head_dim], head_dim a multiple of 32, to out int8 [rows][heads][head_dim].
extern "C" void attention(const int8_t qkv[ops::MAX_TOKENS * 3 * MAX_HEADS_WIDTH],
                          const int16_t logit_multiplier[config::max_heads],
                          const int16_t out_multiplier[MAX_HEADS_WIDTH],
                          int8_t out[ops::MAX_TOKENS * MAX_HEADS_WIDTH], int rows, int heads, int head_dim,
                          int logit_shift, int out_shift) {
  HLS_RESHAPE(qkv, edge_moe::LANES)
  HLS_RESHAPE(out_multiplier, edge_moe::LANES)
  HLS_RESHAPE(out, edge_moe::LANES)
  ops::Accumulators dot = {};
  HLS_PARTITION(dot, 1)
  HLS_RESHAPE_DIM(dot, 3)
  States state = {};
  HLS_PARTITION(state, 1)
  Averages average = {};
  HLS_PARTITION(average, 2)
  HLS_RESHAPE_DIM(average, 4)
  Numerators numerator = {};
  HLS_PARTITION(numerator, 1)
  HLS_RESHAPE_DIM(numerator, 3)
  Rescales rescale = {};
  HLS_PARTITION(rescale, 1)
  const int tiles = head_dim / LANES;
HEADS:
  for (int index = 0; index < heads; ++index) {
    HLS_TRIPS(1, config::max_heads)
    const Head head = {heads * tiles, index * tiles, tiles};
    start_queries(state, average, rows);
  KEY_BLOCKS:
    for (int first_key = 0; first_key < rows; first_key += config::key_block) {
      HLS_TRIPS(1, (config::max_tokens + config::key_block - 1) / config::key_block)
      const int left = rows - first_key;
      const int keys = left < config::key_block ? left : config::key_block;
      dot_products(dot, qkv, head, rows, first_key, first_key + keys);
      softmax_rows(state, numerator, rescale, dot, rows, keys, logit_multiplier[index], logit_shift);
      add_values(average, numerator, rescale, qkv, head, rows, first_key, first_key + keys);
    }
    write_head(out, state, average, out_multiplier, head, rows, out_shift);
  }
}
