// SPDX-License-Identifier: Apache-2.0
// (R, k) with 1/v about R 2^(-15-k), v >= 1: k = floor(log2 v), R by table, in one or two lanes. SPEC.md,
// section 3.
//
// Stages: the search of the leading one ($clog2(WIDTH) / 2, rounded up: 3 from 17 bits on), the table's entry,
// its output register. An element per cycle; the whole pipeline stops while the last stage is not taken.
`default_nettype none

module reciprocal #(
    parameter int LANES = edge_moe_pkg::TOKENS_PARALLEL,
    parameter int WIDTH = 32  // bits of a lane that are used
) (
    input wire clk,
    input wire rst,

    input  wire  [LANES*32-1:0] s_axis_v_tdata,
    input  wire                 s_axis_v_tvalid,
    output logic                s_axis_v_tready,
    input  wire                 s_axis_v_tlast,

    // {k [LANES] of 8 bits; R [LANES] of 16 bits}
    output logic [LANES*24-1:0] m_axis_r_tdata,
    output logic                m_axis_r_tvalid,
    input  wire                 m_axis_r_tready,
    output logic                m_axis_r_tlast
);

  localparam int SEARCH = ($clog2(WIDTH) + 1) / 2;
  localparam int STAGES = SEARCH + 2;
  localparam int BITS = edge_moe_pkg::MANTISSA_BITS;  // under the leading one
  localparam int ENTRY = edge_moe_pkg::RECIPROCAL_WIDTH;
  localparam int EXPONENT = $clog2(WIDTH);

  if (LANES < 1 || LANES > 2) begin : g_check
    $fatal(1, "reciprocal: LANES = %0d must be 1 or 2, which share the table's memory", LANES);
  end
  if (WIDTH < BITS + 2 || WIDTH > 32) begin : g_check_width
    $fatal(1, "reciprocal: WIDTH = %0d must be within [%0d, 32]", WIDTH, BITS + 2);
  end

  logic              enable;
  logic [STAGES-1:0] valid_q, last_q;
  assign enable = !valid_q[STAGES-1] || m_axis_r_tready;

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-2:0], s_axis_v_tvalid};
    if (enable) last_q <= {last_q[STAGES-2:0], s_axis_v_tlast};
  end

  logic [LANES*BITS-1:0]  index;
  logic [LANES*ENTRY-1:0] entry;

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    // Unused: the leading one itself, the bits below the index, and a lane's bits beyond WIDTH.
    // verilator lint_off UNUSEDSIGNAL
    logic [31:0]      v;
    logic [WIDTH-1:0] normalised;
    // verilator lint_on UNUSEDSIGNAL
    logic [EXPONENT-1:0] exponent, exponent_q[2];

    assign v = s_axis_v_tdata[i*32+:32];

    leading_one #(
        .WIDTH(WIDTH)
    ) u_leading_one (
        .clk,
        .enable_i(enable),
        .value_i(v[WIDTH-1:0]),
        .normalised_o(normalised),
        .exponent_o(exponent)
    );

    always_ff @(posedge clk) begin
      if (enable) begin
        exponent_q[0] <= exponent;
        exponent_q[1] <= exponent_q[0];
      end
    end

    assign index[i*BITS+:BITS]             = normalised[WIDTH-2-:BITS];
    assign m_axis_r_tdata[i*16+:16]        = 16'(entry[i*ENTRY+:ENTRY]);
    assign m_axis_r_tdata[LANES*16+i*8+:8] = 8'(exponent_q[1]);
  end

  table_rom #(
      .WIDTH(ENTRY),
      .ENTRIES(edge_moe_pkg::RECIPROCAL_ENTRIES),
      .CONTENTS(edge_moe_pkg::RECIPROCAL),
      .PORTS(LANES)
  ) u_table_rom (
      .clk,
      .enable_i(enable),
      .address_i(index),
      .data_o(entry)
  );

  assign s_axis_v_tready = enable;
  assign m_axis_r_tvalid = valid_q[STAGES-1];
  assign m_axis_r_tlast  = last_q[STAGES-1];

endmodule

`default_nettype wire
