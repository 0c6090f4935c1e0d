# SPDX-License-Identifier: Apache-2.0
# Stand-in for vitis_hls: Tcl commands of UG1399 2022.2 to 2025.2, as far as the project may use them.
# The results of synthesis are copied from the folder that VENDOR_RESULTS names.

source [file join [file dirname [info script]] record.tcl]

namespace eval hls {
    variable state [dict create project {} solution {} top {} sources {} benches {} part {}]
}

record::declare open_project {-reset} {} {1 1} {
    if {[dict exists $opt -reset]} { file delete -force [lindex $objects 0] } \
    else { record::need [file isdirectory [lindex $objects 0]] "there is no project [lindex $objects 0]" }
    file mkdir [lindex $objects 0]
    dict set hls::state project [lindex $objects 0]
}
record::declare set_top {} {} {1 1} { dict set hls::state top [lindex $objects 0] }
record::declare add_files {-tb} {-cflags -csimflags -blackbox} {1 1} {
    foreach path [lindex $objects 0] {
        record::need [file isfile $path] "there is no file $path"
        dict lappend hls::state [expr {[dict exists $opt -tb] ? "benches" : "sources"}] $path
    }
    foreach flag [dict get $opt -cflags] {
        if {[string match -I* $flag]} {
            set folder [string range $flag 2 end]
            record::need [file isdirectory $folder] "there is no folder $folder"
        }
    }
}
record::declare open_solution {-reset} {-flow_target} {1 1} {
    record::need [expr {[dict get $hls::state project] ne ""}] "no project is open"
    record::need [expr {[dict get $opt -flow_target] in {vivado vitis}}] "no such flow target"
    set folder [file join [dict get $hls::state project] [lindex $objects 0]]
    if {![dict exists $opt -reset]} { record::need [file isdirectory $folder] "there is no solution $folder" }
    file mkdir $folder
    dict set hls::state solution $folder
}
record::declare set_part {} {} {1 1} {
    record::need_part [lindex $objects 0]
    dict set hls::state part [lindex $objects 0]
}
record::declare create_clock {} {-period -name} {0 1} {
    record::need [string is double -strict [dict get $opt -period]] "a period is a number"
    dict set hls::state clock [dict get $opt -period]
}
record::declare config_interface {-m_axi_addr64} {-m_axi_latency -m_axi_max_widen_bitwidth} {0 0} {}
record::declare csynth_design {} {} {0 0} {
    foreach key {solution top sources part clock} {
        record::need [expr {[dict exists $hls::state $key] && [dict get $hls::state $key] ne ""}] "no $key"
    }
    file copy [file join $::env(VENDOR_RESULTS) syn] [dict get $hls::state solution]
}
record::declare cosim_design {-O -random_stall} {-rtl -argv -tool -trace_level} {0 0} {
    record::need [file isdirectory [file join [dict get $hls::state solution] syn]] "nothing was synthesised"
    record::need [llength [dict get $hls::state benches]] "there is no test bench"
    record::need [file isdirectory [dict get $opt -argv]] "the test bench has nothing to read"
    file copy [file join $::env(VENDOR_RESULTS) sim] [dict get $hls::state solution]
}
record::declare export_design {} {
    -format -rtl -vendor -library -version -ipname -display_name -description -output -flow
} {0 0} {
    record::need [file isdirectory [file join [dict get $hls::state solution] syn]] "nothing was synthesised"
    record::need [expr {[dict get $opt -format] eq "ip_catalog"}] "no such format"
    file copy [file join $::env(VENDOR_RESULTS) impl] [dict get $hls::state solution]
}

record::need [expr {[lindex $argv 0] eq "-f" && [llength $argv] == 2}] "vitis_hls -f SCRIPT"
if {[info exists env(VENDOR_FAILS)]} {
    proc csynth_design {} { error "synthesis failed" }
}
source [lindex $argv 1]
