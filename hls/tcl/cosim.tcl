# SPDX-License-Identifier: Apache-2.0
# The test bench against the Verilog of csynth.tcl, which it calls through its C++ signature.

source [file join [file dirname [file normalize [info script]]] project.tcl]

edge_moe::run_step {
    edge_moe::open_design
    add_files -tb $edge_moe::test_bench -cflags $edge_moe::flags
    cosim_design -rtl verilog -O -argv $edge_moe::recording
}
