// SPDX-License-Identifier: Apache-2.0
// Slices and planes as stored in the memories on chip. In synthesis each is one ap_uint, which fixes its
// layout; in C simulation it is the slice or the plane itself.
#ifndef EDGE_MOE_SHELL_STORAGE_HPP
#define EDGE_MOE_SHELL_STORAGE_HPP

#include "edge_moe/types.hpp"

namespace edge_moe {

#ifdef EDGE_MOE_EXACT_WIDTHS

typedef ap_uint<8 * LANES> Half;               // a Slice8
typedef ap_uint<16 * LANES> StoredSlice16;     // a Slice16
typedef ap_uint<32 * LANES> StoredSlice32;     // a Slice32
typedef ap_uint<8 * PLANE_BYTES> StoredPlane;  // a Plane

inline Half pack(const Slice8& slice) {
  HLS_INLINE
  Half stored = 0;
PACK8:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    stored.range(8 * i + 7, 8 * i) = static_cast<uint8_t>(slice.lane[i]);
  }
  return stored;
}

inline Slice8 unpack(const Half& stored) {
  HLS_INLINE
  Slice8 slice;
  HLS_LANES(slice)
UNPACK8:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    slice.lane[i] = static_cast<int8_t>(static_cast<uint32_t>(stored.range(8 * i + 7, 8 * i)));
  }
  return slice;
}

inline StoredSlice16 pack(const Slice16& slice) {
  HLS_INLINE
  StoredSlice16 stored = 0;
PACK16:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    stored.range(16 * i + 15, 16 * i) = static_cast<uint16_t>(slice.lane[i]);
  }
  return stored;
}

inline Slice16 unpack16(const StoredSlice16& stored) {
  HLS_INLINE
  Slice16 slice;
  HLS_LANES(slice)
UNPACK16:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    slice.lane[i] = static_cast<int16_t>(static_cast<uint32_t>(stored.range(16 * i + 15, 16 * i)));
  }
  return slice;
}

inline StoredSlice32 pack(const Slice32& slice) {
  HLS_INLINE
  StoredSlice32 stored = 0;
PACK32:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    stored.range(32 * i + 31, 32 * i) = static_cast<uint32_t>(slice.lane[i]);
  }
  return stored;
}

inline Slice32 unpack32(const StoredSlice32& stored) {
  HLS_INLINE
  Slice32 slice;
  HLS_LANES(slice)
UNPACK32:
  for (int i = 0; i < LANES; ++i) {
    HLS_UNROLL
    slice.lane[i] = static_cast<int32_t>(static_cast<uint32_t>(stored.range(32 * i + 31, 32 * i)));
  }
  return slice;
}

inline StoredPlane pack(const Plane& from) {
  HLS_INLINE
  StoredPlane stored = 0;
PACK_PLANE:
  for (int i = 0; i < PLANE_BYTES; ++i) {
    HLS_UNROLL
    stored.range(8 * i + 7, 8 * i) = from.byte[i];
  }
  return stored;
}

inline Plane unpack_plane(const StoredPlane& from) {
  HLS_INLINE
  Plane stored;
  HLS_REGISTERS(stored.byte)
UNPACK_PLANE:
  for (int i = 0; i < PLANE_BYTES; ++i) {
    HLS_UNROLL
    stored.byte[i] = static_cast<uint8_t>(static_cast<uint32_t>(from.range(8 * i + 7, 8 * i)));
  }
  return stored;
}

#else

typedef Slice8 Half;
typedef Slice16 StoredSlice16;
typedef Slice32 StoredSlice32;
typedef Plane StoredPlane;

inline const Half& pack(const Slice8& slice) { return slice; }
inline const Slice8& unpack(const Half& stored) { return stored; }
inline const StoredSlice16& pack(const Slice16& slice) { return slice; }
inline const Slice16& unpack16(const StoredSlice16& stored) { return stored; }
inline const StoredSlice32& pack(const Slice32& slice) { return slice; }
inline const Slice32& unpack32(const StoredSlice32& stored) { return stored; }
inline const StoredPlane& pack(const Plane& stored) { return stored; }
inline const Plane& unpack_plane(const StoredPlane& stored) { return stored; }

#endif

}  // namespace edge_moe

#endif
