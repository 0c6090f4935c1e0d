// SPDX-License-Identifier: Apache-2.0
// A dataflow region: concurrent processes, and the bounded channels between them.
//
// In synthesis a process is a function call in a dataflow region and Channel comes from vendor.hpp; in C
// simulation both come from csim/. The functions are the same.
#ifndef EDGE_MOE_SHELL_REGION_HPP
#define EDGE_MOE_SHELL_REGION_HPP

#include "edge_moe/vendor.hpp"

#ifndef __SYNTHESIS__
#include "edge_moe/csim/channel.hpp"
#include "edge_moe/csim/processes.hpp"
#endif

// A region reads: EDGE_MOE_REGION, then EDGE_MOE_PROCESS(name, call) for each box, then EDGE_MOE_RUN.
#ifdef __SYNTHESIS__
#define EDGE_MOE_REGION
#define EDGE_MOE_PROCESS(name, ...) __VA_ARGS__;
#define EDGE_MOE_RUN
#else
#define EDGE_MOE_REGION ::edge_moe::Processes edge_moe_processes;
#define EDGE_MOE_PROCESS(name, ...) edge_moe_processes.add(name, [&] { __VA_ARGS__; });
#define EDGE_MOE_RUN edge_moe_processes.run();
#endif

#endif
