// SPDX-License-Identifier: Apache-2.0
// A synchronous FIFO of any depth, in the memory that fits the depth: an element per cycle on both sides, without
// bubbles.
//
// The memory holds DEPTH elements, and each register after it one more: LUT memory has one such register,
// block RAM two and UltraRAM three, which are inside those memories. A register moves on when the one
// after it does, so an element that enters an empty FIFO leaves it STAGES + 1 cycles later.
// A place is never written and read in one cycle: it is read only when it holds an element, and written only
// when it holds none.
`default_nettype none

module fifo #(
    parameter int WIDTH = 8 * edge_moe_pkg::FIFO_READ_BYTES,
    parameter int DEPTH = edge_moe_pkg::FIFO_BYTES / edge_moe_pkg::FIFO_READ_BYTES,
    parameter int STAGES = DEPTH > 64 ? (DEPTH >= 2048 ? 3 : 2) : 1  // 1 LUT memory, 2 block RAM, 3 UltraRAM
) (
    input wire clk,
    input wire rst,

    input  wire  [WIDTH-1:0] s_axis_data_tdata,
    input  wire              s_axis_data_tvalid,
    output logic             s_axis_data_tready,

    output logic [WIDTH-1:0] m_axis_data_tdata,
    output logic             m_axis_data_tvalid,
    input  wire              m_axis_data_tready,

    output logic [$clog2(DEPTH+4)-1:0] count_o  // elements in memory and registers, up to DEPTH + STAGES
);

  localparam int ADDRESS = $clog2(DEPTH);
  localparam int COUNT = $clog2(DEPTH + 4);
  localparam STYLE = STAGES == 1 ? "distributed" : STAGES == 2 ? "block" : "ultra";

  if (DEPTH < 2) begin : g_check_depth
    $fatal(1, "fifo: DEPTH = %0d must be at least 2", DEPTH);
  end
  if (STAGES < 1 || STAGES > 3) begin : g_check_stages
    $fatal(1, "fifo: STAGES = %0d must be 1, 2 or 3: LUT memory, block RAM or UltraRAM", STAGES);
  end

  (* ram_style = STYLE *) (* no_rw_check *)
  logic [WIDTH-1:0]   memory[DEPTH];
  logic [ADDRESS-1:0] write_q, read_q;
  logic [ADDRESS:0]   stored_q;  // elements in the memory, up to DEPTH
  logic               write, read;

  // Register 0 is the memory's own; each takes the element before it when it is free or becomes so.
  logic [STAGES-1:0] valid_q, moves;
  logic [WIDTH-1:0]  data_q[STAGES];

  always_comb begin
    moves[STAGES-1] = !valid_q[STAGES-1] || m_axis_data_tready;
    for (int i = STAGES - 2; i >= 0; i--) moves[i] = !valid_q[i] || moves[i+1];
  end

  assign s_axis_data_tready = stored_q != (ADDRESS + 1)'(DEPTH);
  assign write              = s_axis_data_tvalid && s_axis_data_tready;
  assign read               = stored_q != '0 && moves[0];

  always_ff @(posedge clk) begin
    if (rst) begin
      write_q  <= '0;
      read_q   <= '0;
      stored_q <= '0;
      valid_q  <= '0;
    end else begin
      if (write) write_q <= write_q == ADDRESS'(DEPTH - 1) ? '0 : write_q + ADDRESS'(1);
      if (read) read_q <= read_q == ADDRESS'(DEPTH - 1) ? '0 : read_q + ADDRESS'(1);
      stored_q <= stored_q + (ADDRESS + 1)'(write) - (ADDRESS + 1)'(read);
      if (moves[0]) valid_q[0] <= read;
      for (int i = 1; i < STAGES; i++) if (moves[i]) valid_q[i] <= valid_q[i-1];
    end
    if (write) memory[write_q] <= s_axis_data_tdata;
    if (read) data_q[0] <= memory[read_q];
    for (int i = 1; i < STAGES; i++) if (moves[i]) data_q[i] <= data_q[i-1];
  end

  assign m_axis_data_tdata  = data_q[STAGES-1];
  assign m_axis_data_tvalid = valid_q[STAGES-1];

  always_comb begin
    count_o = COUNT'(stored_q);
    for (int i = 0; i < STAGES; i++) count_o += COUNT'(valid_q[i]);
  end

`ifdef FORMAL
  `include "fifo_properties.svh"
`endif

endmodule

`default_nettype wire
