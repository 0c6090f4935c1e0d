# SPDX-License-Identifier: Apache-2.0
# C to Verilog: project/solution/syn/verilog and project/solution/syn/report.

source [file join [file dirname [file normalize [info script]]] project.tcl]

edge_moe::run_step {
    edge_moe::open_design -reset
    set_part $edge_moe::part
    create_clock -period $edge_moe::clock_ns -name default
    # buffers may be anywhere in the processor's memory
    config_interface -m_axi_addr64
    csynth_design
}
