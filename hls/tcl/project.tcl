# SPDX-License-Identifier: Apache-2.0
# The project in which Vitis HLS synthesises a design, for all steps. UG1399, "Tcl commands".
#
# A step runs in a folder with a generated vendor.tcl and works on `project/solution` in it. Project commands
# and options are common to 2022.2 and all later versions.

source vendor.tcl

proc edge_moe::open_design {args} {
    # -reset where synthesis starts anew
    open_project {*}$args project
    set_top $edge_moe::top
    if {"-reset" in $args} {
        add_files $edge_moe::source -cflags $edge_moe::flags
    }
    # the Vivado flow: no interface is added to those that the source declares
    open_solution {*}$args -flow_target vivado solution
}

# A step that fails must not leave the tool's prompt waiting: the sentence, then status 1.
proc edge_moe::run_step {step} {
    if {[catch {uplevel #0 $step} reason]} {
        puts stderr "vitis_hls: $reason"
        exit 1
    }
    exit 0
}
