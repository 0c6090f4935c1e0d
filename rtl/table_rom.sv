// SPDX-License-Identifier: Apache-2.0
// A constant table in block memory with one or two readers. SPEC.md, section 3.
//
// Two cycles from address to data: the memory's own read and its output register. Both hold while enable is low.
`default_nettype none

module table_rom #(
    parameter int WIDTH = edge_moe_pkg::RECIPROCAL_WIDTH,
    parameter int ENTRIES = edge_moe_pkg::RECIPROCAL_ENTRIES,
    parameter logic [WIDTH*ENTRIES-1:0] CONTENTS = edge_moe_pkg::RECIPROCAL,  // entry 0 in the lowest bits
    parameter int PORTS = 2
) (
    input  wire                              clk,
    input  wire                              enable_i,
    input  wire  [PORTS*$clog2(ENTRIES)-1:0] address_i,
    output logic [PORTS*WIDTH-1:0]           data_o
);

  localparam int ADDRESS = $clog2(ENTRIES);

  if (PORTS < 1 || PORTS > 2) begin : g_check
    $fatal(1, "table_rom: PORTS = %0d must be 1 or 2, as many as a block memory has", PORTS);
  end

  (* rom_style = "block" *)
  logic [WIDTH-1:0] rom[ENTRIES];
  initial begin
    for (int i = 0; i < ENTRIES; i++) rom[i] = CONTENTS[i*WIDTH+:WIDTH];
  end

  for (genvar p = 0; p < PORTS; p++) begin : g_port
    logic [WIDTH-1:0] read_q, data_q;
    always_ff @(posedge clk) begin
      if (enable_i) begin
        read_q <= rom[address_i[p*ADDRESS+:ADDRESS]];
        data_q <= read_q;
      end
    end
    assign data_o[p*WIDTH+:WIDTH] = data_q;
  end

endmodule

`default_nettype wire
