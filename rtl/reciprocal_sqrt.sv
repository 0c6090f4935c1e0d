// SPDX-License-Identifier: Apache-2.0
// (R, k) with 1/sqrt(v) about R 2^(-15-k), v >= 1: k = floor(log4 v), R by table. SPEC.md, section 3.
//
// Stages: the search of the leading pair of bits ($clog2(WIDTH / 2) / 2, rounded up), the table's entry,
// its output register. A value per cycle; the whole pipeline stops while the last stage is not taken.
`default_nettype none

module reciprocal_sqrt #(
    parameter int WIDTH = 56  // whole bytes
) (
    input wire clk,
    input wire rst,

    input  wire  [WIDTH-1:0] s_axis_v_tdata,
    input  wire              s_axis_v_tvalid,
    output logic             s_axis_v_tready,
    input  wire              s_axis_v_tlast,

    // {k of 8 bits, R of 16 bits}
    output logic [23:0] m_axis_r_tdata,
    output logic        m_axis_r_tvalid,
    input  wire         m_axis_r_tready,
    output logic        m_axis_r_tlast
);

  localparam int SEARCH = ($clog2(WIDTH / 2) + 1) / 2;
  localparam int STAGES = SEARCH + 2;
  localparam int MANTISSA = edge_moe_pkg::MANTISSA_BITS + 1;  // in [512, 2048): bit 9 or bit 10 leads
  localparam int ENTRY = edge_moe_pkg::RSQRT_WIDTH;

  if (WIDTH <= MANTISSA || WIDTH % 8 != 0) begin : g_check
    $fatal(1, "reciprocal_sqrt: WIDTH = %0d must be whole bytes and more than %0d bits", WIDTH, MANTISSA);
  end

  logic              enable;
  logic [STAGES-1:0] valid_q, last_q;
  assign enable = !valid_q[STAGES-1] || m_axis_r_tready;

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-2:0], s_axis_v_tvalid};
    if (enable) last_q <= {last_q[STAGES-2:0], s_axis_v_tlast};
  end

  // Only the upper bits are used.
  // verilator lint_off UNUSEDSIGNAL
  logic [WIDTH-1:0] normalised;
  // verilator lint_on UNUSEDSIGNAL
  logic [MANTISSA-1:0] mantissa, index;
  logic [ENTRY-1:0] entry;
  logic [$clog2(WIDTH/2)-1:0] exponent, exponent_q[2];

  leading_one #(
      .WIDTH(WIDTH),
      .UNIT(2)
  ) u_leading_one (
      .clk,
      .enable_i(enable),
      .value_i(s_axis_v_tdata),
      .normalised_o(normalised),
      .exponent_o(exponent)
  );
  assign mantissa = normalised[WIDTH-1-:MANTISSA];
  assign index = mantissa - MANTISSA'(1 << (MANTISSA - 2));

  table_rom #(
      .WIDTH(ENTRY),
      .ENTRIES(edge_moe_pkg::RSQRT_ENTRIES),
      .CONTENTS(edge_moe_pkg::RSQRT),
      .PORTS(1)
  ) u_table_rom (
      .clk,
      .enable_i(enable),
      .address_i(index),
      .data_o(entry)
  );

  always_ff @(posedge clk) begin
    if (enable) begin
      exponent_q[0] <= exponent;
      exponent_q[1] <= exponent_q[0];
    end
  end

  assign s_axis_v_tready = enable;
  assign m_axis_r_tdata  = {8'(exponent_q[1]), 16'(entry)};
  assign m_axis_r_tvalid = valid_q[STAGES-1];
  assign m_axis_r_tlast  = last_q[STAGES-1];

endmodule

`default_nettype wire
