// SPDX-License-Identifier: Apache-2.0
// Everything specific to Vitis HLS: its pragmas as macros, its streams, its ports. No other file contains
// `#pragma HLS` or `hls::`. If __SYNTHESIS__ is not defined every macro is empty, so that g++ and other
// HLS compilers see plain C++.
//
// A comment above each macro states the behaviour that it relies on, documented in UG1399 from 2022.2 on ("HLS
// Pragmas", unless another chapter is named). A pragma's numbers may be constant expressions and its
// variables members of structures; both are looked up where the macro is used, so constants carry their
// namespace.
//
// Tables need no pragma: a constant array that many lanes read becomes as many memories with two read
// ports as they need (rom_np).
#ifndef EDGE_MOE_VENDOR_HPP
#define EDGE_MOE_VENDOR_HPP

// Ports of the tool's type: in synthesis, and with EDGE_MOE_VENDOR_PORTS when the tool compiles a test
// bench.
#if defined(__SYNTHESIS__) && !defined(EDGE_MOE_VENDOR_PORTS)
#define EDGE_MOE_VENDOR_PORTS 1
#endif
#ifdef EDGE_MOE_VENDOR_PORTS
#include <hls_burst_maxi.h>

namespace edge_moe {

// "Using Manual Burst": passed by value; requests queue up, data come in their order.
template <typename T>
using VendorBurstPort = hls::burst_maxi<T>;

}  // namespace edge_moe
#endif

#ifdef __SYNTHESIS__
#include <hls_stream.h>

namespace edge_moe {

// "HLS Stream Library": a FIFO of the depth in its type; reads and writes wait; empty() does not.
// Elements that are structures are aggregated into one element.
template <typename T, int DEPTH>
using Channel = hls::stream<T, DEPTH>;

}  // namespace edge_moe

// The pragma's text after replacement of macros in its arguments.
#define HLS_PRAGMA(text) _Pragma(#text)
#else
#define HLS_PRAGMA(text)
#endif

// ------------------------------------------------------------------ functions and loops

// inline: the function has no hierarchy of its own; its loops and operators are scheduled with the caller's.
#define HLS_INLINE HLS_PRAGMA(HLS inline)
// inline off: the function stays one module; calls that do not overlap share it.
#define HLS_NO_INLINE HLS_PRAGMA(HLS inline off)
// unroll: all iterations of a loop of constant bound are built in parallel.
#define HLS_UNROLL HLS_PRAGMA(HLS unroll)
// pipeline: a new iteration starts every II cycles, loops inside are unrolled. II = 1 is a request, and the
// tool reports a failure; so each use states what is carried from one iteration to the next.
#define HLS_PIPELINE HLS_PRAGMA(HLS pipeline II = 1)
// style = flp: iterations that have begun go on while the next one waits for data. By default they stop
// with it, and the last element before a pause stays inside.
#define HLS_PIPELINE_FLUSHING HLS_PRAGMA(HLS pipeline II = 1 style = flp)
// loop_flatten off: the loop's pipeline drains before the surrounding loop goes on.
#define HLS_NO_FLATTEN HLS_PRAGMA(HLS loop_flatten off)
// loop_tripcount: iterations of a loop whose bound is an argument, for reports only.
#define HLS_TRIPS(least, most) HLS_PRAGMA(HLS loop_tripcount min = least max = most)
// dataflow ("Control-driven Task-level Parallelism"): the called functions run concurrently, each with its
// own state machine, linked by streams with one writer and one reader each; no call is conditional. A
// stream may lead back to an earlier one ("Modeling Feedback in Dataflow Regions").
#define HLS_DATAFLOW HLS_PRAGMA(HLS dataflow)

// ------------------------------------------------------------------ dependences

// dependence, dependent = false: no iteration of this loop reads from x what another one writes. A wrong
// claim gives wrong hardware.
#define HLS_INDEPENDENT(x) HLS_PRAGMA(HLS dependence variable = x type = inter dependent = false)
// dependence with a distance: what an iteration reads from x was written at least n iterations before; up to
// n cycles may pass between read and write of one iteration; if more are needed the tool reports a larger
// II. Too large an n gives wrong hardware, so each n is the least length of a pass, stated where the pass is
// planned.
#define HLS_DISTANCE(x, n) \
  HLS_PRAGMA(HLS dependence variable = x type = inter direction = RAW distance = n dependent = true)

// ------------------------------------------------------------------ arrays

// array_partition, complete: registers or memories of their own for the array `lane` of the structure x, for
// x in all its dimensions (dim = 0), for dimension d of x.
#define HLS_LANES(x) HLS_PRAGMA(HLS array_partition variable = x.lane type = complete)
#define HLS_REGISTERS(x) HLS_PRAGMA(HLS array_partition variable = x type = complete dim = 0)
#define HLS_PARTITION(x, d) HLS_PRAGMA(HLS array_partition variable = x type = complete dim = d)
// array_reshape: n neighbouring elements of x, or dimension d of x, become one element of memory.
#define HLS_RESHAPE(x, n) HLS_PRAGMA(HLS array_reshape variable = x type = cyclic factor = n)
#define HLS_RESHAPE_DIM(x, d) HLS_PRAGMA(HLS array_reshape variable = x type = complete dim = d)
// bind_storage, ram_s2p: one read port and one write port; every loop needs at most one of each. The scratch
// memory is in UltraRAM, or with -DEDGE_MOE_SCRATCH_MEMORY=bram in block RAM, for a part that has no UltraRAM.
// UltraRAM has no initial contents, and programs write before they read.
#ifndef EDGE_MOE_SCRATCH_MEMORY
#define EDGE_MOE_SCRATCH_MEMORY uram
#endif
#define HLS_STORED_IN(x, memory) HLS_PRAGMA(HLS bind_storage variable = x type = ram_s2p impl = memory)
#define HLS_STORED_AS_SAID(x, memory) HLS_STORED_IN(x, memory)
#define HLS_SCRATCH(x) HLS_STORED_AS_SAID(x, EDGE_MOE_SCRATCH_MEMORY)
#define HLS_BRAM(x) HLS_STORED_IN(x, bram)
#define HLS_LUTRAM(x) HLS_STORED_IN(x, lutram)
// bind_storage, fifo: the stream x is stored in the named kind of memory: the weight FIFO in UltraRAM, or
// with -DEDGE_MOE_FIFO_MEMORY=bram in block RAM, where the scratch memory or the part leaves no UltraRAM.
#ifndef EDGE_MOE_FIFO_MEMORY
#define EDGE_MOE_FIFO_MEMORY uram
#endif
#define HLS_FIFO_IN(x, memory) HLS_PRAGMA(HLS bind_storage variable = x type = fifo impl = memory)
#define HLS_FIFO_AS_SAID(x, memory) HLS_FIFO_IN(x, memory)
#define HLS_WEIGHT_FIFO(x) HLS_FIFO_AS_SAID(x, EDGE_MOE_FIFO_MEMORY)
#define HLS_TEXT(x) #x
#define HLS_TEXT_OF(x) HLS_TEXT(x)

// ------------------------------------------------------------------ ports of the top

// interface, m_axi with offset = slave: a 64-bit base address in the register map and an AXI4 master `group`
// whose data are as wide as the type that x points to ("AXI4 Master Interface"); up to `requests` bursts of
// `length` transfers may be open. Loops over consecutive addresses become bursts. `elements`, the number that
// the test bench provides, is for cosimulation only.
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
// m_axi for a port of the weight reader.
#define HLS_STREAMS(x, group) \
  HLS_READS(x, group, edge_moe::BURSTS_AHEAD, edge_moe::BURST_TRANSFERS, edge_moe::WEIGHT_IMAGE_TRANSFERS)
// interface, s_axilite: a scalar in the AXI4-Lite register map ("AXI4-Lite Interface"): the host writes an
// argument by value, and reads a pointer's value with an ap_vld flag.
#define HLS_REGISTER(x) HLS_PRAGMA(HLS interface mode = s_axilite port = x bundle = control)
// interface, ap_ctrl_hs: start, done, idle, ready and interrupt in the same register map.
#define HLS_CONTROL                                                         \
  HLS_PRAGMA(HLS interface mode = s_axilite port = return bundle = control) \
  HLS_PRAGMA(HLS interface mode = ap_ctrl_hs port = return)

#endif
