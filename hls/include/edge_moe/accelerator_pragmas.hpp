// SPDX-License-Identifier: Apache-2.0
// Pragmas that only the accelerator needs, beside vendor.hpp's. All are empty where __SYNTHESIS__ is not
// defined.
//
// What each relies on (UG1399, from 2022.2 on):
// HLS_DATAFLOW         the functions called in this one run concurrently, each in its own state machine, tied
//                      by streams alone: one writer and one reader each, no conditional call.
// HLS_NO_INLINE        the function is one piece of hardware; where it has one call site there is one of it.
// HLS_URAM(x)          the array x stands in UltraRAM with one port to read and one to write. Nothing is in
//                      it at the start: every program writes before it reads.
// HLS_BRAM(x)          the same in block RAM.
// HLS_LUTRAM(x)        the same in distributed RAM.
// HLS_WEIGHT_FIFO(x)   the stream x stands in UltraRAM, or in what -DEDGE_MOE_FIFO_MEMORY=bram says for an
//                      accelerator whose scratch memory leaves no UltraRAM.
// HLS_DISTANCE(x, n)   what an iteration reads from x was written at least n iterations before. The tool may
//                      put up to n cycles between the read and the write of one iteration; where it needs
//                      more it reports a greater II, so that a wrong n cannot give wrong hardware.
// HLS_READS, HLS_WRITES(x, group, requests, length, elements)
//                      a 64-bit base address in the register map and an AXI4 master `group` whose data are as
//                      wide as the type that x points to; `requests` may be open at a time, of `length` beats
//                      each. `elements` is for cosimulation alone: how many the test bench provides.
// HLS_STREAMS(x, group) the same for a port of the weight reader.
// HLS_REGISTER(x)      a scalar in the AXI4-Lite register map: written by the host where it is an argument
//                      by value, read by it with an ap_vld flag where it is a pointer.
// HLS_CONTROL          start, done, idle, ready and interrupt of ap_ctrl_hs in the same register map.
#ifndef EDGE_MOE_ACCELERATOR_PRAGMAS_HPP
#define EDGE_MOE_ACCELERATOR_PRAGMAS_HPP

#include "edge_moe/vendor.hpp"

#define HLS_DATAFLOW HLS_PRAGMA(HLS dataflow)
#define HLS_NO_INLINE HLS_PRAGMA(HLS inline off)
#define HLS_URAM(x) HLS_PRAGMA(HLS bind_storage variable = x type = ram_2p impl = uram)
#define HLS_BRAM(x) HLS_PRAGMA(HLS bind_storage variable = x type = ram_2p impl = bram)
#define HLS_LUTRAM(x) HLS_PRAGMA(HLS bind_storage variable = x type = ram_2p impl = lutram)
#ifndef EDGE_MOE_FIFO_MEMORY
#define EDGE_MOE_FIFO_MEMORY uram
#endif
#define HLS_TEXT(x) #x
#define HLS_TEXT_OF(x) HLS_TEXT(x)
#define HLS_FIFO_IN(x, memory) HLS_PRAGMA(HLS bind_storage variable = x type = fifo impl = memory)
#define HLS_FIFO_AS_SAID(x, memory) HLS_FIFO_IN(x, memory)
#define HLS_WEIGHT_FIFO(x) HLS_FIFO_AS_SAID(x, EDGE_MOE_FIFO_MEMORY)
#define HLS_DISTANCE(x, n) \
  HLS_PRAGMA(HLS dependence variable = x type = inter direction = RAW distance = n dependent = true)
#define HLS_READS(x, group, requests, length, elements)                                         \
  HLS_PRAGMA(HLS interface mode = m_axi port = x offset = slave bundle = group depth = elements \
                 latency = edge_moe::config::memory_latency num_read_outstanding = requests     \
                     max_read_burst_length = length num_write_outstanding = 1                   \
                         max_write_burst_length = 2)                                            \
  HLS_REGISTER(x)
#define HLS_WRITES(x, group, requests, length, elements)                                        \
  HLS_PRAGMA(HLS interface mode = m_axi port = x offset = slave bundle = group depth = elements \
                 latency = edge_moe::config::memory_latency num_write_outstanding = requests    \
                     max_write_burst_length = length num_read_outstanding = 1                   \
                         max_read_burst_length = 2)                                             \
  HLS_REGISTER(x)
#define HLS_STREAMS(x, group)                                                                 \
  HLS_READS(x, group, edge_moe::BURSTS_AHEAD, edge_moe::BURST_BEATS, edge_moe::WEIGHT_IMAGE_BEATS)
#define HLS_REGISTER(x) HLS_PRAGMA(HLS interface mode = s_axilite port = x bundle = control)
#define HLS_CONTROL                                                         \
  HLS_PRAGMA(HLS interface mode = s_axilite port = return bundle = control) \
  HLS_PRAGMA(HLS interface mode = ap_ctrl_hs port = return)

#endif
