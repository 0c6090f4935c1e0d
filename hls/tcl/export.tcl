# SPDX-License-Identifier: Apache-2.0
# The Verilog of csynth.tcl as IP for Vivado's catalogue: project/solution/impl/ip.

source [file join [file dirname [file normalize [info script]]] project.tcl]

edge_moe::run_step {
    edge_moe::open_design
    export_design -format ip_catalog -rtl verilog \
        -vendor $edge_moe::vendor -library $edge_moe::library -version $edge_moe::version \
        -ipname $edge_moe::top
}
