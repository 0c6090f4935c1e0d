// SPDX-License-Identifier: Apache-2.0
// The open-source ap_int.h, which refuses __SYNTHESIS__.
#pragma once
#undef __SYNTHESIS__
#include_next <ap_int.h>
#define __SYNTHESIS__ 1
