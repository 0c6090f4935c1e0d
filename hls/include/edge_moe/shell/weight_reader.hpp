// SPDX-License-Identifier: Apache-2.0
// The weight reader: blocks of the weight image through three ports into the weight FIFO, in the order of
// use. SPEC.md, section 9.
//
//   blocks ─► plan_bursts ─► bursts 0..2 ─► read_bursts ×3 ─► words 0..2 ─► merge_words ─► weights
//                   └──────────── lengths ───────────────────────────────────────┘
//
// It is told of a block as soon as the program has been read that far, and stops for nothing but a full FIFO.
// Where it comes to an expert before the routing is known, it reads it; if there turn out to be no tokens,
// execute drops the words. To wait for the gate instead would end the reading ahead where it is needed most.
#ifndef EDGE_MOE_SHELL_WEIGHT_READER_HPP
#define EDGE_MOE_SHELL_WEIGHT_READER_HPP

#include "edge_moe/shell/accelerator.hpp"

namespace edge_moe {

// Blocks into bursts; burst n goes to port n mod 3.
inline void plan_bursts(BlockChannel& blocks, BlockChannel& bursts0, BlockChannel& bursts1,
                        BlockChannel& bursts2, LengthChannel& lengths) {
  HLS_NO_INLINE
  int port = 0;
  Block left = {0, 0};
  bool more = true;
PLAN_BURSTS:
  while (more) {
    // carried: an address, a count and the port; a burst goes on its way though no other block is known
    HLS_PIPELINE_FLUSHING
    if (left.words == 0) {
      left = blocks.read();
      more = left.words != 0;
    }
    const uint32_t words = left.words < static_cast<uint32_t>(BURST_WORDS) ? left.words : BURST_WORDS;
    const Block burst = {left.first, words};
    if (port == 0 || !more) {
      bursts0.write(burst);
    }
    if (port == 1 || !more) {
      bursts1.write(burst);
    }
    if (port == 2 || !more) {
      bursts2.write(burst);
    }
    lengths.write(words);
    left.first += words;
    left.words -= words;
    port = port == WEIGHT_PORTS - 1 ? 0 : port + 1;
  }
}

// One port: up to BURSTS_AHEAD bursts are asked for before the oldest one's data are taken. While a burst's
// data are outstanding it never waits for another burst to be planned.
inline void read_bursts(BurstPort memory, BlockChannel& bursts, PortChannel& words) {
  HLS_NO_INLINE
  uint32_t lengths[BURSTS_AHEAD] = {};
  HLS_REGISTERS(lengths)
  int open = 0;
  int oldest = 0;
  bool more = true;
READ_BURSTS:
  while (more || open > 0) {
    const bool ask = more && open < BURSTS_AHEAD && (open == 0 || !bursts.empty());
    if (ask) {
      const Block burst = bursts.read();
      more = burst.words != 0;
      if (more) {
        memory.read_request(static_cast<std::size_t>(burst.first) * BEATS_OF_WORD,
                            burst.words * BEATS_OF_WORD);
        const int place = oldest + open;
        lengths[place < BURSTS_AHEAD ? place : place - BURSTS_AHEAD] = burst.words;
        ++open;
      }
    } else {
      Word word = {};
      HLS_REGISTERS(word.byte)
      const int beats = static_cast<int>(lengths[oldest]) * BEATS_OF_WORD;
    READ_BEATS:
      for (int i = 0; i < beats; ++i) {
        // carried: the word that is being filled, each byte written once
        HLS_PIPELINE
        HLS_TRIPS(8, edge_moe::BURST_BEATS)
        const int place = i % BEATS_OF_WORD;
        const PortBeat beat = memory.read();
      BEAT_BYTES:
        for (int j = 0; j < PORT_BYTES; ++j) {
          HLS_UNROLL
          word.byte[place * PORT_BYTES + j] = get_byte(beat, j);
        }
        if (place == BEATS_OF_WORD - 1) {
          words.write(word);
        }
      }
      oldest = oldest == BURSTS_AHEAD - 1 ? 0 : oldest + 1;
      --open;
    }
  }
}

// The ports' words in the order of the blocks.
inline void merge_words(LengthChannel& lengths, PortChannel& words0, PortChannel& words1, PortChannel& words2,
                        WeightChannel& weights) {
  HLS_NO_INLINE
  int port = 0;
  uint32_t left = 0;
  bool more = true;
MERGE_WORDS:
  while (more) {
    // carried: a count and the port; a word goes on its way though no other burst is planned
    HLS_PIPELINE_FLUSHING
    if (left == 0) {
      left = lengths.read();
      more = left != 0;
    }
    if (more) {
      weights.write(port == 0 ? words0.read() : port == 1 ? words1.read() : words2.read());
      --left;
    }
    if (left == 0) {
      port = port == WEIGHT_PORTS - 1 ? 0 : port + 1;
    }
  }
}

}  // namespace edge_moe

#endif
