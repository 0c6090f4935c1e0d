# SPDX-License-Identifier: Apache-2.0
# Stand-in for Vivado's block designs: cells with the pins that their properties give them.
#
# Pins of a cell are four lists: inputs, outputs, interface slaves, interface masters. The packaged
# accelerator declares itself (pins.tcl beside its component.xml).

namespace eval blocks {
    variable design {}
    variable saved 0
    variable cells [dict create]       ;# name -> vlnv without version
    variable properties [dict create]  ;# name -> property -> value
    variable driver [dict create]      ;# input pin or interface slave -> what drives it
    variable spaces [dict create]      ;# address space -> segments
    variable catalogue [dict create]   ;# vlnv -> pins
}

proc blocks::known {vlnv} {
    variable catalogue
    return [dict exists $catalogue $vlnv]
}

proc blocks::value {cell name default} {
    variable properties
    if {[dict exists $properties $cell CONFIG.$name]} { return [dict get $properties $cell CONFIG.$name] }
    return $default
}

# Name patterns of properties, for each of Vivado's own cells.
proc blocks::allowed {kind} {
    switch $kind {
        zynq_ultra_ps_e {
            return {PSU__USE__M_AXI_GP[012] PSU__MAXIGP[012]__DATA_WIDTH PSU__USE__S_AXI_GP[0-6]
                PSU__SAXIGP[0-6]__DATA_WIDTH PSU__USE__IRQ[01] PSU__FPGA_PL[0-3]_ENABLE
                PSU__CRL_APB__PL[0-3]_REF_CTRL__FREQMHZ}
        }
        clk_wiz { return {PRIM_SOURCE PRIM_IN_FREQ CLKOUT1_REQUESTED_OUT_FREQ RESET_TYPE RESET_PORT} }
        smartconnect { return {NUM_SI NUM_MI NUM_CLKS} }
        default { return {} }
    }
}

proc blocks::pins {cell} {
    variable cells
    variable catalogue
    set kind [lindex [split [dict get $cells $cell] :] 2]
    switch $kind {
        zynq_ultra_ps_e {
            lassign {{} {pl_resetn0} {} {}} inputs outputs slaves masters
            if {[value $cell PSU__FPGA_PL0_ENABLE 0]} { lappend outputs pl_clk0 }
            if {[value $cell PSU__USE__IRQ0 0]} { lappend inputs pl_ps_irq0 }
            foreach {n name} {0 hpm0_fpd 1 hpm1_fpd 2 hpm0_lpd} {
                if {[value $cell PSU__USE__M_AXI_GP$n 0]} {
                    lappend inputs maxi${name}_aclk
                    lappend masters M_AXI_[string toupper $name]
                }
            }
            foreach {n name} {0 hpc0_fpd 1 hpc1_fpd 2 hp0_fpd 3 hp1_fpd 4 hp2_fpd 5 hp3_fpd 6 lpd} {
                if {[value $cell PSU__USE__S_AXI_GP$n 0]} {
                    lappend inputs saxi${name}_aclk
                    lappend slaves S_AXI_[string toupper $name]
                }
            }
            return [list $inputs $outputs $slaves $masters]
        }
        clk_wiz {
            set reset [expr {[value $cell RESET_TYPE ACTIVE_HIGH] eq "ACTIVE_LOW" ? "resetn" : "reset"}]
            return [list [list clk_in1 [value $cell RESET_PORT $reset]] {clk_out1 locked} {} {}]
        }
        proc_sys_reset {
            return {{slowest_sync_clk ext_reset_in dcm_locked}
                {peripheral_aresetn interconnect_aresetn peripheral_reset bus_struct_reset mb_reset} {} {}}
        }
        smartconnect {
            lassign {{} {}} slaves masters
            for {set i 0} {$i < [value $cell NUM_SI 2]} {incr i} { lappend slaves [format S%02d_AXI $i] }
            for {set i 0} {$i < [value $cell NUM_MI 1]} {incr i} { lappend masters [format M%02d_AXI $i] }
            return [list {aclk aresetn} {} $slaves $masters]
        }
        default { return [dict get $catalogue [dict get $cells $cell]] }
    }
}

proc blocks::set_property {cell name value} {
    variable cells
    variable properties
    record::need [dict exists $cells $cell] "there is no cell $cell"
    set kind [lindex [split [dict get $cells $cell] :] 2]
    foreach pattern [allowed $kind] {
        if {[string match CONFIG.$pattern $name]} {
            dict set properties $cell $name $value
            return
        }
    }
    error "$kind has no property $name"
}

# `CELL/PIN` if it exists in one of the lists of the cell's pins; an error otherwise.
proc blocks::find {path lists} {
    variable cells
    set path [string trimleft $path /]
    lassign [split $path /] cell pin
    record::need [dict exists $cells $cell] "there is no cell $cell"
    foreach list $lists {
        if {$pin in [lindex [pins $cell] $list]} { return $path }
    }
    error "there is no pin $path"
}

proc blocks::drive {source sink lists} {
    variable driver
    lassign $lists outputs inputs
    find $source $outputs
    find $sink $inputs
    record::need [expr {![dict exists $driver $sink]}] "$sink is driven already"
    dict set driver $sink $source
}

# Segments that a slave of the processing system shows.
proc blocks::segments {slave} {
    lassign [split $slave /] cell pin
    if {[regexp {S_AXI_HP(\d)_FPD} $pin -> n]} {
        set group SAXIGP[expr {$n + 2}]
        return [lmap name {DDR_LOW LPS_OCM QSPI} { string cat /$cell/$group/HP${n}_$name }]
    }
    return {}
}

record::declare create_bd_design {} {} {1 1} { set blocks::design [lindex $objects 0] }
record::declare create_bd_cell {} {-type -vlnv} {1 1} {
    set vlnv [dict get $opt -vlnv]
    record::need [expr {[dict get $opt -type] eq "ip"}] "no such type"
    set own {xilinx.com:ip:zynq_ultra_ps_e xilinx.com:ip:clk_wiz xilinx.com:ip:proc_sys_reset
        xilinx.com:ip:smartconnect}
    record::need [expr {$vlnv in $own || [blocks::known $vlnv]}] "there is no IP $vlnv"
    record::need [expr {![dict exists $blocks::cells [lindex $objects 0]]}] "there is such a cell"
    dict set blocks::cells [lindex $objects 0] $vlnv
    return [lindex $objects 0]
}
record::declare get_bd_cells {} {} {1 1} {
    set cell [string trimleft [lindex $objects 0] /]
    record::need [dict exists $blocks::cells $cell] "there is no cell $cell"
    return $cell
}
record::declare apply_bd_automation {} {-rule -config} {1 1} {
    record::need [expr {[dict get $opt -rule] eq "xilinx.com:bd_rule:zynq_ultra_ps_e"}] "no such rule"
    record::need [expr {[dict get $opt -config] eq {apply_board_preset "1"}}] "no such configuration"
    # what the ZCU104's preset turns on
    foreach {name value} {PSU__USE__M_AXI_GP0 1 PSU__USE__M_AXI_GP1 1 PSU__FPGA_PL0_ENABLE 1} {
        blocks::set_property [lindex $objects 0] CONFIG.$name $value
    }
}
record::declare get_bd_pins {} {} {1 1} { return [blocks::find [lindex $objects 0] {0 1}] }
record::declare get_bd_intf_pins {} {} {1 1} { return [blocks::find [lindex $objects 0] {2 3}] }
record::declare connect_bd_net {} {} {2 2} { blocks::drive {*}$objects {1 0} }
record::declare connect_bd_intf_net {} {} {2 2} { blocks::drive {*}$objects {3 2} }
record::declare get_bd_addr_spaces {} {} {1 1} {
    lassign [split [lindex $objects 0] /] cell space
    if {$cell eq "ps" && $space eq "Data"} { return [lindex $objects 0] }
    blocks::find $cell/[regsub {^Data_} $space {}] {3}
    return [lindex $objects 0]
}
record::declare get_bd_addr_segs {} {-of_objects} {0 1} {
    if {[dict exists $opt -of_objects]} { return [blocks::segments [dict get $opt -of_objects]] }
    lassign [split [lindex $objects 0] /] cell pin segment
    blocks::find $cell/$pin {2}
    record::need [expr {$segment eq "Reg"}] "there is no segment $segment"
    return [lindex $objects 0]
}
record::declare assign_bd_address {-force} {-offset -range -target_address_space} {1 1} {
    dict lappend blocks::spaces [dict get $opt -target_address_space] [lindex $objects 0]
}
record::declare exclude_bd_addr_seg {} {-target_address_space} {1 1} {}
record::declare validate_bd_design {} {} {0 0} {
    foreach cell [dict keys $blocks::cells] {
        lassign [blocks::pins $cell] inputs outputs slaves masters
        foreach pin [concat $inputs $slaves] {
            record::need [dict exists $blocks::driver $cell/$pin] "$cell/$pin is not connected"
        }
        foreach pin $masters {
            record::need [expr {"$cell/$pin" in [dict values $blocks::driver]}] "$cell/$pin is not connected"
            if {[blocks::known [dict get $blocks::cells $cell]]} {
                record::need [dict exists $blocks::spaces $cell/Data_$pin] "$cell/$pin sees no memory"
            }
        }
    }
    record::need [dict exists $blocks::spaces ps/Data] "the processor sees no registers"
}
record::declare save_bd_design {} {} {0 0} { set blocks::saved 1 }
