# SPDX-License-Identifier: Apache-2.0
# Stand-in for vivado: project, run and block design commands (UG835, 2022.2 and later), which are recorded.
# Only the tool knows whether cells, pins and properties exist. Results of implementation are copied from the
# folder that VENDOR_RESULTS names.

source [file join [file dirname [info script]] record.tcl]

namespace eval vivado {
    variable design {}
    variable saved 0
    variable state [dict create repository {} wrapper 0 top {} launched 0 opened 0]
    # of runs
    variable readable [dict create \
        PROGRESS 100% STATUS "write_bitstream Complete!" STATS.WNS 0.012 STATS.WHS 0.010 \
        DIRECTORY project/project.runs/impl_1]
    if {[info exists ::env(VENDOR_SLACK)]} { dict set readable STATS.WNS $::env(VENDOR_SLACK) }
    if {[info exists ::env(VENDOR_PROGRESS)]} { dict set readable PROGRESS $::env(VENDOR_PROGRESS) }
}

record::declare get_board_parts {-quiet -latest_file_version} {} {0 1} {
    set name [expr {[info exists ::env(VENDOR_BOARD)] ? $::env(VENDOR_BOARD) : "zcu104"}]
    set board xilinx.com:$name:part0:1.1
    if {[info exists ::env(VENDOR_NO_BOARD)]} { return {} }
    return [expr {[string match [lindex $objects 0] $board] ? $board : {}}]
}
record::declare create_project {-force} {-part} {1 2} {
    record::need_part [dict get $opt -part]
    file mkdir [lindex $objects 1]
}
record::declare current_project {} {} {0 0} { return project }
record::declare current_fileset {} {} {0 0} { return sources_1 }
record::declare update_ip_catalog {-rebuild} {} {0 0} {
    set folder [dict get $vivado::state repository]
    record::need [file isfile $folder/component.xml] "$folder is no packaged IP"
}
record::declare get_ipdefs {-quiet} {} {1 1} {
    return [expr {[info exists ::env(VENDOR_NO_IP)] ? {} : [lindex $objects 0]}]
}
record::declare get_files {} {} {1 1} {
    record::need [expr {[lindex $objects 0] eq "$vivado::design.bd"}] "there is no file [lindex $objects 0]"
    return project/[lindex $objects 0]
}
record::declare make_wrapper {-top} {-files} {0 0} {
    dict set vivado::state wrapper project/${vivado::design}_wrapper.v
    return [dict get $vivado::state wrapper]
}
record::declare add_files {-norecurse} {} {1 1} {
    record::need [expr {[lindex $objects 0] eq [dict get $vivado::state wrapper]}] "no such file"
}
record::declare update_compile_order {} {-fileset} {0 0} {}
record::declare get_runs {} {} {1 1} {
    record::need [expr {[lindex $objects 0] in {synth_1 impl_1}}] "there is no run [lindex $objects 0]"
    return [lindex $objects 0]
}
record::declare launch_runs {} {-to_step -jobs} {1 1} {
    record::need $vivado::saved "the block design was not saved"
    record::need [expr {[dict get $vivado::state top] eq "${vivado::design}_wrapper"}] "no top"
    record::need [string is integer -strict [dict get $opt -jobs]] "-jobs takes a number"
    record::need [expr {[dict get $opt -to_step] eq "write_bitstream"}] "no bitstream would be written"
    dict set vivado::state launched 1
    file mkdir project/project.runs/impl_1 project/project.gen/sources_1/bd/$vivado::design/hw_handoff
    close [open project/project.runs/impl_1/${vivado::design}_wrapper.bit w]
    close [open project/project.gen/sources_1/bd/$vivado::design/hw_handoff/$vivado::design.hwh w]
}
record::declare wait_on_runs {} {-timeout} {1 1} {
    record::need [dict get $vivado::state launched] "[lindex $objects 0] was not launched"
}
record::declare open_run {} {} {1 1} { dict set vivado::state opened 1 }
foreach report {utilization timing_summary power} {
    record::declare report_$report {-hierarchical} {-file} {0 0} {
        record::need [dict get $vivado::state opened] "no run is open"
        set name [file tail [dict get $opt -file]]
        file copy -force [file join $::env(VENDOR_RESULTS) reports $name] [dict get $opt -file]
    }
}
record::declare get_property {} {} {2 2} {
    lassign $objects name object
    record::need [dict exists $vivado::readable $name] "there is no property $name"
    return [dict get $vivado::readable $name]
}
record::declare set_property {} {-dict} {1 3} {
    if {[dict exists $opt -dict]} { return }
    lassign $objects name value object
    switch $object:$name {
        project:ip_repo_paths { dict set vivado::state repository $value }
        sources_1:top { dict set vivado::state top $value }
    }
}

record::declare create_bd_design {} {} {1 1} { set vivado::design [lindex $objects 0] }
record::declare create_bd_cell {} {-type -vlnv} {1 1} { return [lindex $objects 0] }
record::declare apply_bd_automation {} {-rule -config} {1 1} {}
foreach kind {cells pins intf_pins addr_spaces} {
    record::declare get_bd_$kind {} {} {1 1} { return [lindex $objects 0] }
}
# Address segments of a processor's port: the memory and others.
record::declare get_bd_addr_segs {} {-of_objects} {0 1} {
    if {![dict exists $opt -of_objects]} { return [lindex $objects 0] }
    return [lmap name {DDR_LOW LPS_OCM QSPI} { string cat [dict get $opt -of_objects]_ $name }]
}
record::declare connect_bd_net {} {} {2 2} {}
record::declare connect_bd_intf_net {} {} {2 2} {}
record::declare assign_bd_address {-force} {-offset -range -target_address_space} {1 1} {}
record::declare exclude_bd_addr_seg {} {-target_address_space} {1 1} {}
record::declare validate_bd_design {} {} {0 0} {}
record::declare save_bd_design {} {} {0 0} { set vivado::saved 1 }

# vivado -mode batch -nojournal -notrace -log FILE -source SCRIPT -tclargs ...
set words $argv
set argv {}
for {set i 0} {$i < [llength $words]} {incr i} {
    switch -- [lindex $words $i] {
        -nojournal - -notrace {}
        -mode { record::need [expr {[lindex $words [incr i]] eq "batch"}] "no such mode" }
        -log { incr i }
        -source { set script [lindex $words [incr i]] }
        -tclargs { set argv [lrange $words $i+1 end]; break }
        default { error "vivado has no option [lindex $words $i]" }
    }
}
source $script
