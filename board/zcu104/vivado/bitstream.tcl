# SPDX-License-Identifier: Apache-2.0
# Block design, synthesis, implementation: `out/edge_moe_<hash>.bit` and `.hwh`, and reports beside them.
#
# Runs in a folder with vendor.tcl and the packaged accelerator in `ip`:
#   vivado -mode batch -source bitstream.tcl -tclargs JOBS

source vendor.tcl
source [file join [file dirname [file normalize [info script]]] design.tcl]

# One sentence, and status 1.
proc edge_moe::fail {sentence} {
    puts stderr "vivado: $sentence"
    exit 1
}

proc edge_moe::open_board_project {} {
    set boards [get_board_parts -quiet -latest_file_version $edge_moe::board]
    if {[llength $boards] == 0} {
        fail "Vivado has no files of the $edge_moe::board_name:\
            install them with Tools > Vivado Store > Boards."
    }
    create_project -force project project -part $edge_moe::part
    set_property board_part [lindex $boards 0] [current_project]
    set_property ip_repo_paths [file normalize ip] [current_project]
    update_ip_catalog
    if {[llength [get_ipdefs -quiet $edge_moe::vlnv]] == 0} {
        fail "the packaged IP holds no $edge_moe::vlnv: run 'make -C hls export' again."
    }
}

# Synthesis and implementation; a sentence about the first run that fails.
proc edge_moe::implement {jobs} {
    set files [get_files edge_moe.bd]
    add_files -norecurse [make_wrapper -files $files -top]
    set_property top edge_moe_wrapper [current_fileset]
    update_compile_order -fileset sources_1
    # at this frequency the default strategy leaves slow paths, which physical optimisation after routing repairs
    set_property strategy Performance_ExplorePostRoutePhysOpt [get_runs impl_1]
    launch_runs impl_1 -to_step write_bitstream -jobs $jobs
    wait_on_runs impl_1
    foreach run {synth_1 impl_1} {
        if {[get_property PROGRESS [get_runs $run]] ne "100%"} {
            set status [get_property STATUS [get_runs $run]]
            fail "$run ended with '$status': see project/project.runs/$run/runme.log."
        }
    }
}

proc edge_moe::write_reports {folder} {
    open_run impl_1
    report_utilization -file $folder/utilization.rpt
    report_utilization -hierarchical -file $folder/hierarchy.rpt
    report_timing_summary -file $folder/timing.rpt
    report_power -file $folder/power.rpt
    set run [get_runs impl_1]
    set file [open $folder/run.txt w]
    puts $file "clock_mhz $edge_moe::clock_mhz"
    puts $file "wns_ns [get_property STATS.WNS $run]"
    puts $file "whs_ns [get_property STATS.WHS $run]"
    close $file
}

proc edge_moe::collect {folder} {
    set name edge_moe_$edge_moe::config_hash
    set run [get_property DIRECTORY [get_runs impl_1]]
    file copy -force $run/edge_moe_wrapper.bit $folder/$name.bit
    set handoff [glob -directory project/project.gen/sources_1/bd/edge_moe/hw_handoff edge_moe.hwh]
    file copy -force $handoff $folder/$name.hwh
}

proc edge_moe::check_timing {} {
    set run [get_runs impl_1]
    foreach slack {STATS.WNS STATS.WHS} {
        if {[get_property $slack $run] < 0} {
            fail "timing is not met at $edge_moe::clock_mhz MHz ($slack = [get_property $slack $run] ns):\
                lower clock_mhz of the accelerator; the reports are in [file normalize reports]."
        }
    }
}

if {[catch {
    edge_moe::open_board_project
    edge_moe::create_block_design edge_moe
    edge_moe::implement [lindex $argv 0]
    file mkdir reports out
    edge_moe::write_reports reports
    edge_moe::check_timing
    edge_moe::collect out
} reason]} {
    edge_moe::fail $reason
}
exit 0
