// SPDX-License-Identifier: Apache-2.0
// All that belongs to Vitis HLS alone: its pragmas by name, its streams. Nothing elsewhere says
// `#pragma HLS`. Where __SYNTHESIS__ is not defined every macro is empty, so that g++ and other HLS
// compilers see plain C++.
//
// What each relies on (UG1399, from 2022.2 on):
// HLS_INLINE            the function has no hierarchy of its own: its loops and operators are scheduled
//                       with the caller's.
// HLS_UNROLL            all iterations of a loop of constant bound exist side by side.
// HLS_PIPELINE          a new iteration starts every cycle (II = 1); loops inside are unrolled. Where the
//                       tool cannot reach it, it says so in the report: II is a wish, so each use says why
//                       nothing stands against it.
// HLS_NO_FLATTEN        the loop's pipeline drains before the surrounding loop goes on.
// HLS_LANES(x)          the array `lane` of the structure x becomes registers.
// HLS_REGISTERS(x)      the array x becomes registers in all its dimensions.
// HLS_PARTITION(x, d)   dimension d of x becomes separate memories or registers.
// HLS_RESHAPE(x, n)     n neighbouring elements of x become one word of memory.
// HLS_RESHAPE_DIM(x, d) dimension d of x becomes one word of memory.
// HLS_INDEPENDENT(x)    no iteration of this loop reads from x what another one writes.
// HLS_TRIPS(least, most) for reports alone: iterations of a loop whose bound is an argument.
//
// Nothing is asked for tables: a constant array that many lanes read becomes as many memories with two read
// ports as they need (rom_np).
#ifndef EDGE_MOE_VENDOR_HPP
#define EDGE_MOE_VENDOR_HPP

#ifdef __SYNTHESIS__
#include <hls_stream.h>
#define HLS_PRAGMA(text) _Pragma(#text)
#else
#define HLS_PRAGMA(text)
#endif

#define HLS_INLINE HLS_PRAGMA(HLS inline)
#define HLS_UNROLL HLS_PRAGMA(HLS unroll)
#define HLS_PIPELINE HLS_PRAGMA(HLS pipeline II = 1)
#define HLS_NO_FLATTEN HLS_PRAGMA(HLS loop_flatten off)
#define HLS_LANES(x) HLS_PRAGMA(HLS array_partition variable = x.lane type = complete)
#define HLS_REGISTERS(x) HLS_PRAGMA(HLS array_partition variable = x type = complete dim = 0)
#define HLS_PARTITION(x, d) HLS_PRAGMA(HLS array_partition variable = x type = complete dim = d)
#define HLS_RESHAPE(x, n) HLS_PRAGMA(HLS array_reshape variable = x type = cyclic factor = n)
#define HLS_RESHAPE_DIM(x, d) HLS_PRAGMA(HLS array_reshape variable = x type = complete dim = d)
#define HLS_INDEPENDENT(x) HLS_PRAGMA(HLS dependence variable = x type = inter dependent = false)
#define HLS_TRIPS(least, most) HLS_PRAGMA(HLS loop_tripcount min = least max = most)

#endif
