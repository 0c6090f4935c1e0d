// SPDX-License-Identifier: Apache-2.0
// The open arbitrary-precision types refuse __SYNTHESIS__, which is defined here so that the sources are read as
// the tool reads them.
#ifndef EDGE_MOE_STUB_AP_INT_H
#define EDGE_MOE_STUB_AP_INT_H

#ifdef __SYNTHESIS__
#undef __SYNTHESIS__
#include_next <ap_int.h>
#define __SYNTHESIS__ 1
#else
#include_next <ap_int.h>
#endif

#endif
