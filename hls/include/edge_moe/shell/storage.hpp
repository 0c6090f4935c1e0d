// SPDX-License-Identifier: Apache-2.0
// Slices and planes as the memories on chip store them. In synthesis each is one ap_uint, so that its layout is
// certain; in C simulation it is the slice or the plane itself.
#ifndef EDGE_MOE_SHELL_STORAGE_HPP
#define EDGE_MOE_SHELL_STORAGE_HPP

#include "edge_moe/types.hpp"

namespace edge_moe {

#ifdef EDGE_MOE_EXACT_WIDTHS

typedef ap_uint<8 * LANES> Half;       // a Beat8
typedef ap_uint<16 * LANES> NarrowWord;  // a Beat16
typedef ap_uint<32 * LANES> WideWord;  // a Beat32
typedef ap_uint<8 * WORD_BYTES> StoredWord;  // a Word

inline Half pack(const Beat8& beat) {
  HLS_INLINE
  Half word = 0;
PACK8:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    word.range(8 * i + 7, 8 * i) = static_cast<uint8_t>(beat.lane[i]);
  }
  return word;
}

inline Beat8 unpack(const Half& word) {
  HLS_INLINE
  Beat8 beat;
  HLS_LANES(beat)
UNPACK8:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    beat.lane[i] = static_cast<int8_t>(static_cast<uint32_t>(word.range(8 * i + 7, 8 * i)));
  }
  return beat;
}

inline NarrowWord pack(const Beat16& beat) {
  HLS_INLINE
  NarrowWord word = 0;
PACK16:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    word.range(16 * i + 15, 16 * i) = static_cast<uint16_t>(beat.lane[i]);
  }
  return word;
}

inline Beat16 unpack16(const NarrowWord& word) {
  HLS_INLINE
  Beat16 beat;
  HLS_LANES(beat)
UNPACK16:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    beat.lane[i] = static_cast<int16_t>(static_cast<uint32_t>(word.range(16 * i + 15, 16 * i)));
  }
  return beat;
}

inline WideWord pack(const Beat32& beat) {
  HLS_INLINE
  WideWord word = 0;
PACK32:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    word.range(32 * i + 31, 32 * i) = static_cast<uint32_t>(beat.lane[i]);
  }
  return word;
}

inline Beat32 unpack32(const WideWord& word) {
  HLS_INLINE
  Beat32 beat;
  HLS_LANES(beat)
UNPACK32:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    beat.lane[i] = static_cast<int32_t>(static_cast<uint32_t>(word.range(32 * i + 31, 32 * i)));
  }
  return beat;
}

inline StoredWord pack(const Word& from) {
  HLS_INLINE
  StoredWord word = 0;
PACK_WORD:
  for (int i = 0; i < WORD_BYTES; ++i) {
    HLS_UNROLL
    word.range(8 * i + 7, 8 * i) = from.byte[i];
  }
  return word;
}

inline Word unpack_word(const StoredWord& from) {
  HLS_INLINE
  Word word;
  HLS_REGISTERS(word.byte)
UNPACK_WORD:
  for (int i = 0; i < WORD_BYTES; ++i) {
    HLS_UNROLL
    word.byte[i] = static_cast<uint8_t>(static_cast<uint32_t>(from.range(8 * i + 7, 8 * i)));
  }
  return word;
}

#else

typedef Beat8 Half;
typedef Beat16 NarrowWord;
typedef Beat32 WideWord;
typedef Word StoredWord;

inline const Half& pack(const Beat8& beat) { return beat; }
inline const Beat8& unpack(const Half& word) { return word; }
inline const NarrowWord& pack(const Beat16& beat) { return beat; }
inline const Beat16& unpack16(const NarrowWord& word) { return word; }
inline const WideWord& pack(const Beat32& beat) { return beat; }
inline const Beat32& unpack32(const WideWord& word) { return word; }
inline const StoredWord& pack(const Word& word) { return word; }
inline const Word& unpack_word(const StoredWord& word) { return word; }

#endif

}  // namespace edge_moe

#endif
