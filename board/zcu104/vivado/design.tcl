# SPDX-License-Identifier: Apache-2.0
# Block design: the accelerator beside the processing system of a Zynq UltraScale+ board.
#
#   ps M_AXI_HPM0_FPD --- control ------------- s_axi_control +-------------+
#   ps pl_clk0 ---------- clock ------------- ap_clk, aclk, . | accelerator | interrupt --- ps pl_ps_irqN
#   ps pl_resetn0 ------- reset --------- ap_rst_n, aresetn . |             |
#   ps S_AXI_HP0..3_FPD - memory0..3 --------------- m_axi_.. +-------------+
#
# Masters, their ports, addresses, the interrupt's input and frequencies come from vendor.tcl; names of cells, pins and properties
# are Vivado's (PG201 processing system, PG065 clock wizard, PG164 reset, PG247 SmartConnect).

# HP port n is S_AXI_GP(n + 2) in the processing system's properties.
proc edge_moe::hp_property {port} { expr {$port + 2} }

proc edge_moe::hp_ports {} {
    set ports {}
    foreach master $edge_moe::masters { lappend ports [lindex $master 1] }
    return [lsort -integer -unique $ports]
}

# The board's own settings, except those of the accelerator's ports between processor and fabric.
proc edge_moe::create_processor {} {
    create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e ps
    apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e -config {apply_board_preset "1"} \
        [get_bd_cells ps]
    set properties [list \
        CONFIG.PSU__USE__M_AXI_GP0 1 \
        CONFIG.PSU__MAXIGP0__DATA_WIDTH 32 \
        CONFIG.PSU__USE__M_AXI_GP1 0 \
        CONFIG.PSU__USE__M_AXI_GP2 0 \
        CONFIG.PSU__USE__IRQ[string index $edge_moe::interrupt_input end] 1 \
        CONFIG.PSU__FPGA_PL0_ENABLE 1 \
        CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $edge_moe::reference_mhz]
    foreach port [hp_ports] {
        set n [hp_property $port]
        lappend properties CONFIG.PSU__USE__S_AXI_GP$n 1 CONFIG.PSU__SAXIGP${n}__DATA_WIDTH $edge_moe::hp_bits
    }
    set_property -dict $properties [get_bd_cells ps]
}

proc edge_moe::create_clock_and_reset {} {
    create_bd_cell -type ip -vlnv xilinx.com:ip:clk_wiz clock
    set_property -dict [list \
        CONFIG.PRIM_SOURCE No_buffer \
        CONFIG.CLKOUT1_REQUESTED_OUT_FREQ $edge_moe::clock_mhz \
        CONFIG.RESET_TYPE ACTIVE_LOW \
        CONFIG.RESET_PORT resetn] [get_bd_cells clock]
    create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset
    connect_bd_net [get_bd_pins ps/pl_clk0] [get_bd_pins clock/clk_in1]
    connect_bd_net [get_bd_pins ps/pl_resetn0] [get_bd_pins clock/resetn]
    connect_bd_net [get_bd_pins ps/pl_resetn0] [get_bd_pins reset/ext_reset_in]
    connect_bd_net [get_bd_pins clock/locked] [get_bd_pins reset/dcm_locked]
    connect_bd_net [get_bd_pins clock/clk_out1] [get_bd_pins reset/slowest_sync_clk]
}

# Everything driven by the clock wizard has one clock and one reset.
proc edge_moe::connect_clock {args} {
    foreach pin $args { connect_bd_net [get_bd_pins clock/clk_out1] [get_bd_pins $pin] }
}

proc edge_moe::connect_reset {args} {
    foreach pin $args { connect_bd_net [get_bd_pins reset/peripheral_aresetn] [get_bd_pins $pin] }
}

# A SmartConnect named `name` from interface pins to one interface pin.
proc edge_moe::create_smartconnect {name masters slave} {
    create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect $name
    set_property -dict [list CONFIG.NUM_SI [llength $masters] CONFIG.NUM_MI 1] [get_bd_cells $name]
    connect_clock $name/aclk
    connect_reset $name/aresetn
    set index 0
    foreach master $masters {
        connect_bd_intf_net [get_bd_intf_pins $master] [get_bd_intf_pins $name/[format "S%02d_AXI" $index]]
        incr index
    }
    connect_bd_intf_net [get_bd_intf_pins $name/M00_AXI] [get_bd_intf_pins $slave]
}

proc edge_moe::create_accelerator {} {
    create_bd_cell -type ip -vlnv $edge_moe::vlnv accelerator
    connect_clock accelerator/$edge_moe::clock
    connect_reset accelerator/$edge_moe::reset
    connect_bd_net [get_bd_pins accelerator/$edge_moe::interrupt] [get_bd_pins ps/$edge_moe::interrupt_input]
    create_smartconnect control ps/M_AXI_HPM0_FPD accelerator/$edge_moe::control
    connect_clock ps/maxihpm0_fpd_aclk
    foreach port [hp_ports] {
        set masters {}
        foreach master $edge_moe::masters {
            if {[lindex $master 1] == $port} { lappend masters accelerator/[lindex $master 0] }
        }
        create_smartconnect memory$port $masters ps/S_AXI_HP${port}_FPD
        connect_clock ps/saxihp${port}_fpd_aclk
    }
}

# The processor sees the registers; masters see the memory, and neither the flash nor the on-chip memory.
proc edge_moe::assign_addresses {} {
    assign_bd_address -offset $edge_moe::control_address -range $edge_moe::control_range -force \
        -target_address_space [get_bd_addr_spaces ps/Data] \
        [get_bd_addr_segs accelerator/$edge_moe::control/Reg]
    foreach master $edge_moe::masters {
        lassign $master name port
        set space [get_bd_addr_spaces accelerator/Data_$name]
        foreach segment [get_bd_addr_segs -of_objects [get_bd_intf_pins ps/S_AXI_HP${port}_FPD]] {
            if {[string match *_DDR_* $segment]} {
                assign_bd_address -force -target_address_space $space $segment
            } else {
                exclude_bd_addr_seg -target_address_space $space $segment
            }
        }
    }
}

proc edge_moe::create_block_design {name} {
    create_bd_design $name
    create_processor
    create_clock_and_reset
    create_accelerator
    assign_addresses
    validate_bd_design
    save_bd_design
}
